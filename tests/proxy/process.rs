//! The process from its start to its end: shards, signals, exit codes.

use std::thread;

use crate::support::{Driver, GET, Origin, Served, Setup, Wire, ok, on_both_drivers, run_to_end};

on_both_drivers! {
    two_shards_serve_and_the_totals_are_the_clients_count
    a_drain_finishes_what_runs_and_exits_0
    a_drain_closes_quiet_clients_and_accepts_nobody
    a_second_signal_exits_at_once_with_1
    a_bad_configuration_exits_2_and_names_every_error
}

fn two_shards_serve_and_the_totals_are_the_clients_count(driver: Driver) {
    const CLIENTS: usize = 64;
    const REQUESTS: usize = 50;
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .shards(2)
        .service("a", &[origin.address()], "")
        .start();
    let address = proxy.address();
    let load = || {
        let mut clients: Vec<Wire> = (0..CLIENTS / 4).map(|_| Wire::connect(address)).collect();
        for _ in 0..REQUESTS {
            for client in &mut clients {
                assert_eq!(client.get("a.test", "/").text(), "a");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(load);
        }
    });
    let total = (CLIENTS * REQUESTS) as u64;
    let report = proxy.report_where(|report| report.exchanges() == total);
    assert_eq!(report.services["a"].forwarded, total);
    assert_eq!(report.shards.iter().sum::<u64>(), total);
    assert!(report.shards.iter().all(|count| 0 < *count), "{report:#?}");
    assert_eq!(origin.requests() as u64, total);
    assert!(report.faults().is_empty());
}

fn a_drain_finishes_what_runs_and_exits_0(driver: Driver) {
    for signal in ["TERM", "INT"] {
        let origin = Origin::new();
        let mut proxy = driver.proxy_for(origin.address());
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234");
        let mut upstream = origin.accept();
        upstream.head();
        upstream.take(5);
        proxy.signal(signal);
        proxy.log_line("drain");
        client.send("56789");
        upstream.take(5);
        upstream.send(ok("whole"));
        assert_eq!(client.answer().text(), "whole");
        client.ends();
        assert_eq!(proxy.exit_code(), Some(0));
    }
}

fn a_drain_closes_quiet_clients_and_accepts_nobody(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = driver.proxy_for(origin.address());
    let mut quiet = proxy.client();
    let mut busy = proxy.client();
    assert_eq!(quiet.get("a.test", "/").status(), 200);
    assert_eq!(busy.get("a.test", "/").status(), 200);
    let address = proxy.address();
    proxy.signal("TERM");
    proxy.log_line("drain");
    // The shard adopts the plan of the drain at its next tick; from then on each client gets one
    // more answer.
    let mut goodbye = || {
        let answer = busy.get("a.test", "/");
        assert_eq!(answer.status(), 200);
        answer.head.field("Connection").as_deref() == Some("close")
    };
    assert!((0..100_000).any(|_| goodbye()), "one answer says close");
    busy.ends();
    quiet.ends();
    assert_eq!(proxy.exit_code(), Some(0));
    assert!(std::net::TcpStream::connect(address).is_err());
}

fn a_second_signal_exits_at_once_with_1(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .expects_line("signal")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    let _upstream = origin.gets(&mut client, GET);
    proxy.signal("TERM");
    proxy.log_line("drain");
    proxy.signal("TERM");
    assert_eq!(proxy.exit_code(), Some(1));
}

fn a_bad_configuration_exits_2_and_names_every_error(driver: Driver) {
    let config = format!(
        "[runtime]\ndriver = \"{}\"\nshard = 2\n\
         [[listener]]\nname = \"web\"\naddress = \"nonsense\"\n\
         [[service]]\nname = \"a\"\ndomains = [\"a.test\"]\nbackends = []\npolicy = \"rendom\"\n\
         [service.timeouts]\nconnect = \"0s\"\n",
        driver.label()
    );
    for subcommand in ["run", "check"] {
        let (code, _, errors) = run_to_end(&[subcommand], &config);
        assert_eq!(code, Some(2), "{errors}");
        let expected = [
            ("config.toml:3:1", "shards"),
            ("config.toml:6:", "nonsense"),
            ("config.toml:10:", "backends"),
            ("config.toml:11:", "random"),
            ("config.toml:13:", "100ms"),
        ];
        for (place, what) in expected {
            assert!(
                errors.contains(place),
                "{subcommand}: no {place} in\n{errors}"
            );
            assert!(
                errors.contains(what),
                "{subcommand}: no {what} in\n{errors}"
            );
        }
    }
}
