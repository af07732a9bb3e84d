//! The admin API and `ringmain report`, which asks it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Directory, Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers, run_alone,
    run_to_end,
};

on_both_drivers! {
    every_format_shows_what_was_recorded
    a_request_that_is_wrong_is_refused_with_what_is_allowed
    a_socket_in_the_file_system_serves_its_owner_and_goes_away
    an_address_that_other_machines_reach_answers_probes_alone
    what_changes_something_is_asked_for_on_purpose
    a_reload_is_answered_with_what_came_of_it
    clients_that_say_nothing_do_not_keep_probes_waiting
    an_address_in_use_ends_the_start_with_what_to_type
    a_file_in_the_way_of_the_socket_is_kept_and_explained
    a_client_that_is_stuck_holds_neither_others_nor_the_end
    a_report_asked_for_during_a_drain_is_exact_at_its_end
    the_command_says_why_it_got_no_report
}

const LOOPBACK: &str = "127.0.0.1:0";

/// A proxy of the service `a` on `origin` with an admin API, and so many exchanges behind it.
fn start(driver: Driver, origin: &Served, admin: &str, exchanges: usize) -> Proxy {
    let setup = Setup::new(driver).shards(2).admin(admin);
    let proxy = setup.service("a", &[origin.address()], "").start();
    for _ in 0..exchanges {
        assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    }
    // A try's end may come a turn of the shard after the client has its answer.
    proxy.report_where(|report| {
        let total = report.services["a"].phases.get("total");
        total.map_or(0, |times| times.count) == exchanges as u64
    });
    proxy
}

/// What `ringmain report` prints, which has to succeed.
#[track_caller]
fn report(arguments: &[&str]) -> String {
    let (code, text, errors) = run_alone(&[&["report"], arguments].concat());
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    text
}

fn every_format_shows_what_was_recorded(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = start(driver, &origin, LOOPBACK, 9);
    let admin = proxy.admin();
    let get = |arguments: &[&str]| report(&[&["--admin", admin.as_str()], arguments].concat());

    let text = get(&[]);
    let total = |line: &&str| line.trim_start().starts_with("total ");
    let totals: Vec<&str> = text.lines().filter(total).collect();
    assert_eq!(
        totals.len(),
        2,
        "of the service and of the endpoint: {text}"
    );
    assert!(
        totals
            .iter()
            .all(|line| line.split_whitespace().nth(1) == Some("9")),
        "{text}"
    );

    let json: Value = serde_json::from_str(&get(&["--format", "json"])).expect("it is JSON");
    let service = &json["services"][0];
    for (phases, label) in [
        (&service["phases"], "client_receive"),
        (&service["phases"], "own"),
        (&service["phases"], "total"),
        (&service["endpoints"][0]["phases"], "upstream_wait"),
    ] {
        let times = &phases[label];
        assert_eq!(times["count"], 9, "{label}: {json:#}");
        let values = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(|name| {
            let value = times[name].as_f64();
            value.unwrap_or_else(|| unreachable!("{name} is a number: {times}"))
        });
        assert!(values.is_sorted(), "{label}: {json:#}");
    }
    let shards = json["shards"].as_array().expect("it is a list");
    let exchanges = shards
        .iter()
        .filter_map(|shard| shard["exchanges"].as_u64());
    assert_eq!(exchanges.sum::<u64>(), 9);
    assert_eq!(json["late_shards"], serde_json::json!([]));

    let endpoint = origin.address().to_string();
    let narrowed = [
        "--format",
        "hgrm",
        "--phase",
        "upstream_wait",
        "--endpoint",
        &endpoint,
    ];
    for arguments in [&["--format", "hgrm"][..], &narrowed] {
        let hgrm = get(arguments);
        assert!(hgrm.contains("Total count    =            9]"), "{hgrm}");
    }
    let hlog = get(&["--format", "hlog", "--service", "a"]);
    assert!(hlog.contains("\nTag=a/own,0.000,"), "{hlog}");
    assert!(
        hlog.contains(&format!("\nTag=a/{endpoint}/total,0.000,")),
        "{hlog}"
    );

    // The configuration says where to ask.
    let config = format!(
        "[admin]\naddress = \"{admin}\"\n[[listener]]\nname = \"x\"\naddress = \"127.0.0.1:1\"\n"
    );
    let (code, text, errors) = run_to_end(&["report", "--phase", "own"], &config);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        text.contains("\n  own ") && !text.contains("\n  total "),
        "{text}"
    );
}

