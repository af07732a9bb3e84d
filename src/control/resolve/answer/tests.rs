//! Answers, each with what it stands for.

use super::*;

/// Whole seconds.
const TTL: Duration = Duration::from_secs(7);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn addresses(texts: &[&str]) -> Family {
    Family::Addresses(ips(texts), TTL)
}

fn none() -> Family {
    Family::None("no addresses".to_owned())
}

fn failed() -> Family {
    Family::Failed("no answer".to_owned())
}

/// The families of a host that had `had`, as one text.
#[track_caller]
fn check_host(had: [&[&str]; 2], heard: [Family; 2], expected: Result<&[&str], &str>) {
    let mut had = had.map(ips);
    let found = host(&mut had, heard);
    match expected {
        Ok(expected) => {
            let found = found.expect("there are addresses");
            assert_eq!((found.all, found.ttl), (ips(expected), TTL));
        }
        Err(reason) => assert_eq!(found, Err(reason.to_owned())),
    }
}

#[test]
fn both_families_count() {
    let [v4, v6] = [["127.0.0.1"], ["::1"]].map(|all| addresses(&all));
    check_host([&[], &[]], [v4, v6], Ok(&["127.0.0.1", "::1"]));
}

#[test]
fn a_family_that_fails_keeps_what_it_had() {
    let v4 = addresses(&["127.0.0.2"]);
    check_host(
        [&["127.0.0.1"], &["::1"]],
        [v4, failed()],
        Ok(&["127.0.0.2", "::1"]),
    );
}

#[test]
fn a_family_that_is_gone_is_gone() {
    let v4 = addresses(&["127.0.0.2"]);
    check_host([&[], &["::1"]], [v4, none()], Ok(&["127.0.0.2"]));
}

#[test]
fn without_an_address_it_is_a_failure_and_nothing_is_forgotten() {
    let had: [&[&str]; 2] = [&["127.0.0.1"], &[]];
    check_host(had, [none(), none()], Err("no addresses"));
    check_host(had, [none(), failed()], Err("no answer"));
    check_host(had, [failed(), none()], Err("no answer"));
    let mut had = had.map(ips);
    let _failure = host(&mut had, [none(), none()]);
    assert_eq!(had[0], ips(&["127.0.0.1"]));
}

#[test]
fn the_least_ttl_counts() {
    let v4 = addresses(&["127.0.0.1"]);
    let v6 = Family::Addresses(ips(&["::1"]), Duration::from_secs(3));
    let found = host(&mut Default::default(), [v4, v6]);
    assert_eq!(found.expect("both").ttl, Duration::from_secs(3));
}

/// What a host of `all` stands for, and what is said of it.
#[track_caller]
fn check_of_host(all: &[&str], expected: &[&str], remarks: &[&str]) {
    let found = of_host(&ips(all)).expect("some are usable");
    let addresses = found.addresses.iter().map(|found| found.address.ip());
    assert_eq!(addresses.collect::<Vec<_>>(), ips(expected));
    assert_eq!(found.remarks, remarks);
}

#[test]
fn the_order_of_an_answer_and_doubles_mean_nothing() {
    let sorted = ["127.0.0.1", "127.0.0.2", "::1"];
    check_of_host(&["::1", "127.0.0.2", "127.0.0.1"], &sorted, &[]);
    check_of_host(
        &["127.0.0.2", "127.0.0.1", "127.0.0.2", "::1"],
        &sorted,
        &[],
    );
    check_of_host(&["::ffff:127.0.0.1", "127.0.0.1"], &["127.0.0.1"], &[]);
}

#[test]
fn what_nobody_listens_at_is_left_out() {
    let useless = [
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::",
        "ff02::1",
        "fe80::1",
    ];
    for useless in useless {
        let remark = format!("1 addresses cannot be connected to, as {useless}");
        check_of_host(&[useless, "127.0.0.1"], &["127.0.0.1"], &[&remark]);
        assert_eq!(of_host(&[ip(useless)]), Err(remark));
    }
    assert_eq!(of_host(&[]), Err("no addresses".to_owned()));
}

#[test]
fn of_too_many_addresses_the_same_ones_are_kept_in_any_order() {
    let mut all: Vec<IpAddr> = (0..1_000_u16)
        .map(|number| IpAddr::from([10, 0, (number / 256) as u8, number as u8]))
        .collect();
    let found = of_host(&all).expect("some are usable");
    assert_eq!(found.addresses.len(), ADDRESSES_MAX);
    assert_eq!(found.remarks, ["of 1000 addresses 256 are used"]);
    all.reverse();
    all.rotate_left(333);
    assert_eq!(of_host(&all), Ok(found));
}

