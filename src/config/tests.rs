//! Bad input with the exact words of its errors.

mod reference;

use super::*;
use crate::plan::Protocol;

/// A listener and a service, for what has to stand around the case.
const AROUND: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n\
                      [[service]]\nname = \"s\"\nbackends = [\"127.0.0.1:9090\"]\n";

/// Where [`AROUND`] ends.
const AROUND_LINES: usize = 6;

/// Line, column, key and message of every error.
type Expected<'a> = (usize, usize, &'a str, &'a str);

#[track_caller]
fn check(text: &str, expected: &[Expected<'_>]) {
    let errors = parse("config.toml", text).expect_err(text);
    let found: Vec<Expected<'_>> = errors
        .iter()
        .map(|error| {
            (
                error.line,
                error.column,
                error.key.as_str(),
                error.message.as_str(),
            )
        })
        .collect();
    assert_eq!(found, expected, "\n{errors}");
}

/// `addition` goes behind [`AROUND`]; lines count from its own first one.
#[track_caller]
fn check_after(addition: &str, expected: &[Expected<'_>]) {
    let shifted: Vec<Expected<'_>> = expected
        .iter()
        .map(|(line, column, key, message)| (AROUND_LINES + line, *column, *key, *message))
        .collect();
    check(&format!("{AROUND}{addition}"), &shifted);
}

#[track_caller]
fn accepted(text: &str) -> Config {
    parse("config.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn all_errors_of_a_file_come_at_once() {
    let text = r#"[runtime]
shards = "x"
drain_timout = "3s"
drain_delay = "5s"
[[listener]]
name = "web"
address = "0.0.0.0:8080"
service = "my-servce"
[listener.timeouts]
head = "50ms"
[[service]]
name = "my-service"
domains = ["a.b", "A.b"]
backends = ["127.0.0.1:9090", { address = "[::1]:90", weight = 0 }, "127.0.0.1:9090", 5]
policy = "p3c"
"#;
    check(
        text,
        &[
            (
                2,
                10,
                "runtime.shards",
                "expected a whole number, found a string",
            ),
            (
                3,
                1,
                "runtime.drain_timout",
                "unknown key; the nearest is \"drain_timeout\"",
            ),
            (
                8,
                11,
                "listener.service",
                "no service \"my-servce\"; the nearest is \"my-service\"",
            ),
            (
                10,
                8,
                "listener.timeouts.head",
                "50ms is below the least, 100ms; allowed: 100ms to 1h",
            ),
            (
                13,
                19,
                "service.domains",
                "\"a.b\" is taken already, in line 13",
            ),
            (
                14,
                64,
                "service.backends.weight",
                "0 is below the least, 1; allowed: 1 to 1000",
            ),
            (
                14,
                69,
                "service.backends",
                "127.0.0.1:9090 is here twice; weight gives it a greater share",
            ),
            (
                14,
                87,
                "service.backends",
                "expected IP:PORT, HOST:PORT or a table with an address, found an integer",
            ),
            (
                15,
                10,
                "service.policy",
                "\"p3c\" is not known; allowed: \"random\", \"round_robin\", \"least_connections\", \
                 \"p2c\", \"ewma\", \"hash\"",
            ),
        ],
    );
}

#[test]
fn an_error_is_shown_at_its_place() {
    let errors = parse(
        "config.toml",
        "[[listener]]\nname = \"web\"\naddress = \"nowhere\"\n",
    );
    insta::assert_snapshot!(errors.expect_err("nowhere is no address"), @r#"
    error: listener.address: "nowhere" is not an address; allowed: IP:PORT, as in "0.0.0.0:8080" or "[::]:8080"
     --> config.toml:3:11
      |
    3 | address = "nowhere"
      |           ^^^^^^^^^
    "#);
}

#[test]
fn what_is_missing_is_named() {
    check(
        "",
        &[(1, 1, "listener", "is missing: at least one [[listener]]")],
    );
    check(
        "[[listener]]\n\n[[service]]\n[[route]]\n",
        &[
            (1, 1, "listener.name", "is missing: a name, as in \"web\""),
            (
                1,
                1,
                "listener.address",
                "is missing: IP:PORT, as in \"0.0.0.0:8080\"",
            ),
            (
                3,
                1,
                "service.name",
                "is missing: a name, as in \"my-service\"",
            ),
            (
                3,
                1,
                "service.backends",
                "is missing: at least one backend, as in [\"127.0.0.1:9090\"]",
            ),
            (4, 1, "route.service", "is missing: the name of a service"),
        ],
    );
    check_after(
        "[[service]]\nname = \"t\"\nbackends = []\n[[service]]\nname = \"u\"\nbackends = [{ }]",
        &[
            (
                3,
                12,
                "service.backends",
                "is missing: at least one backend, as in [\"127.0.0.1:9090\"]",
            ),
            (
                6,
                13,
                "service.backends.address",
                "is missing: IP:PORT, as in \"127.0.0.1:9090\", or HOST:PORT",
            ),
        ],
    );
}

#[test]
fn names_are_unique_and_refer_to_something() {
    check_after(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n\
         [[service]]\nname = \"s\"\nbackends = [\"127.0.0.1:9091\"]\n\
         [[route]]\nservice = \"t\"\n",
        &[
            (2, 8, "listener.name", "\"web\" is taken already, in line 2"),
            (
                3,
                11,
                "listener.address",
                "\"127.0.0.1:8080\" is taken already, in line 3",
            ),
            (5, 8, "service.name", "\"s\" is taken already, in line 5"),
            (
                8,
                11,
                "route.service",
                "no service \"t\"; the nearest is \"s\"",
            ),
        ],
    );
    check(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"s\"",
        &[(
            4,
            11,
            "listener.service",
            "no service \"s\"; there is none at all",
        )],
    );
}

#[test]
fn names_that_are_missing_are_not_taken_twice() {
    const MISSING: &str = "is missing: a name, as in \"my-service\"";
    check_after(
        "[[service]]\nbackends = [\"127.0.0.1:1\"]\n[[service]]\nbackends = [\"127.0.0.1:2\"]\n",
        &[
            (1, 1, "service.name", MISSING),
            (3, 1, "service.name", MISSING),
        ],
    );
}

#[test]
fn an_unknown_key_names_the_nearest_or_its_section() {
    let cases = [
        (
            "drain_timeout = \"1s\"",
            "drain_timeout",
            "unknown key here; it belongs to [runtime]",
        ),
        (
            "[listner]",
            "listner",
            "unknown key; the nearest is \"listener\"",
        ),
    ];
    for (line, key, message) in cases {
        let column = if line.starts_with('[') { 2 } else { 1 };
        let text = format!("{line}\n{AROUND}");
        check(&text, &[(1, column, key, message)]);
    }
    check_after(
        "[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:1\"\nconnections_max = 3\nhead = \"1s\"",
        &[
            (
                4,
                1,
                "listener.connections_max",
                "unknown key here; it belongs to [listener.limits]",
            ),
            (
                5,
                1,
                "listener.head",
                "unknown key here; it belongs to [listener.timeouts]",
            ),
        ],
    );
}

#[test]
fn a_text_that_is_not_toml_is_an_error_with_its_place() {
    check("[runtime\n", &[(1, 9, "", "unclosed table, expected `]`")]);
    check(
        "[runtime]\nvia = \"a\"\nvia = \"b\"\n",
        &[(3, 1, "", "duplicate key")],
    );
    let column_in_characters = "via = \"äöü\" x\n";
    let errors = parse("config.toml", column_in_characters).expect_err("x is too much");
    assert_eq!(
        errors.iter().map(|error| error.column).collect::<Vec<_>>(),
        [13]
    );
}

#[test]
fn every_type_and_range_is_checked() {
    const NO_SIZE: &str = "\"16 KB\" is not a size; allowed: a whole number with B, KiB, MiB, GiB, \
                           kB, MB or GB, as in \"16KiB\"";
    let cases = [
        (
            "[runtime]",
            "shards = 1025",
            "1025 is above the most, 1024; allowed: 0 to 1024",
        ),
        (
            "[runtime]",
            "shards = -1",
            "-1 is below the least, 0; allowed: 0 to 1024",
        ),
        (
            "[service.retry]",
            "body_bytes_max = -1",
            "-1 is below the least, 0B; allowed: 0B to 1MiB",
        ),
        (
            "[runtime]",
            "shards = 99999999999999999999",
            "99999999999999999999 is above the most, 1024; allowed: 0 to 1024",
        ),
        (
            "[runtime]",
            "shards = 1.0",
            "expected a whole number, found a float",
        ),
        (
            "[runtime]",
            "pin = true",
            "expected a string, found a boolean",
        ),
        (
            "[runtime]",
            "pin = \"yes\"",
            "\"yes\" is not known; allowed: \"auto\", \"on\", \"off\"",
        ),
        (
            "[runtime]",
            "drain_timeout = 5",
            "expected a duration such as \"5s\", found an integer",
        ),
        (
            "[runtime]",
            "drain_timeout = \"2d\"",
            "2d is above the most, 1d; allowed: 0s to 1d",
        ),
        (
            "[runtime]",
            "via = \"a b\"",
            "\"a b\" is not a name for Via; allowed: a token (RFC 9110) of up to 64",
        ),
        (
            "[log]",
            "level = \"warn,inof\"",
            "\"inof\" is not a level; the nearest is \"info\"; allowed: error, warn, info, debug, \
             trace, off, or levels by module, as in \"warn,ringmain=debug\"",
        ),
        (
            "[log]",
            "to = \"stderr\"",
            "expected a list, found a string",
        ),
        (
            "[log]",
            "to = []",
            "is empty; allowed: stderr, stdout, paths (level = \"off\" is silent)",
        ),
        ("[listener.limits]", "head_bytes_max = \"16 KB\"", NO_SIZE),
        (
            "[listener.limits]",
            "head_bytes_max = 1023",
            "1023B is below the least, 1KiB; allowed: 1KiB to 1MiB",
        ),
        (
            "[listener.limits]",
            "head_bytes_max = true",
            "expected a size such as 512 or \"16KiB\", found a boolean",
        ),
        (
            "[listener.limits]",
            "fields_max = 501",
            "501 is above the most, 500; allowed: 1 to 500",
        ),
        (
            "[service.retry]",
            "attempts_max = 11",
            "11 is above the most, 10; allowed: 0 to 10",
        ),
        (
            "[service.retry]",
            "budget = nan",
            "expected a number, found a float",
        ),
        (
            "[service.timeouts]",
            "connect = \"0s\"",
            "0s is below the least, 100ms; allowed: 100ms to 1h",
        ),
        (
            "[service.timeouts]",
            "connect = \"5\"",
            "\"5\" has no unit; allowed: ms, s, m, h, d, as in \"250ms\" or \"1m30s\"",
        ),
    ];
    for (section, assignment, message) in cases {
        // A table of the listener has to stand inside it.
        let listener = "[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:1\"\n";
        let before = if section.starts_with("[listener") {
            listener
        } else {
            ""
        };
        let name = assignment.split(" = ").next().expect("an assignment");
        let key = format!("{}.{name}", section.trim_matches(['[', ']']));
        let line = AROUND_LINES + before.lines().count() + 2;
        let text = format!("{AROUND}{before}{section}\n{assignment}");
        check(&text, &[(line, name.len() + 4, &key, message)]);
    }
}

#[test]
fn a_key_of_another_type_is_no_table() {
    check(
        "listener = 1\n",
        &[
            (1, 12, "listener", "expected a list, found an integer"),
            (1, 12, "listener", "is missing: at least one [[listener]]"),
        ],
    );
    check(
        &format!("log = []\n{AROUND}"),
        &[(1, 7, "log", "expected a table, found a list")],
    );
}

#[test]
fn addresses_of_backends_say_what_they_should_be() {
    const ALLOWED: &str =
        "allowed: IP:PORT or HOST:PORT, as in \"127.0.0.1:9090\" or \"[::1]:9090\"";
    let cases = [
        ("http://127.0.0.1:9090", "is a URL; "),
        ("127.0.0.1", "has no port; "),
        ("::1", "has no port; "),
        ("app.internal", "has no port; "),
        ("app:0x1", "has no port; "),
        ("app:", "has no port; "),
        ("127.0.0.256:80", "is not an address; "),
        ("-app:80", "is not an address; "),
        ("a b:80", "is not an address; "),
        (".:80", "is not an address; "),
        ("", "is not an address; "),
    ];
    for (address, message) in cases {
        let found = words::backend_address(address).expect_err(address);
        assert_eq!(found, format!("{address:?} {message}{ALLOWED}"));
    }
    let port = words::backend_address("127.0.0.1:0").expect_err("port 0");
    assert_eq!(port, "\"127.0.0.1:0\" has port 0; allowed: 1 to 65535");
    let port = words::backend_address("app:65536").expect_err("port 65536");
    assert_eq!(port, "\"app:65536\" has port 65536; allowed: 1 to 65535");
}

#[test]
fn domains_paths_and_methods_are_what_requests_can_have() {
    let good = [
        ("Example.COM", "example.com"),
        ("*.Example.com", "*.example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0:0::1]", "[::1]"),
        ("my_app", "my_app"),
    ];
    for (domain, folded) in good {
        assert_eq!(words::domain(domain).as_deref(), Ok(folded));
    }
    let long = "a.".repeat(127) + "a";
    for domain in [
        "", "*", "*.", "a.b:80", "::1", "[x]", "a..b", "a.b.", "ä.de", "-a.b", &long,
    ] {
        assert!(words::domain(domain).is_err(), "{domain:?}");
    }
    for path in ["", "/", "/a", "/a/*", "/*", "/a%20b"] {
        assert_eq!(words::path(path).as_deref(), Ok(path));
    }
    for path in ["a", "*", "/a*", "/a/*/b", "/a?b", "/a#b", "/a b", "/ä"] {
        assert!(words::path(path).is_err(), "{path:?}");
    }
    let lower = words::method("post").expect_err("it would match nothing");
    assert_eq!(
        lower,
        "\"post\" would match nothing: methods keep their case; use \"POST\""
    );
    for method in ["GET", "PURGE", "x-mine"] {
        assert_eq!(words::method(method).as_deref(), Ok(method));
    }
    assert!(words::method("").is_err());
}

#[test]
fn fields_of_the_framing_are_left_to_ringmain() {
    let section = "[service.fields]";
    for field in [
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "Content_Length",
        "keep_alive",
        "TE",
        "Upgrade",
    ] {
        let message = format!(
            "{field:?} frames the message or belongs to one connection; ringmain alone writes it"
        );
        let set = format!("{section}\nrequest_set = {{ {field} = \"1\" }}");
        check_after(&set, &[(2, 17, "service.fields.request_set", &message)]);
        let remove = format!("{section}\nresponse_remove = [\"{field}\"]");
        check_after(
            &remove,
            &[(2, 20, "service.fields.response_remove", &message)],
        );
    }
    let cases = [
        (
            "request_remove = [\"Host\"]",
            19,
            "\"Host\" may be set, but not removed",
        ),
        (
            "request_set = { Via = \"1.1 a\" }",
            17,
            "\"Via\" counts or names the hops; ringmain alone writes it",
        ),
        (
            "request_set = { max_forwards = \"1\" }",
            17,
            "\"max_forwards\" counts or names the hops; ringmain alone writes it",
        ),
        (
            "request_set = { expect = \"1\" }",
            17,
            "\"expect\" is the client's to say; it may be removed, but not set",
        ),
        (
            "response_set = { a = \"1\\n\" }",
            22,
            "a field's value takes no control character; letter 2 is '\\n'",
        ),
        (
            "response_set = { a = \" 1\" }",
            22,
            "a field's value does not begin or end with blanks, as this one does",
        ),
        (
            "response_set = { a = \"1\", A = \"2\" }",
            27,
            "\"A\" is here twice",
        ),
        (
            "response_set = { \"a:\" = \"1\" }",
            18,
            "\"a:\" is not a field name; allowed: a token (RFC 9110), as in \"X-Served-By\"",
        ),
    ];
    for (assignment, column, message) in cases {
        let key = assignment.split(" = ").next().expect("an assignment");
        let key = format!("service.fields.{key}");
        check_after(
            &format!("{section}\n{assignment}"),
            &[(2, column, &key, message)],
        );
    }
    check_after(
        "[service.fields]\nrequest_set = { A = \"1\" }\nrequest_remove = [\"a\"]",
        &[(
            3,
            18,
            "service.fields.request_remove",
            "\"A\" is set as well; setting replaces what was there",
        )],
    );
    check_after(
        "backend_field = \"X-A\"\n[service.fields]\nresponse_set = { x_a = \"1\" }",
        &[(
            1,
            17,
            "service.backend_field",
            "\"X-A\" is in response_set too; a field has one value",
        )],
    );
    accepted(&format!(
        "{AROUND}{section}\nrequest_set = {{ Host = \"inner\" }}"
    ));
}

#[test]
fn connections_that_say_whose_they_are_are_not_opened_ahead() {
    for version in ["v1", "v2"] {
        let keys = format!("send_proxy_protocol = \"{version}\"\n[service.pool]\nidle_min = ");
        accepted(&format!("{AROUND}{keys}0\nidle_max = 5"));
        check_after(
            &format!("{keys}2"),
            &[(
                1,
                23,
                "service.send_proxy_protocol",
                "pool.idle_min is 2; a connection that says whose it is can't be opened ahead",
            )],
        );
    }
    check_after(
        "send_proxy_protocol = \"v3\"",
        &[(
            1,
            23,
            "service.send_proxy_protocol",
            "\"v3\" is not known; allowed: \"off\", \"v1\", \"v2\"",
        )],
    );
}

#[test]
fn a_route_leads_to_one_service_or_to_several_by_weight() {
    for fine in [
        "service = \"s\"",
        "service = \"s\"\nweights = { }",
        "weights = { s = 1 }",
        "weights = { t = 0, s = 1000 }\n[[service]]\nname = \"t\"\nbackends = [\"127.0.0.1:1\"]",
    ] {
        accepted(&format!("{AROUND}[[route]]\n{fine}\n"));
    }
    let cases = [
        (
            "weights = { s = 0 }",
            11,
            "no service has a weight; at least one needs 1 or more",
        ),
        (
            "weights = { s = 1, t = 1001 }",
            24,
            "1001 is above the most, 1000; allowed: 0 to 1000",
        ),
        (
            "weights = { s = 1, ss = 1 }",
            11,
            "no service \"ss\"; the nearest is \"s\"",
        ),
        ("weights = { s = 1, \"s\" = 1 }", 20, "duplicate key"),
        (
            "weights = { s = 1 }\nservice = \"s\"",
            11,
            "stands beside service; a route leads to the one or to the others",
        ),
    ];
    for (route, column, message) in cases {
        let key = if message == "duplicate key" {
            ""
        } else {
            "route.weights"
        };
        check_after(&format!("[[route]]\n{route}"), &[(2, column, key, message)]);
    }
}

#[test]
fn a_route_looks_at_fields_and_parameters_that_can_be_sent() {
    accepted(&format!(
        "{AROUND}[[route]]\nservice = \"s\"\nfields = {{ X-Canary = \"1, \u{e9}\", X-Empty = \"\" }}\n\
         query = {{ \"a%5B%5D\" = \"\", try = \"a%20b+c/?=\" }}\n"
    ));
    const QUERY: &str = "cannot stand in a query; allowed: A-Z a-z 0-9 and - . _ ~ ! $ ' ( ) * + , \
                         ; = : @ / ?, others as they are sent, in percent, as in \"%20\"";
    let query = |text: &str| format!("{text:?} {QUERY}");
    let cases = [
        (
            "fields = { \"Content-Length\" = \"1\" }",
            12,
            "\"Content-Length\" frames the message or belongs to one connection; ringmain alone \
             writes it"
                .to_owned(),
        ),
        (
            "fields = { A = \"1\", a = \"2\" }",
            21,
            "\"a\" is here twice".to_owned(),
        ),
        (
            "fields = { A = \" 1\" }",
            16,
            "a field's value does not begin or end with blanks, as this one does".to_owned(),
        ),
        ("query = { a = \"b c\" }", 15, query("b c")),
        ("query = { a = \"b&c\" }", 15, query("b&c")),
        ("query = { \"a b\" = \"\" }", 11, query("a b")),
        (
            "query = { \"\" = \"\" }",
            11,
            "\"\" is not a parameter's name".to_owned(),
        ),
        (
            "query = { \"a=\" = \"\" }",
            11,
            "\"a=\" is not a parameter's name: it has a \"=\"".to_owned(),
        ),
    ];
    for (assignment, column, message) in cases {
        let key = assignment.split(" = ").next().expect("an assignment");
        let key = format!("route.{key}");
        let text = format!("[[route]]\nservice = \"s\"\n{assignment}");
        check_after(&text, &[(3, column, &key, &message)]);
    }
}

#[test]
fn a_burst_belongs_to_a_rate() {
    let section = "[service.limits]";
    accepted(&format!(
        "{AROUND}{section}\nclient_rate = 1\nclient_burst = 9\n"
    ));
    check_after(
        &format!("{section}\nclient_burst = 9"),
        &[(
            2,
            16,
            "service.limits.client_burst",
            "means nothing without client_rate",
        )],
    );
}

#[test]
fn a_feature_that_is_not_built_yet_takes_its_default_and_off_values_only() {
    let cases = [
        ("[log.access]\nto = \"off\"", None),
        ("[log.access]\nto = \"stdout\"", Some("\"off\"")),
        ("[service.fanout]\nrequire = \"any\"", None),
        ("[service.slo]", Some("no such table")),
    ];
    for (addition, refused) in cases {
        let text = format!("{AROUND}{addition}\n");
        let Some(accepts) = refused else {
            accepted(&text);
            continue;
        };
        let errors = parse("config.toml", &text).expect_err(&text);
        let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(
            messages,
            [format!("not supported yet; accepted: {accepts}")],
            "{text}"
        );
    }
}

#[test]
fn one_listener_and_its_backends_need_no_file() {
    let backends = ["http://127.0.0.1:9090/", "[::1]:9091"].map(String::from);
    let config =
        Config::single("127.0.0.1:8080", &backends, Some("round_robin"), None).expect("fine");
    assert_eq!(config.listeners()[0].service, config.services()[0].name);
    let addresses = config.services()[0]
        .backends
        .iter()
        .map(|backend| backend.address.to_string());
    assert_eq!(
        addresses.collect::<Vec<_>>(),
        ["127.0.0.1:9090", "[::1]:9091"]
    );

    let errors =
        Config::single("here\"", &[], Some("p3c"), None).expect_err("nothing of it is right");
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        ["listener.address", "service.backends", "service.policy"]
    );
}

#[test]
fn the_environment_overrides_the_log_and_names_the_file() {
    let with = |pairs: &'static [(&'static str, &'static str)]| {
        move |name: &str| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    };
    let config = accepted(AROUND);
    let log = |pairs| {
        config
            .clone()
            .with_environment(with(pairs))
            .map(|config| config.log)
    };
    let changed = log(&[
        ("LOG_LEVEL", "debug"),
        ("RUST_LOG", "trace"),
        ("LOG_FORMAT", "ecs"),
    ]);
    let changed = changed.expect("both are known");
    assert_eq!(
        (changed.level.as_str(), changed.format),
        ("debug", LogFormat::Ecs)
    );
    assert_eq!(log(&[("RUST_LOG", "trace")]).expect("known").level, "trace");
    assert_eq!(log(&[("LOG_LEVEL", "")]).expect("as absent").level, "info");
    insta::assert_snapshot!(log(&[("LOG_FORMAT", "xml")]).expect_err("not known"), @r#"
    error: LOG_FORMAT: "xml" is not known; allowed: text, json, ecs
     --> environment:1:12
      |
    1 | LOG_FORMAT=xml
      |            ^^^
    "#);

    let explicit = find(
        Some(Path::new("a.toml")),
        with(&[("RINGMAIN_CONFIG", "b.toml")]),
    );
    assert_eq!(explicit, Path::new("a.toml"));
    assert_eq!(
        find(None, with(&[("RINGMAIN_CONFIG", "b.toml")])),
        Path::new("b.toml")
    );
}

#[test]
fn the_environment_overrides_the_interval_of_every_probe() {
    let text = format!(
        "{AROUND}[service.probe]\ninterval = \"1m\"\n\
         [[service]]\nname = \"t\"\nbackends = [\"127.0.0.1:1\"]\n\
         [[service]]\nname = \"u\"\nbackends = [\"127.0.0.1:1\"]\nprobe.kind = \"tcp\"\n"
    );
    let with = |value: &str| {
        let value = value.to_owned();
        let environment = move |name: &str| (name == "PROBE_INTERVAL").then(|| value.clone());
        accepted(&text).with_environment(environment)
    };
    let intervals = |value| -> Vec<Option<Duration>> {
        let config = with(value).expect("it is known");
        let probes = config.services.iter().map(|service| service.probe.as_ref());
        probes
            .map(|probe| probe.map(|probe| probe.interval))
            .collect()
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(intervals(""), [seconds(60), None, seconds(5)]);
    assert_eq!(intervals("2s"), [seconds(2), None, seconds(2)]);
    for (value, expected) in [
        (
            "99ms",
            "99ms is below the least, 100ms; allowed: 100ms to 1d",
        ),
        ("25h", "1d1h is above the most, 1d; allowed: 100ms to 1d"),
        (
            "5",
            "\"5\" has no unit; allowed: ms, s, m, h, d, as in \"250ms\" or \"1m30s\"",
        ),
    ] {
        let errors = with(value).expect_err(value);
        let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(messages, [expected]);
        assert!(errors.to_string().contains("PROBE_INTERVAL"), "{errors}");
    }
}

#[test]
fn a_factor_that_ejects_whoever_is_well_is_an_error() {
    let message = "is below 1.0, which ejects endpoints that are well; 0.0 is never";
    check_after(
        "eject = { latency_factor = 0.5 }",
        &[(1, 28, "service.eject.latency_factor", message)],
    );
}

#[test]
fn a_key_of_another_kind_of_probe_is_an_error() {
    let of_http = "has no effect; it is for kind = \"http\"";
    for (keys, column, key, message) in [
        (
            "kind = \"exec\"",
            // Where the key could stand.
            9,
            "command",
            "is missing: the program that kind = \"exec\" runs, and its arguments",
        ),
        (
            "kind = \"exec\", command = [\"\"]",
            36,
            "command",
            "\"\" is no program",
        ),
        (
            "command = [\"/bin/true\"]",
            21,
            "command",
            "has no effect; it is for kind = \"exec\"",
        ),
        ("kind = \"tcp\", path = \"/\"", 32, "path", of_http),
        (
            "kind = \"tcp\", ready_path = \"/\"",
            38,
            "ready_path",
            of_http,
        ),
        ("kind = \"tcp\", statuses = [204]", 36, "statuses", of_http),
        ("kind = \"tcp\", host = \"a\"", 32, "host", of_http),
        (
            "statuses = []",
            22,
            "statuses",
            "has no status that an answer may have",
        ),
        (
            "statuses = [200, 199]",
            28,
            "statuses",
            "199 is below the least, 200; allowed: 200 to 599",
        ),
        (
            "host = \"*.a.example\"",
            18,
            "host",
            "is a wildcard; a probe asks for one host",
        ),
        (
            "interval = \"99ms\"",
            22,
            "interval",
            "99ms is below the least, 100ms; allowed: 100ms to 1d",
        ),
    ] {
        let key = format!("service.probe.{key}");
        check_after(
            &format!("probe = {{ {keys} }}"),
            &[(1, column, &key, message)],
        );
    }
    // What has its default is not told from what is absent.
    for keys in [
        "kind = \"tcp\", path = \"/live\", command = []",
        "kind = \"exec\", command = [\"/bin/true\", \"\"]",
        "interval = \"100ms\", timeout = \"1h\"",
    ] {
        accepted(&format!("{AROUND}probe = {{ {keys} }}"));
    }
}

#[test]
fn a_file_that_is_not_there_says_what_to_type() {
    let errors = load(Path::new("/nonexistent/config.toml")).expect_err("it is not there");
    insta::assert_snapshot!(errors, @r"
    error: there is no such file; name one with --config FILE or RINGMAIN_CONFIG=FILE, or do without: ringmain run --listen 127.0.0.1:8080 --backend http://127.0.0.1:9090
    --> /nonexistent/config.toml
    ");
}

#[test]
fn limits_below_the_number_of_shards_are_warned_of() {
    let text = format!(
        "[runtime]\nconnections_max = 3\n{AROUND}domains = [\"a\"]\n[[listener]]\nname = \"b\"\n\
         address = \"127.0.0.1:1\"\nlimits = {{ connections_max = 2 }}\n[[service]]\n\
         name = \"t\"\ndomains = [\"t\"]\nbackends = [\"127.0.0.1:2\"]\n\
         pool = {{ connections_max = 1 }}\n\
         limits = {{ client_rate = 1, client_concurrent = 1, rate = 2, concurrent = 3 }}\n"
    );
    let config = accepted(&text);
    assert_eq!(config.warnings(1), [""; 0]);
    let expected = [
        "runtime.connections_max: 3 is below the number of shards, 4; each shard allows 1, so 4 in \
         all",
        "listener.limits.connections_max of \"b\": 2 is below the number of shards, 4; each shard \
         allows 1, so 4 in all",
        "service.pool.connections_max of \"t\": 1 is below the number of shards, 4; each shard \
         allows 1, so 4 in all",
        "service.limits.rate of \"t\": 2 is below the number of shards, 4; each shard allows 1, so 4 \
         in all",
        "service.limits.concurrent of \"t\": 3 is below the number of shards, 4; each shard allows \
         1, so 4 in all",
    ];
    assert_eq!(config.warnings(4), expected);
    assert_eq!(config.warnings(2), [expected[2].replace('4', "2")]);
}

#[test]
fn a_service_that_no_request_can_come_to_is_warned_of() {
    let weighted = format!("{AROUND}[[route]]\nweights = {{ s = 1 }}\n");
    assert_eq!(accepted(&weighted).warnings(1), [""; 0]);
    let lost = "service \"s\" has no domains, and no route or listener names it";
    assert_eq!(accepted(AROUND).warnings(1), [lost]);
    let routed = format!("{AROUND}[[route]]\nservice = \"s\"\n");
    assert_eq!(accepted(&routed).warnings(1), [""; 0]);
    let served = AROUND.replacen("8080\"", "8080\"\nservice = \"s\"", 1);
    assert_eq!(accepted(&served).warnings(1), [""; 0]);
}

#[test]
fn a_service_whose_backends_are_all_drained_is_warned_of() {
    let drained =
        "domains = [\"a.test\"]\nbackends = [{ address = \"127.0.0.1:9090\", drain = true }]";
    let text = AROUND.replacen("backends = [\"127.0.0.1:9090\"]", drained, 1);
    let expected = "service \"s\" has no backend without drain: its requests get a 503";
    assert_eq!(accepted(&text).warnings(1), [expected]);
}

#[test]
fn a_fan_out_without_room_for_a_request_is_warned_of() {
    let text = AROUND.replacen(
        "backends = [\"127.0.0.1:9090\"]",
        "domains = [\"a.test\"]\nbackends = [\"127.0.0.1:1\", \"127.0.0.1:2\"]",
        1,
    );
    let with = |keys: &str| accepted(&format!("{text}[service.fanout]\n{keys}")).warnings(1);
    assert_eq!(with("legs_max = 2\nkept_bytes_max = \"1MiB\""), [""; 0]);
    let expected = [
        "service.fanout.legs_max of \"s\": 1 is below the number of its backends, 2: its requests \
         get a 503",
        "service.fanout.kept_bytes_max of \"s\" is below body_bytes_max: requests in between get a \
         503",
    ];
    assert_eq!(with("legs_max = 1\nkept_bytes_max = \"1023KiB\""), expected);
}

#[test]
fn a_fan_out_that_is_to_name_its_endpoint_is_warned_of() {
    let text = format!("{AROUND}domains = [\"a.test\"]\nbackend_field = \"X-Backend\"\n");
    assert_eq!(accepted(&text).warnings(1), [""; 0]);
    let fanned_out = accepted(&format!("{text}[service.fanout]\n"));
    let expected = "service.backend_field of \"s\" does nothing beside [service.fanout]";
    assert_eq!(fanned_out.warnings(1), [expected]);
}

/// What is wrong with [`AROUND`] whose listener has these keys too and whose service these.
#[track_caller]
fn messages_of(listener: &str, service: &str) -> Vec<String> {
    let text = AROUND.replacen("8080\"", &format!("8080\"\n{listener}"), 1);
    let errors = parse("config.toml", &format!("{text}{service}"));
    let errors = errors.expect_err("something is wrong");
    let finding = |error: &ConfigError| format!("{}: {}", error.key, error.message);
    errors.iter().map(finding).collect()
}

#[test]
fn a_tcp_listener_names_its_one_service() {
    let config =
        accepted(&AROUND.replacen("8080\"", "8080\"\nprotocol = \"tcp\"\nservice = \"s\"", 1));
    assert_eq!(config.listeners()[0].protocol, Protocol::Tcp);
    assert_eq!(config.warnings(1), [""; 0]);
    let missing = "listener.service: is missing: with protocol \"tcp\" every connection goes to one \
                   service";
    assert_eq!(messages_of("protocol = \"tcp\"", ""), [missing]);
    let parameter = "listener.service_parameter: with protocol \"tcp\" there are no requests that \
                     could have it";
    let keys = "protocol = \"tcp\"\nservice = \"s\"\nservice_parameter = \"s\"";
    assert_eq!(messages_of(keys, ""), [parameter]);
}

#[test]
fn a_tcp_listener_does_not_name_a_service_that_fans_out() {
    let fanned = "listener.service: service \"s\" has a [service.fanout]; with protocol \"tcp\" a \
                  connection goes to one backend";
    let messages = messages_of("protocol = \"tcp\"\nservice = \"s\"", "[service.fanout]\n");
    assert!(
        messages.iter().any(|message| message == fanned),
        "{messages:?}"
    );
}

#[test]
fn a_key_that_tcp_connections_do_not_have_is_warned_of() {
    let keyed = |key: &str, protocol: &str| {
        let listener = format!("8080\"\nservice = \"s\"\nprotocol = \"{protocol}\"");
        let text = AROUND.replacen("8080\"", &listener, 1);
        accepted(&format!("{text}policy = \"hash\"\nhash_key = \"{key}\"\n")).warnings(1)
    };
    let warning = "service.hash_key of \"s\" is nothing that a TCP connection has: those of \
                   listener \"web\" are told apart by their client";
    assert_eq!(keyed("path", "tcp"), [warning]);
    assert_eq!(keyed("client", "tcp"), [""; 0]);
    assert_eq!(keyed("path", "http"), [""; 0]);
}

#[test]
fn keys_for_requests_of_a_service_that_has_none_are_warned_of() {
    let warnings = |protocols: &[&str], service: &str| {
        let listener = |(place, protocol): (usize, &&str)| {
            format!(
                "[[listener]]\nname = \"{place}\"\naddress = \"127.0.0.1:{}\"\n\
                 protocol = \"{protocol}\"\nservice = \"s\"\n",
                8080 + place
            )
        };
        let listeners: String = protocols.iter().enumerate().map(listener).collect();
        let text = format!(
            "{listeners}[[service]]\nname = \"s\"\nbackends = [\"127.0.0.1:1\"]\n{service}\n"
        );
        accepted(&text).warnings(1)
    };
    let keys = "domains = [\"a.test\"]\nretry.statuses = [503]\npool.idle_min = 1";
    let warning = "service \"s\" has connections of TCP alone, for which these keys do nothing: \
                   domains, retry.statuses, pool.idle_min";
    assert_eq!(warnings(&["tcp"], keys), [warning]);
    assert_eq!(warnings(&["tcp", "http"], keys), [""; 0]);
    assert_eq!(warnings(&["tcp"], ""), [""; 0]);
}
