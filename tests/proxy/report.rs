//! The report on standard output: when it is asked for, during a drain, and at the end.

use crate::support::{Driver, GET, Origin, Served, Setup, ok, on_both_drivers};

on_both_drivers! {
    the_report_at_the_end_is_exact
    a_report_asked_for_during_a_drain_is_printed
    the_report_at_the_end_waits_for_a_reader_but_not_forever
}

fn the_report_at_the_end_is_exact(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .shards(2)
        .option("--report-at-end")
        .service("a", &[origin.address()], "")
        .start();
    let mut clients = [proxy.client(), proxy.client(), proxy.client()];
    for client in &mut clients {
        for _ in 0..7 {
            assert_eq!(client.get("a.test", "/").status(), 200);
        }
        assert_eq!(client.get("nobody.test", "/").status(), 404);
    }
    drop(clients);
    proxy.signal("TERM");
    let reports = proxy.reports_at_end();
    assert_eq!(reports.len(), 1);
    let report = &reports[0];
    assert_eq!(report.services["a"].exchanges, 21);
    assert_eq!(report.no_service.exchanges, 3);
    assert_eq!(report.connections, 0);
    let service = &report.services["a"];
    let endpoint = &service.endpoint_phases[&origin.address().to_string()];
    for (phases, of_endpoint) in [(&service.phases, false), (endpoint, true)] {
        for label in [
            "upstream_send",
            "upstream_wait",
            "upstream_receive",
            "total",
        ] {
            let times = phases[label];
            assert_eq!(times.count, 21, "{label}: {report:#?}");
            let quantiles = [times.p50, times.p90, times.p99, times.p999, times.p9999];
            assert!(
                quantiles.is_sorted() && times.p9999 <= times.max,
                "{times:?}"
            );
        }
        for label in ["client_receive", "client_send", "own"] {
            let count = phases.get(label).map(|times| times.count);
            assert_eq!(count, (!of_endpoint).then_some(21), "{label}: {report:#?}");
        }
        let wait = phases["upstream_wait"].max;
        assert!(wait <= phases["total"].max, "{report:#?}");
    }
    assert!(report.late.is_empty(), "{report:#?}");
}

fn a_report_asked_for_during_a_drain_is_printed(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    proxy.signal("TERM");
    proxy.log_line("drain");
    let report = proxy.report();
    assert_eq!(report.services["a"].exchanges, 1);
    assert_eq!(report.services["a"].forwarded, 0);
    // Whether this one is printed before the end or by it: it is printed.
    proxy.signal("USR1");
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    client.ends();
    let reports = proxy.reports_at_end();
    let last = reports.last().expect("it was asked for");
    assert_eq!(last.services["a"].exchanges, 1);
}

fn the_report_at_the_end_waits_for_a_reader_but_not_forever(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .unread_output()
        .option("--report-at-end")
        .expects_line("report")
        .service("a", &[origin.address()], "")
        .start();
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    proxy.signal("TERM");
    proxy.log_line("nobody reads the reports");
    assert_eq!(proxy.exit_code(), Some(0));
}
