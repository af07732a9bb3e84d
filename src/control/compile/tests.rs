//! Plans, each as the text that `ringmain check` prints.

use crate::config;
use crate::control::show::{show, show_tallies};

use super::*;

const LIVE: Live = Live::new(4, 1_064);

fn plan_of(text: &str, live: &Live) -> String {
    let config = config::parse("config.toml", text).expect("the text breaks no rule");
    let plan = compile(&config, live, None);
    format!(
        "{}{}",
        show(&config, &plan),
        show_tallies(&plan, live.shards)
    )
}

#[test]
fn the_shortest_configuration_takes_every_default() {
    let text = r#"
        [[listener]]
        name = "web"
        address = "127.0.0.1:8080"
        service = "s"
        [[service]]
        name = "s"
        backends = ["127.0.0.1:9090"]
    "#;
    let live = Live {
        via: "ringmain-1f3a".into(),
        ..LIVE
    };
    insta::assert_snapshot!(plan_of(text, &live));
}

#[test]
fn every_supported_key_reaches_the_plan() {
    let text = r#"
        [runtime]
        connections_max = 10
        via = "edge"

        [[listener]]
        name = "web"
        address = "[::1]:8080"
        service_parameter = "s"
        limits = { connections_max = 3, head_bytes_max = "1KiB", trailer_bytes_max = 100, fields_max = 7, body_bytes_max = "1MiB" }
        timeouts = { head = "150ms", body_idle = "1s", keep_alive = "2s", send_idle = "3s" }

        [[listener]]
        name = "wide"
        address = "127.0.0.1:8081"
        proxy_protocol = true
        limits = { head_bytes_max = "64KiB", fields_max = 200 }

        [[service]]
        name = "blue"
        domains = ["Example.COM", "*.Example.com", "[0:0::1]"]
        policy = "round_robin"
        backends = ["127.0.0.1:9090", { address = "[::1]:9091", weight = 9 }]
        backend_field = "X-Backend-Server"
        [service.timeouts]
        connect = "250ms"
        response = "4s"
        send_idle = "5s"
        receive_idle = "6s"
        continue = "8s"
        tunnel_idle = "2h"
        [service.pool]
        idle_max = 3
        idle = "7s"
        connections_max = 11
        queue = "850ms"
        [service.retry]
        attempts_max = 0
        body_bytes_max = "32KiB"
        [service.fields]
        request_set = { X-Zone = "b", Host = "inner", A = "1" }
        request_remove = ["Cookie"]
        response_set = { Server = "edge" }
        response_remove = ["X-Powered-By"]

        [[service]]
        name = "green"
        backends = ["127.0.0.1:9092"]
        send_proxy_protocol = "v2"

        [[route]]
        domain = "App.example.com"
        path = "/register"
        methods = ["POST", "PUT"]
        service = "green"
        [[route]]
        domain = "*.example.org"
        path = "/static/*"
        service = "blue"
        [[route]]
        service = "green"
    "#;
    let live = Live {
        generation: 7,
        life: Life::Draining,
        ..LIVE
    };
    insta::assert_snapshot!(plan_of(text, &live));
}

#[test]
fn a_fan_out_reaches_the_plan() {
    let text = r#"
        [[listener]]
        name = "web"
        address = "127.0.0.1:8080"

        [[service]]
        name = "usual"
        backends = ["127.0.0.1:9090", "127.0.0.1:9091"]
        fanout = {}

        [[service]]
        name = "other"
        backends = ["127.0.0.1:9090"]
        [service.fanout]
        require = "quorum"
        status = 204
        attempts_max = 7
        backoff_max = "8s"
        jitter = "0s"
        body_bytes_max = "16KiB"
        legs_max = 5
        kept_bytes_max = "1MiB"
        detached = true
    "#;
    insta::assert_snapshot!(plan_of(text, &LIVE));
}

#[test]
fn limits_and_routes_reach_the_plan() {
    let text = r#"
        [[listener]]
        name = "web"
        address = "127.0.0.1:8080"

        [[listener]]
        name = "raw"
        address = "[::1]:8081"
        protocol = "tcp"
        service = "green"

        [[service]]
        name = "blue"
        policy = "hash"
        hash_key = "cookie:id"
        backends = ["127.0.0.1:9090"]
        [service.limits]
        client_rate = 100
        client_concurrent = 3
        rate = 10000
        concurrent = 2

        [[service]]
        name = "green"
        backends = ["127.0.0.1:9091"]
        [service.limits]
        client_rate = 5
        client_burst = 20

        [[route]]
        fields = { X-Canary = "1", x-group = "a, b" }
        query = { version = "2", flag = "" }
        service = "green"
        [[route]]
        path = "/api/*"
        weights = { green = 1, none = 0, blue = 9 }

        [[service]]
        name = "none"
        backends = ["127.0.0.1:9092"]
        limits = { concurrent = 100 }
    "#;
    insta::assert_snapshot!(plan_of(text, &LIVE));
}

