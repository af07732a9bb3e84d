//! Another configuration takes the place of the one that runs.

use crate::support::{Driver, Served, Setup, on_both_drivers};

on_both_drivers! {
    a_service_that_is_added_is_served
    a_bad_file_changes_nothing
}

fn a_service_that_is_added_is_served(driver: Driver) {
    let (one, other) = (Served::saying("a"), Served::saying("b"));
    let setup = Setup::new(driver).service("a", &[one.address()], "");
    let mut proxy = setup.clone().start();
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").text(), "a");
    proxy.reload(&setup.service("b", &[other.address()], ""));
    // The client may be a tick early.
    let is_served = |_| proxy.client().get("b.test", "/").status() == 200;
    assert!((0..10_000).any(is_served));
    assert_eq!(client.get("b.test", "/").text(), "b");
    assert_eq!(client.get("a.test", "/").text(), "a");
}

fn a_bad_file_changes_nothing(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let proxy = setup.expects_line("refused").start();
    proxy.write_config("nothing = \"of this\"");
    proxy.signal("HUP");
    proxy.log_line("refused");
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}
