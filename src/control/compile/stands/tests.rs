//! Backends, each with the endpoints that they stand for.

use super::*;

/// What `backends` stand for where `x.test` has these hosts at port 80, a line an endpoint; and the
/// places by backend.
#[track_caller]
fn check(backends: &str, hosts: &[(u8, u32, bool)], lines: &[&str], places: &[&[u32]]) {
    let text = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"s\"\n\
         [[service]]\nname = \"s\"\nbackends = [{backends}]\n"
    );
    let config = config::parse("config.toml", &text).expect("the text breaks no rule");
    let found = hosts.iter().map(|(host, weight, backup)| Resolved {
        address: ([127, 0, 0, *host], 80).into(),
        weight: *weight,
        backup: *backup,
    });
    let name = BackendAddress::Host("x.test".to_owned(), 80);
    let live = Live {
        resolved: [(name, found.collect())].into(),
        ..Live::new(1, 1_064)
    };
    let stands = Stands::of(&config.services()[0], &live);
    let found = stands.endpoints.iter().map(|stand| {
        let backup = if stand.backup { " backup" } else { "" };
        let drain = if stand.drain { " drain" } else { "" };
        format!("{} {}{backup}{drain}", stand.address, stand.weight)
    });
    assert_eq!(found.collect::<Vec<_>>(), lines);
    assert_eq!(stands.backends, places);
}

#[test]
fn a_name_stands_for_all_its_addresses_with_the_weight_of_its_backend() {
    check(
        r#"{ address = "x.test:80", weight = 3 }"#,
        &[(1, 1, false), (2, 1, false)],
        &["127.0.0.1:80 3", "127.0.0.2:80 3"],
        &[&[0, 1]],
    );
}

#[test]
fn weights_are_multiplied_and_backups_add_up() {
    check(
        r#"{ address = "x.test:80", weight = 3 }"#,
        &[(1, 1_000, false), (2, 7, true)],
        &["127.0.0.1:80 3000", "127.0.0.2:80 21 backup"],
        &[&[0, 1]],
    );
    check(
        r#"{ address = "x.test:80", backup = true, drain = true }"#,
        &[(1, 1, false)],
        &["127.0.0.1:80 1 backup drain"],
        &[&[0]],
    );
}

#[test]
fn an_address_of_two_backends_is_one_endpoint_as_the_first_has_it() {
    check(
        r#"{ address = "127.0.0.1:80", weight = 5 }, "x.test:80""#,
        &[(1, 1, false), (2, 1, false)],
        &["127.0.0.1:80 5", "127.0.0.2:80 1"],
        &[&[0], &[0, 1]],
    );
    check(
        r#""x.test:80", { address = "127.0.0.1:80", weight = 5 }"#,
        &[(1, 1, false), (2, 1, false)],
        &["127.0.0.1:80 1", "127.0.0.2:80 1"],
        &[&[0, 1], &[0]],
    );
}

#[test]
fn a_state_that_is_set_holds_for_all_endpoints_of_its_backend() {
    let text = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"s\"\n\
                [[service]]\nname = \"s\"\n\
                backends = [\"x.test:80\", { address = \"127.0.0.1:80\", drain = true }]\n";
    let config = config::parse("config.toml", text).expect("the text breaks no rule");
    let service = &config.services()[0];
    let mut live = Live::new(1, 1_064);
    let resolved = |host: u8| Resolved {
        address: ([127, 0, 0, host], 80).into(),
        weight: 1,
        backup: false,
    };
    let name = BackendAddress::Host("x.test".to_owned(), 80);
    live.resolved.insert(name, [2, 1].map(resolved).into());
    let mut of = |set: &[(usize, Override)]| {
        for (backend, state) in set {
            let backend = &service.backends[*backend];
            live.overrides.set(&service.name, backend, *state);
        }
        let endpoints = Stands::of(service, &live).endpoints.into_iter();
        let words = endpoints.map(|stand| match (stand.drain, stand.down) {
            (false, false) => "ready",
            (true, false) => "drain",
            (true, true) => "down",
            (false, true) => unreachable!("what is down gets nothing new"),
        });
        words.collect::<Vec<_>>()
    };
    // The first backend has the endpoint that is the second's, too.
    assert_eq!(of(&[]), ["ready", "ready"]);
    assert_eq!(of(&[(0, Override::Down)]), ["down", "down"]);
    assert_eq!(
        of(&[(0, Override::Drain), (1, Override::Ready)]),
        ["drain", "drain"]
    );
    assert_eq!(
        of(&[(0, Override::Ready), (1, Override::Down)]),
        ["ready", "ready"]
    );
}

#[test]
fn a_name_that_is_not_resolved_stands_for_nothing() {
    check(r#""y.test:80""#, &[(1, 1, false)], &[], &[&[]]);
    check(
        r#""y.test:80", "127.0.0.9:80""#,
        &[],
        &["127.0.0.9:80 1"],
        &[&[], &[0]],
    );
}