fn a_request_that_is_wrong_is_refused_with_what_is_allowed(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .admin(LOOPBACK)
        .service("a", &[origin.address()], "")
        .service("b", &[origin.address()], "")
        .start();
    let get =
        |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Ringmain: 1\r\n\r\n");
    let cases = [
        (get("/report?window=1m"), 400, "allowed: all"),
        (
            get("/report?format=xml"),
            400,
            "allowed: text, json, hgrm, hlog",
        ),
        (
            get("/report?phase=wait"),
            400,
            "allowed: client_receive, upstream_connect,",
        ),
        (
            get("/report?service=c"),
            400,
            "there is no \"c\"; allowed: a, b",
        ),
        (
            get("/report?endpoint=c"),
            400,
            "there is no \"c\"; allowed: 127.0.0.1:",
        ),
        (
            get("/report?format=hgrm"),
            400,
            "so name one; allowed: a, b",
        ),
        (
            get("/report?frmat=text"),
            400,
            "\"frmat\" is not a parameter",
        ),
        (get("/report?service=a&service=b"), 400, "twice"),
        (get("/report?format=hgrm&service=a"), 200, "Total count"),
        (get("/report?service=a&endpoint="), 200, "service a"),
        (get("/"), 404, "GET /report, POST /reload"),
        (get("/report/"), 404, "GET /report, POST /reload"),
        (get("/report").replace("GET", "POST"), 405, "allowed: GET"),
        (get("/report").replace("GET", "DELETE"), 405, "allowed: GET"),
        (
            get("/report").replace("localhost", "127.0.0.1:80"),
            200,
            "ringmain 0",
        ),
        (
            get("/report").replace("localhost", "[::1]"),
            200,
            "ringmain 0",
        ),
        (
            get("/report").replace("localhost", "evil.test"),
            403,
            "Host is not",
        ),
        (
            get("/report").replace("localhost", "a.test"),
            403,
            "Host is not",
        ),
        (get("http://evil.test/report"), 403, "Host is not"),
        (
            "GET /report HTTP/1.0\r\n\r\n".to_owned(),
            403,
            "Host is not",
        ),
    ];
    for (request, status, says) in cases {
        let mut client = proxy.admin_client();
        client.send(&request);
        let answer = client.answer();
        let text = answer.text();
        assert_eq!(answer.status(), status, "{request}{text}");
        assert!(text.contains(says), "{request}{text}");
        client.ends();
    }
}

fn a_socket_in_the_file_system_serves_its_owner_and_goes_away(driver: Driver) {
    let directory = Directory::new();
    let path = directory.join("admin.sock");
    // What a process leaves behind that was killed.
    drop(UnixListener::bind(&path).expect("the directory is writable"));
    let origin = Served::saying("a");
    let address = format!("unix:{}", path.display());
    let mut proxy = start(driver, &origin, &address, 3);
    assert_eq!(proxy.admin(), address);
    let file = fs::metadata(&path).expect("it is there");
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let text = report(&["--admin", &address, "--service", "a", "--format", "hgrm"]);
    assert!(text.contains("Total count    =            3]"), "{text}");
    proxy.signal("TERM");
    assert_eq!(proxy.exit_code(), Some(0));
    assert!(!path.exists());
}