#[test]
fn a_limit_is_split_over_the_shards_and_none_gets_nothing() {
    for (limit, shards, expected) in [(10, 4, 2), (3, 4, 1), (1, 1, 1), (0, 4, 1), (8, 2, 4)] {
        assert_eq!(share(limit, shards), expected, "{limit} over {shards}");
    }
}

#[test]
fn without_a_limit_half_the_descriptors_are_for_clients() {
    let text = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n";
    let config = config::parse("config.toml", text).expect("the text breaks no rule");
    let cases = [(1_064, 500), (64, 0), (0, 0), (u64::MAX, u32::MAX)];
    for (nofile, expected) in cases {
        assert_eq!(
            connections_max(&config, &Live { nofile, ..LIVE }),
            expected,
            "{nofile}"
        );
    }
}

#[test]
fn probes_leave_descriptors_to_clients() {
    let backends: Vec<_> = (1..=2_000)
        .map(|port| format!("\"127.0.0.1:{port}\""))
        .collect();
    for (probed, nofile, expected) in [
        (10, 1_024, (1_024 - 64 - 10) / 2),
        (2_000, 1_024, (1_024 - 64 - 256) / 2),
        (2_000, 100_000, (100_000 - 64 - 1_024) / 2),
    ] {
        let text = format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"s\"\n\
             [[service]]\nname = \"s\"\nbackends = [{}]\n[service.probe]\n",
            backends[..probed].join(", ")
        );
        let config = config::parse("config.toml", &text).expect("the text breaks no rule");
        let most = connections_max(&config, &Live { nofile, ..LIVE });
        assert_eq!(most, expected, "{probed} of {nofile}");
    }
}

#[test]
fn the_same_arguments_give_the_same_plan() {
    let text = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n";
    assert_eq!(plan_of(text, &LIVE), plan_of(text, &LIVE));
}

/// A service over so many endpoints, of which `known` is known.
fn service_of(backends: &str, keys: &str, known: &[(u16, EndpointLive)]) -> (Config, Live) {
    let text = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n\
         [[service]]\nname = \"a\"\nbackends = [{backends}]\n{keys}\n\
         [[service]]\nname = \"b\"\nbackends = [\"127.0.0.1:1\"]\n"
    );
    let config = config::parse("config.toml", &text).expect("the text breaks no rule");
    let known = known
        .iter()
        .map(|(port, known)| (([127, 0, 0, 1], *port).into(), *known));
    let endpoints = BTreeMap::from([("a".to_owned(), known.collect())]);
    (config, Live { endpoints, ..LIVE })
}

const HEALTHY: EndpointLive = EndpointLive {
    proven: true,
    health: Health::Healthy,
    ejected: false,
    ramp: RAMP_WHOLE,
    recoveries: 0,
};
const UNHEALTHY: EndpointLive = EndpointLive {
    health: Health::Unhealthy,
    ..HEALTHY
};
const EJECTED: EndpointLive = EndpointLive {
    ejected: true,
    ..HEALTHY
};

/// Two ordinary backends, a backup, and one that is drained.
const BACKENDS: &str = "\"127.0.0.1:1\", { address = \"127.0.0.1:2\", weight = 3 }, \
                        { address = \"127.0.0.1:3\", backup = true }, \
                        { address = \"127.0.0.1:4\", drain = true }";