fn target(priority: u16, weight: u16, port: u16, host: &str) -> Target {
    Target {
        priority,
        host: host.to_owned(),
        port,
        weight,
    }
}

/// What targets stand for, a line each: address, weight, and whether it is a backup.
#[track_caller]
fn check_targets(all: &[(Target, &[&str])], expected: &[&str]) {
    let all = all
        .iter()
        .map(|(target, addresses)| (target.clone(), ips(addresses)));
    let found = of_targets(&all.collect::<Vec<_>>(), Vec::new()).expect("some are usable");
    let lines = found.addresses.iter().map(|found| {
        let backup = if found.backup { " backup" } else { "" };
        format!("{} {}{backup}", found.address, found.weight)
    });
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[test]
fn the_least_priority_is_ordinary_and_others_are_backups() {
    check_targets(
        &[
            (target(20, 5, 81, "b."), &["127.0.0.2"]),
            (target(10, 5, 80, "a."), &["127.0.0.1"]),
            (target(30, 5, 82, "c."), &["127.0.0.3"]),
        ],
        &[
            "127.0.0.1:80 1",
            "127.0.0.2:81 1 backup",
            "127.0.0.3:82 1 backup",
        ],
    );
}

#[test]
fn weights_keep_their_proportion() {
    let of = |weights: &[u16]| -> Vec<u32> {
        let all = weights.iter().map(|weight| {
            let target = target(0, *weight, 80, "a.");
            (target, ips(&["127.0.0.1"]))
        });
        let all: Vec<_> = all.collect();
        super::weights(&all.iter().collect::<Vec<_>>())
    };
    assert_eq!(of(&[10, 20, 70]), [1, 2, 7]);
    assert_eq!(of(&[0, 0]), [1, 1]);
    assert_eq!(of(&[0, 1]), [1, 1_000]);
    assert_eq!(of(&[0, 35, 70]), [1, 500, 1_000]);
    assert_eq!(of(&[65_535, 1]), [1_000, 1]);
    assert_eq!(of(&[40_000, 20_001]), [1_000, 500]);
}

#[test]
fn a_target_shares_its_weight_among_its_addresses() {
    check_targets(
        &[
            (target(0, 1, 80, "a."), &["127.0.0.1"]),
            (target(0, 1, 80, "b."), &["127.0.0.2", "127.0.0.3"]),
        ],
        &["127.0.0.1:80 2", "127.0.0.2:80 1", "127.0.0.3:80 1"],
    );
}

#[test]
fn an_address_that_two_targets_have_is_ordinary_where_one_is() {
    check_targets(
        &[
            (target(0, 1, 80, "a."), &["127.0.0.1"]),
            (target(1, 1, 80, "b."), &["127.0.0.1", "127.0.0.2"]),
        ],
        &["127.0.0.1:80 1", "127.0.0.2:80 1 backup"],
    );
}

#[test]
fn a_target_without_addresses_is_no_endpoint() {
    let none: &[&str] = &[];
    check_targets(
        &[
            (target(0, 1, 80, "a."), none),
            (target(1, 1, 80, "b."), &["127.0.0.2"]),
        ],
        // It is still not the service's first choice.
        &["127.0.0.2:80 1 backup"],
    );
}

#[test]
fn records_that_lead_nowhere_are_left_out() {
    let good = target(0, 1, 80, "a.");
    let (kept, remarks) =
        targets(vec![target(0, 1, 0, "b."), good.clone(), good.clone()]).expect("one is good");
    assert_eq!(kept, [good]);
    assert_eq!(remarks, ["1 SRV records have port 0"]);
    let nothing = targets(vec![target(0, 0, 0, ".")]);
    assert_eq!(
        nothing,
        Err("its SRV records say that the service is not available".to_owned())
    );
    let useless = targets(vec![target(0, 0, 0, "a.")]);
    assert_eq!(useless, Err("all its SRV records have port 0".to_owned()));
}

#[test]
fn of_too_many_targets_the_same_ones_are_kept_in_any_order() {
    let mut all: Vec<_> = (0..500)
        .map(|port| target(port % 3, 1, 1 + port, "a."))
        .collect();
    let (kept, remarks) = targets(all.clone()).expect("all are good");
    assert_eq!(kept.len(), TARGETS_MAX);
    assert!(kept.iter().all(|target| target.priority == 0));
    assert_eq!(remarks, ["of 500 SRV records 64 are used"]);
    all.reverse();
    assert_eq!(targets(all).expect("all are good").0, kept);
}