fn an_address_that_other_machines_reach_answers_probes_alone(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .admin("0.0.0.0:0")
        .service("a", &[origin.address()], "")
        .start();
    let admin = proxy.admin().replace("0.0.0.0", "127.0.0.1");
    let (code, text, errors) = run_alone(&["report", "--admin", &admin]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(
        errors.contains("403") && errors.contains("bind [admin] address"),
        "{errors}"
    );
    let mark = "Host: 10.1.2.3:9901\r\nX-Ringmain: 1";
    for (request, status) in [
        ("GET /healthz", 200),
        ("HEAD /readyz", 200),
        ("GET /readyz?service=a", 200),
        ("GET /plan", 403),
        ("POST /drain", 403),
        ("POST /readyz", 403),
        ("GET /nothing", 403),
    ] {
        let mut client = Wire::connect(admin.parse().expect("it is an address"));
        client.send(format!("{request} HTTP/1.1\r\n{mark}\r\n\r\n"));
        let method = request.split(' ').next().unwrap_or_default();
        assert_eq!(client.answer_to(method).status(), status, "{request}");
    }
}

fn what_changes_something_is_asked_for_on_purpose(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .admin(LOOPBACK)
        .service("a", &[origin.address()], "")
        .start();
    let admin = proxy.admin();
    let host = format!("Host: {admin}");
    let own = format!("Origin: http://{admin}");
    let mark = "X-Ringmain: 1";
    let target = format!("/service/a/backend/{}/ready", origin.address());
    let long = "a".repeat(4096);
    let cases: [(&str, &[&str], u16, &str); 12] = [
        ("POST", &[&host], 403, "X-Ringmain: 1"),
        ("POST", &[&host, "X-Ringmain: yes"], 403, "X-Ringmain: 1"),
        ("POST", &[&host, mark, "Origin: null"], 403, "Origin"),
        (
            "POST",
            &[&host, mark, "Origin: http://a.test"],
            403,
            "Origin",
        ),
        ("POST", &["Host: a.test", mark], 403, "Host is not"),
        ("GET", &[&host, mark], 405, "allowed: POST"),
        ("DELETE", &[&host, mark], 405, "allowed: POST"),
        ("POST", &[&host, mark, &own], 200, "is ready, as it was"),
        ("POST", &[&host, mark], 200, "is ready, as it was"),
        (
            "POST",
            &[&host, mark, "Content-Length: 4\r\n\r\nbody"],
            200,
            "as it was",
        ),
        (
            "POST",
            &[&host, mark, "Content-Length: 4097"],
            413,
            "up to 4096",
        ),
        (
            "POST",
            &[
                &host,
                mark,
                "Transfer-Encoding: chunked\r\n\r\n1001\r\na",
                &long,
            ],
            413,
            "up to 4096",
        ),
    ];
    for (method, fields, status, says) in cases {
        let mut client = proxy.admin_client();
        let fields = fields.join("\r\n");
        let end = match (fields.contains("\r\n\r\n"), fields.contains("chunked")) {
            (false, _) => "\r\n\r\n",
            (true, false) => "",
            (true, true) => "\r\n0\r\n\r\n",
        };
        let fields = fields.replace("\r\naaaa", "aaaa");
        client.send(format!("{method} {target} HTTP/1.1\r\n{fields}{end}"));
        let answer = client.answer();
        let text = answer.text();
        assert_eq!(answer.status(), status, "{fields}: {text}");
        assert!(text.contains(says), "{fields}: {text}");
        let allow = answer.head.field("Allow");
        assert_eq!(
            allow.as_deref(),
            (status == 405).then_some("POST"),
            "{fields}"
        );
    }
}

fn a_reload_is_answered_with_what_came_of_it(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).admin(LOOPBACK).expects_line("refused");
    let setup = setup.service("a", &[origin.address()], "");
    let proxy = setup.clone().start();
    let generation = || {
        let plan: Value = serde_json::from_str(&proxy.ask("GET /plan").text()).expect("it is JSON");
        plan["generation"].as_u64().expect("it is a number")
    };
    let before = generation();
    proxy.write_config("[runtime]\nshrads = 1\n");
    let refused = proxy.ask("POST /reload");
    let text = refused.text();
    assert_eq!(refused.status(), 422, "{text}");
    assert!(
        text.contains("nothing is changed") && text.contains("shrads"),
        "{text}"
    );
    assert_eq!(generation(), before);
    proxy.write_config(&setup.service("b", &[origin.address()], "").config());
    let reloaded = proxy.ask("POST /reload");
    assert_eq!(reloaded.status(), 200);
    let text = reloaded.text();
    assert!(text.starts_with("added service b: "), "{text}");
    assert_eq!(generation(), before + 1);
    assert_eq!(proxy.ask("GET /readyz?service=b").status(), 200);
}

fn clients_that_say_nothing_do_not_keep_probes_waiting(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .admin(LOOPBACK)
        .service("a", &[origin.address()], "")
        .start();
    let silent: Vec<Wire> = (0..32).map(|_| proxy.admin_client()).collect();
    let begin = now();
    assert_eq!(proxy.ask("GET /healthz").text(), "ok\n");
    // The limit of a head is 5 s otherwise.
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    drop(silent);
}

