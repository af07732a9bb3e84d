//! Connections that are opened before anybody asks for them.

use std::time::Duration;

use crate::support::{Driver, GET, Origin, Proxy, Setup, ok, on_both_drivers};

on_both_drivers! {
    connections_are_open_before_the_first_request
    a_connection_that_was_closed_or_taken_is_replaced
    no_more_are_opened_than_connections_max
    an_endpoint_that_refuses_is_nobodys_fault
}

fn start(driver: Driver, origin: &Origin, keys: &str) -> Proxy {
    let keys = format!("[service.pool]\nidle_min = 2\n{keys}");
    let setup = Setup::new(driver);
    setup.service("a", &[origin.address()], &keys).start()
}

fn connections_are_open_before_the_first_request(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "");
    let mut ahead = [origin.accept(), origin.accept()];
    let mut client = proxy.client();
    client.send(GET);
    // The last one in is the first one out; which of the two that is nobody knows here.
    let mut turns = (0..2_000).map(|turn| turn % 2);
    let used = turns.find(|at| !ahead[*at].is_quiet_for(Duration::from_millis(5)));
    let used = used.expect("one of them carries it");
    ahead[used].request();
    ahead[used].send(ok("early"));
    assert_eq!(client.answer().text(), "early");
}

fn a_connection_that_was_closed_or_taken_is_replaced(driver: Driver) {
    let origin = Origin::new();
    let _proxy = start(driver, &origin, "");
    let ahead = [origin.accept(), origin.accept()];
    drop(ahead);
    let _again = [origin.accept(), origin.accept()];
}

fn no_more_are_opened_than_connections_max(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "connections_max = 1");
    let mut ahead = origin.accept();
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send(GET);
        ahead.request();
        ahead.send(ok("one"));
        assert_eq!(client.answer().text(), "one");
    }
    assert!(origin.has_no_more());
}

fn an_endpoint_that_refuses_is_nobodys_fault(driver: Driver) {
    let keys = "[service.pool]\nidle_min = 2";
    let setup = Setup::new(driver).service("a", &[Origin::refused()], keys);
    let proxy = setup.start();
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").status(), 502);
    let report = proxy.report_where(|report| report.exchanges() == 1);
    assert_eq!(report.services["a"].endpoint_faults, 1, "{report:#?}");
}