#[test]
fn the_tiers_are_those_that_are_in_then_backups_then_everybody() {
    let wait = "[service.probe]\nwait_first = true";
    type Case<'a> = (&'a str, &'a [(u16, EndpointLive)], &'a [&'a [u32]], bool);
    let cases: [Case<'_>; 9] = [
        ("", &[], &[&[0, 1], &[2]], false),
        ("", &[(1, UNHEALTHY)], &[&[1], &[2]], false),
        ("", &[(1, EJECTED), (3, UNHEALTHY)], &[&[1]], false),
        ("", &[(1, UNHEALTHY), (2, EJECTED)], &[&[2]], false),
        (
            "",
            &[(1, UNHEALTHY), (2, EJECTED), (3, UNHEALTHY)],
            &[&[0, 1, 2]],
            true,
        ),
        (
            "fail_open = false",
            &[(1, UNHEALTHY), (2, EJECTED), (3, UNHEALTHY)],
            &[],
            false,
        ),
        (wait, &[], &[], false),
        (wait, &[(2, HEALTHY)], &[&[1]], false),
        // What has not had its first good probe gets nothing, even so.
        (wait, &[(2, UNHEALTHY)], &[&[1]], true),
    ];
    for (keys, known, expected, fails_open) in cases {
        let (config, live) = service_of(BACKENDS, keys, known);
        let plan = compile(&config, &live, None);
        let tiers = plan.services[0].tiers.iter();
        let tiers: Vec<&[u32]> = tiers.map(|tier| &*tier.places).collect();
        assert_eq!(tiers, expected, "{keys} {known:?}");
        assert_eq!(plan.services[0].fails_open, fails_open, "{keys} {known:?}");
    }
}

#[test]
fn a_weight_that_ramps_counts_in_sixteenths_and_the_rest_as_written() {
    let weights = |known: &[(u16, EndpointLive)]| {
        let (config, live) = service_of(BACKENDS, "", known);
        let plan = compile(&config, &live, None);
        let members = plan.services[0].tiers[0].members.iter();
        members.map(|member| member.weight).collect::<Vec<_>>()
    };
    assert_eq!(weights(&[]), [1, 3]);
    let ramps = |ramp| EndpointLive { ramp, ..HEALTHY };
    assert_eq!(weights(&[(2, ramps(1))]), [16, 3]);
    assert_eq!(weights(&[(2, ramps(8))]), [2, 3]);
    assert_eq!(weights(&[(1, ramps(4)), (2, ramps(4))]), [1, 3]);
}

#[test]
fn a_service_that_nothing_has_changed_is_shared_with_the_plan_before() {
    let (config, live) = service_of(BACKENDS, "policy = \"hash\"", &[]);
    let first = compile(&config, &live, None);
    let (_, changed) = service_of(BACKENDS, "", &[(1, UNHEALTHY)]);
    let second = compile(&config, &changed, Some(&first));
    assert!(!Arc::ptr_eq(&first.services[0], &second.services[0]));
    assert!(Arc::ptr_eq(&first.services[1], &second.services[1]));
    let third = compile(&config, &live, Some(&first));
    assert!(Arc::ptr_eq(&first.services[0], &third.services[0]));
}

#[test]
fn what_a_reload_leaves_alone_is_shared_whatever_its_place() {
    let listener =
        |name, port| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n");
    let service =
        |name, port| format!("[[service]]\nname = \"{name}\"\nbackends = [\"127.0.0.1:{port}\"]\n");
    let compiled = |parts: [String; 4], last| {
        let config = config::parse("config.toml", &parts.concat());
        compile(&config.expect("the text breaks no rule"), &LIVE, last)
    };
    let [one, two] = [listener("one", 1), listener("two", 2)];
    let [a, b] = [service("a", 1), service("b", 2)];
    let last = compiled([one, two.clone(), a.clone(), b.clone()], None);
    let next = compiled([two, listener("one", 3), b, a], Some(&last));
    assert!(Arc::ptr_eq(&last.services[0], &next.services[1]));
    assert!(Arc::ptr_eq(&last.services[1], &next.services[0]));
    assert!(Arc::ptr_eq(&last.listeners[1], &next.listeners[0]));
    assert!(!Arc::ptr_eq(&last.listeners[0], &next.listeners[1]));
    assert!(Arc::ptr_eq(&last.routes, &next.routes), "there are none");
}

#[test]
fn lookups_and_probes_of_what_names_stand_for_take_descriptors() {
    let connections = |names: usize, endpoints: u8| {
        let backends: Vec<String> = (0..names)
            .map(|name| format!("\"x{name}.test:80\""))
            .collect();
        let text = format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"s\"\n\
             [[service]]\nname = \"s\"\nbackends = [{}]\n[service.probe]\n",
            backends.join(", ")
        );
        let config = config::parse("config.toml", &text).expect("the text breaks no rule");
        let found = (0..endpoints).map(|host| Resolved {
            address: ([127, 0, 0, host], 80).into(),
            weight: 1,
            backup: false,
        });
        let name = BackendAddress::Host("x0.test".to_owned(), 80);
        let live = Live {
            nofile: 1_064,
            resolved: [(name, found.collect())].into(),
            ..LIVE
        };
        connections_max(&config, &live)
    };
    // Of 1,064 the process keeps 64 for itself; a client may need two.
    assert_eq!(connections(1, 0), (1_000 - 4) / 2);
    assert_eq!(connections(1, 100), (1_000 - 4 - 100) / 2);
    assert_eq!(connections(10, 100), (1_000 - 40 - 100) / 2);
    assert_eq!(connections(100, 0), (1_000 - 128) / 2, "32 lookups at once");
    let questions = [Question::Srv("_a._tcp.test".to_owned())].into();
    assert_eq!(
        resolve::descriptors_max(&questions),
        128,
        "its hosts are looked up side by side"
    );
}