fn an_address_in_use_ends_the_start_with_what_to_type(driver: Driver) {
    let holder = TcpListener::bind(LOOPBACK).expect("a port is free");
    let address = holder.local_addr().expect("it is bound");
    let config = format!(
        "[runtime]\ndriver = \"{}\"\n[admin]\naddress = \"{address}\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n",
        driver.label()
    );
    let (code, _, errors) = run_to_end(&["run"], &config);
    assert_eq!(code, Some(1), "{errors}");
    for part in [
        &format!("the admin API: {address}: "),
        "cause:",
        "[admin] address = \"\"",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

fn a_file_in_the_way_of_the_socket_is_kept_and_explained(driver: Driver) {
    let directory = Directory::new();
    let letter = directory.join("letter");
    fs::write(&letter, "dear").expect("the directory is writable");
    let link = directory.join("link");
    std::os::unix::fs::symlink(&letter, &link).expect("the directory is writable");
    for (path, cause) in [
        (&letter, "that file is no socket"),
        (&link, "that file is no socket"),
        (
            &directory.join("absent/admin.sock"),
            "the folder does not exist",
        ),
    ] {
        let config = format!(
            "[runtime]\ndriver = \"{}\"\n[admin]\naddress = \"unix:{}\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n",
            driver.label(),
            path.display()
        );
        let (code, _, errors) = run_to_end(&["run"], &config);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(cause), "{errors}");
    }
    assert_eq!(fs::read_to_string(&letter).expect("it is there"), "dear");
    assert!(link.is_symlink());
}

fn a_client_that_is_stuck_holds_neither_others_nor_the_end(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = start(driver, &origin, LOOPBACK, 1);
    let mut half = proxy.admin_client();
    half.send("GET /report HT");
    let _silent = proxy.admin_client();
    let text = report(&["--admin", &proxy.admin()]);
    assert!(text.contains("service a   1 exchanges"), "{text}");
    let begin = now();
    proxy.signal("TERM");
    assert_eq!(proxy.exit_code(), Some(0));
    // The limit of a head is 5 s.
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[expect(clippy::disallowed_methods, reason = "tests have no shards")]
fn now() -> Instant {
    Instant::now()
}

fn a_report_asked_for_during_a_drain_is_exact_at_its_end(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .admin(LOOPBACK)
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    proxy.signal("TERM");
    proxy.log_line("drain");
    // Whichever comes first, the round or the end of the process: it is answered.
    let mut asker = proxy.admin_client();
    asker.send("GET /report?format=json HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    client.ends();
    let report: Value = serde_json::from_str(&asker.answer().text()).expect("it is JSON");
    assert_eq!(report["services"][0]["exchanges"], 1);
    assert_eq!(proxy.exit_code(), Some(0));
}

fn the_command_says_why_it_got_no_report(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = start(driver, &origin, LOOPBACK, 0);
    let admin = proxy.admin();
    let nobody = Origin::refused().to_string();
    let listener = Served::saying("not the admin API");
    let cases: [(&[&str], i32, &str); 7] = [
        (
            &["--admin", &nobody],
            1,
            "no ringmain runs, or its admin API answers elsewhere",
        ),
        (
            &["--admin", "unix:/nonexistent/x.sock"],
            1,
            "no ringmain runs",
        ),
        (&["--admin", "nonsense"], 2, "is not an address"),
        (&["--admin", &admin, "--window", "10s"], 2, "allowed: all"),
        (&["--admin", &admin, "--service", "b"], 2, "allowed: a"),
        (
            &["--admin", &admin, "--format", "xml"],
            2,
            "text, json, hgrm, hlog",
        ),
        (&["--config", "absent.toml"], 2, "no such file"),
    ];
    for (arguments, expected, says) in cases {
        let (code, text, errors) = run_alone(&[&["report"], arguments].concat());
        assert_eq!(
            (code, text.as_str()),
            (Some(expected), ""),
            "{arguments:?}: {errors}"
        );
        assert!(errors.contains(says), "{arguments:?}: {errors}");
    }
    let foreign = listener.address().to_string();
    let (code, _, errors) = run_alone(&["report", "--admin", &foreign]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("is no ringmain"), "{errors}");
    let off = "[admin]\naddress = \"\"\n[[listener]]\nname = \"x\"\naddress = \"127.0.0.1:1\"\n";
    let (code, _, errors) = run_to_end(&["report"], off);
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("switched off") && errors.contains("kill -USR1"),
        "{errors}"
    );
}
