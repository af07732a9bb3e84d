//! Events, each with what is said of it, and what the plan is told then.

use crate::config;
use crate::units::format_duration;

use super::*;

/// One service, `s`, with endpoints on the ports from 1 on, and `keys`.
struct Case {
    standings: Standings,
    begin: Instant,
    now: Instant,
}

/// What happens to the endpoint on a port.
#[derive(Clone, Copy, Debug)]
enum Event {
    Good(u16),
    Failed(u16),
    Ejected(u16, usize),
    Readmitted(u16, usize),
    /// Its notices were dropped, and its counters say whether it has ejected.
    Counted(u16, usize, bool),
    Died(usize),
    Lives(usize),
}
use Event::{Counted, Died, Ejected, Failed, Good, Lives, Readmitted};

impl Case {
    fn new(shards: usize, endpoints: u16, keys: &str) -> Self {
        let backends: Vec<String> = (1..=endpoints)
            .map(|port| format!("\"{}\"", address(port)))
            .collect();
        let text = format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"s\"\n\
             [[service]]\nname = \"s\"\nbackends = [{}]\n{keys}\n",
            backends.join(", ")
        );
        let config = config::parse("config.toml", &text).expect("the text breaks no rule");
        #[expect(clippy::disallowed_methods, reason = "any begin will do")]
        let begin = Instant::now();
        let live = Live::new(shards as u32, 1_064);
        Self {
            standings: Standings::new(&config, &live, shards, begin),
            begin,
            now: begin,
        }
    }

    fn at(&mut self, milliseconds: u64) {
        self.now = self.begin + Duration::from_millis(milliseconds);
    }

    /// The words for what is said of `event`.
    fn on(&mut self, event: Event) -> String {
        let (standings, now) = (&mut self.standings, self.now);
        let changes = match event {
            Good(port) => standings.judge(verdict(port, Health::Healthy, ""), now),
            Failed(port) => standings.judge(verdict(port, Health::Unhealthy, "status 503"), now),
            Ejected(port, shard) => standings.eject(&place(port), shard, EjectReason::Faults, now),
            Readmitted(port, shard) => standings.readmit(&place(port), shard, now),
            Counted(port, shard, out) => standings.catch_up(&place(port), shard, out, now),
            Died(shard) => standings.shard_died(shard, now),
            Lives(shard) => standings.shard_lives(shard, now),
        };
        let said = changes.iter().map(word);
        said.collect::<Vec<_>>().join(" ")
    }

    fn live(&mut self, port: u16) -> EndpointLive {
        let live = self.standings.live(self.now);
        let known = live.get("s").and_then(|known| known.get(&address(port)));
        known.copied().unwrap_or_default()
    }

    #[track_caller]
    fn check(&mut self, events: &[(Event, &str)]) {
        for (event, expected) in events {
            assert_eq!(self.on(*event), *expected, "{event:?}");
        }
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn place(port: u16) -> Place {
    Place {
        service: "s".into(),
        address: address(port),
    }
}

fn verdict(port: u16, health: Health, reason: &str) -> Verdict {
    Verdict {
        place: place(port),
        health,
        reason: reason.into(),
    }
}

fn word(change: &Change) -> String {
    assert_eq!(change.service, "s");
    let news = match &change.news {
        News::Healthy { after: Some(after) } => format!("healthy({})", format_duration(*after)),
        News::Healthy { after: None } => "in".into(),
        News::FirstAnswer => "answers".into(),
        News::Unhealthy { reason } => {
            assert_eq!(reason, "status 503");
            "unhealthy".into()
        }
        News::Ejected { shard, .. } => format!("ejected({shard})"),
        News::Readmitted => "readmitted".into(),
        News::OutForAll => "out".into(),
        News::InForAll => "back".into(),
        News::NoneHealthy => "none".into(),
        News::SomeHealthy => "some".into(),
    };
    match change.endpoint {
        Some(endpoint) => format!("{}:{news}", endpoint.port()),
        None => news,
    }
}

const PROBE: &str = "[service.probe]";

#[test]
fn each_change_of_health_is_said_once() {
    let mut case = Case::new(1, 2, PROBE);
    case.check(&[(Good(1), "1:answers"), (Failed(1), "1:unhealthy")]);
    assert_eq!(case.live(1).health, Health::Unhealthy);
    assert_eq!(case.live(2), EndpointLive::default());
    case.at(1_500);
    case.check(&[(Good(1), "1:healthy(1s500ms)"), (Good(1), "")]);
    let live = case.live(1);
    assert_eq!((live.health, live.recoveries), (Health::Healthy, 1));
}

#[test]
fn a_service_says_when_its_last_endpoint_is_lost_and_when_one_is_back() {
    let mut case = Case::new(1, 2, PROBE);
    case.check(&[
        (Failed(1), "1:unhealthy"),
        (Failed(2), "2:unhealthy none"),
        (Good(2), "2:healthy(0s) some"),
        (Good(1), "1:healthy(0s)"),
    ]);
}

#[test]
fn an_awaited_endpoint_comes_in_with_its_first_good_probe() {
    for keys in ["wait_first = true", "ready_path = \"/ready\""] {
        let mut case = Case::new(1, 2, &format!("{PROBE}\n{keys}\n"));
        case.check(&[(Good(1), "1:in"), (Good(2), "2:in")]);
        assert_eq!(
            case.live(1).ramp,
            RAMP_WHOLE,
            "the first plan's do not ramp"
        );
        case.check(&[(Failed(2), "2:unhealthy"), (Failed(1), "1:unhealthy none")]);
    }
}

#[test]
fn a_service_whose_new_endpoints_all_fail_says_so() {
    let mut case = Case::new(1, 2, &format!("{PROBE}\nwait_first = true\n"));
    case.check(&[
        (Failed(1), "1:unhealthy"),
        (Failed(2), "2:unhealthy none"),
        (Good(1), "1:healthy(0s) some"),
    ]);
}

#[test]
fn what_more_than_half_of_the_shards_eject_is_out_for_all() {
    for (shards, events) in [
        (
            1,
            &[
                (Ejected(1, 0), "1:ejected(0) 1:out"),
                (Readmitted(1, 0), "1:readmitted 1:back"),
            ][..],
        ),
        (
            2,
            &[
                (Ejected(1, 0), "1:ejected(0)"),
                (Ejected(1, 1), "1:out"),
                (Readmitted(1, 1), "1:back"),
                (Readmitted(1, 0), "1:readmitted"),
                (Readmitted(1, 0), ""),
            ],
        ),
        (
            4,
            &[
                (Ejected(1, 0), "1:ejected(0)"),
                (Ejected(1, 3), ""),
                (Ejected(1, 2), "1:out"),
            ],
        ),
    ] {
        Case::new(shards, 4, "").check(events);
    }
}

#[test]
fn a_shard_that_dies_takes_its_ejections_with_it() {
    let mut case = Case::new(4, 4, "");
    case.check(&[
        (Ejected(1, 0), "1:ejected(0)"),
        (Ejected(1, 1), ""),
        // Two of three agree.
        (Died(2), "1:out"),
        (Lives(2), "1:back"),
        (Died(0), ""),
        (Died(1), "1:readmitted"),
        (Lives(0), ""),
    ]);
    assert!(case.live(1) == EndpointLive::default());
}

#[test]
fn what_no_notice_told_is_read_off_the_counters() {
    let mut case = Case::new(1, 4, "");
    case.check(&[
        (Ejected(1, 0), "1:ejected(0) 1:out"),
        (Counted(1, 0, false), "1:readmitted 1:back"),
        (Counted(1, 0, false), ""),
        (Counted(2, 0, true), "2:out"),
        (Ejected(2, 0), ""),
        (Counted(2, 0, true), ""),
        (Readmitted(2, 0), "2:readmitted 2:back"),
    ]);
    assert_eq!(case.live(1), EndpointLive::default());
    assert_eq!(case.live(2), EndpointLive::default());
}

#[test]
fn no_more_are_out_for_all_than_the_ratio_allows() {
    for (ratio, endpoints, expected) in [
        ("0.5", 4, 2),
        ("0.5", 3, 1),
        ("0.5", 1, 0),
        ("1.0", 3, 3),
        ("0.0", 3, 0),
    ] {
        let keys = format!("[service.eject]\nratio_max = {ratio}\n");
        let mut case = Case::new(1, endpoints, &keys);
        for port in 1..=endpoints {
            case.on(Ejected(port, 0));
        }
        let out = (1..=endpoints).filter(|port| case.live(*port).ejected);
        assert_eq!(out.count(), expected, "{ratio} of {endpoints}");
    }
    // The next one gets the place of one that is back.
    let mut case = Case::new(1, 2, "");
    case.check(&[
        (Ejected(1, 0), "1:ejected(0) 1:out"),
        (Ejected(2, 0), "2:ejected(0)"),
        (Readmitted(1, 0), "1:readmitted 1:back 2:out"),
    ]);
}

#[test]
fn a_good_probe_after_a_failed_one_is_news_for_shards_that_have_ejected() {
    let mut case = Case::new(2, 2, PROBE);
    case.check(&[(Good(1), "1:answers"), (Good(1), "")]);
    assert_eq!(case.live(1).recoveries, 0);
    case.check(&[(Ejected(1, 1), "1:ejected(1)")]);
    assert!(
        !case.standings.is_due(case.now),
        "one of two does not decide"
    );
    case.check(&[(Good(1), "")]);
    assert!(case.standings.is_due(case.now));
    assert_eq!(case.live(1).recoveries, 1);
    assert!(!case.standings.is_due(case.now), "the plan has it");
}

#[test]
fn a_first_answer_waits_for_others_and_what_moves_exchanges_does_not() {
    let mut case = Case::new(1, 2, PROBE);
    case.check(&[(Good(1), "1:answers")]);
    assert!(!case.standings.is_due(case.now));
    case.at(999);
    case.check(&[(Good(2), "2:answers")]);
    assert!(!case.standings.is_due(case.now));
    case.at(1_000);
    assert!(case.standings.is_due(case.now));
    assert_eq!(case.live(2).health, Health::Healthy);
    assert!(!case.standings.is_due(case.now));
    case.check(&[(Failed(2), "2:unhealthy")]);
    assert!(case.standings.is_due(case.now));
}

#[test]
fn a_weight_grows_in_sixteenths() {
    let mut case = Case::new(1, 2, &format!("slow_start = \"1600ms\"\n{PROBE}"));
    case.check(&[(Good(1), "1:answers")]);
    assert_eq!(case.live(1).ramp, RAMP_WHOLE);
    case.check(&[(Failed(1), "1:unhealthy")]);
    case.at(1_000);
    case.check(&[(Good(1), "1:healthy(1s)")]);
    for (milliseconds, due, ramp) in [
        (1_000, true, 1),
        (1_099, false, 1),
        (1_100, true, 2),
        (1_199, false, 2),
        // A plan that comes late has all that was due.
        (1_430, true, 5),
        (1_499, false, 5),
        (2_499, true, 15),
        (2_500, true, 16),
        (9_999, false, 16),
    ] {
        case.at(milliseconds);
        assert_eq!(case.standings.is_due(case.now), due, "at {milliseconds}");
        assert_eq!(case.live(1).ramp, ramp, "at {milliseconds}");
    }
}

#[test]
fn what_was_out_for_all_grows_too_unless_it_is_unhealthy() {
    let mut case = Case::new(1, 2, &format!("slow_start = \"1600ms\"\n{PROBE}"));
    case.on(Ejected(1, 0));
    assert!(case.live(1).ejected);
    case.on(Readmitted(1, 0));
    assert_eq!(case.live(1).ramp, 1);
    case.on(Failed(1));
    assert_eq!(case.live(1).ramp, RAMP_WHOLE, "what is out has no steps");
    case.on(Ejected(1, 0));
    case.on(Readmitted(1, 0));
    assert_eq!(case.live(1).ramp, RAMP_WHOLE, "it is still out");
    case.at(9_000);
    assert!(!case.standings.is_due(case.now));
}

#[test]
fn without_a_slow_start_nothing_grows() {
    let mut case = Case::new(1, 2, PROBE);
    case.on(Failed(1));
    case.on(Good(1));
    assert_eq!(case.live(1).ramp, RAMP_WHOLE);
    case.at(9_000);
    assert!(!case.standings.is_due(case.now));
}

/// Endpoints on `ports`, none of which is drained.
fn stands(ports: &[u16]) -> Stands {
    let endpoints = ports.iter().map(|port| Stand {
        address: address(*port),
        weight: 1,
        backup: false,
        drain: false,
        down: false,
    });
    Stands {
        endpoints: endpoints.collect(),
        backends: Vec::new(),
    }
}

impl Case {
    /// The words for what is said when the service has endpoints on `ports` from now on.
    fn follow(&mut self, ports: &[u16]) -> String {
        let changes = self.standings.follow("s", &stands(ports), self.now);
        changes.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn what_was_down_comes_back_as_one_that_has_recovered() {
    let mut case = Case::new(1, 2, &format!("slow_start = \"16s\"\n{PROBE}"));
    case.check(&[(Good(1), "1:answers"), (Good(2), "2:answers")]);
    let set = |case: &mut Case, down: bool| {
        let mut stands = stands(&[1, 2]);
        stands.endpoints[0].drain = down;
        stands.endpoints[0].down = down;
        let changes = case.standings.follow("s", &stands, case.now);
        assert!(changes.is_empty(), "{changes:?}");
    };
    set(&mut case, true);
    // Of a probe that was under way.
    case.check(&[(Failed(1), ""), (Good(1), "")]);
    let recoveries = case.live(1).recoveries;
    case.at(5_000);
    set(&mut case, true);
    assert_eq!(case.live(1).recoveries, recoveries, "nothing has changed");
    set(&mut case, false);
    assert!(case.standings.is_due(case.now));
    let back = case.live(1);
    assert_eq!((back.health, back.proven), (Health::Unknown, false));
    assert_eq!((back.ramp, back.recoveries), (1, recoveries + 1));
    case.at(7_000);
    assert_eq!(case.live(1).ramp, 3);
    assert_eq!(case.live(2).ramp, RAMP_WHOLE);
    case.check(&[(Failed(1), "1:unhealthy")]);
    let seen = case
        .standings
        .seen("s", place(1).address)
        .expect("it stays");
    assert_eq!(
        (seen.health, &*seen.reason),
        (Health::Unhealthy, "status 503")
    );
    assert_eq!(seen.since, case.now);
    case.on(Good(1));
    let seen = case
        .standings
        .seen("s", place(1).address)
        .expect("it stays");
    assert_eq!((seen.health, &*seen.reason), (Health::Healthy, ""));
}

#[test]
fn what_is_known_of_an_endpoint_that_stays_stays() {
    let mut case = Case::new(1, 2, PROBE);
    case.on(Failed(1));
    case.on(Ejected(2, 0));
    assert_eq!(case.follow(&[3, 2, 1]), "");
    assert!(case.standings.is_due(case.now), "the plan has another one");
    assert_eq!(case.live(1).health, Health::Unhealthy);
    assert!(case.live(2).ejected);
    assert_eq!(case.live(3), EndpointLive::default());
    case.check(&[(Good(1), "1:healthy(0s)"), (Failed(3), "3:unhealthy")]);
}

#[test]
fn of_an_endpoint_that_is_gone_nothing_is_known_and_nothing_said() {
    let mut case = Case::new(2, 2, PROBE);
    case.on(Failed(1));
    assert_eq!(case.follow(&[2]), "");
    // What was under way about it when it went.
    case.check(&[
        (Good(1), ""),
        (Failed(1), ""),
        (Ejected(1, 0), ""),
        (Readmitted(1, 0), ""),
        (Counted(1, 0, true), ""),
    ]);
    assert_eq!(case.live(1), EndpointLive::default());
    case.follow(&[1, 2]);
    assert_eq!(case.live(1), EndpointLive::default(), "it is another one");
}

#[test]
fn the_weight_of_an_endpoint_that_comes_grows_unless_all_are_new() {
    let mut case = Case::new(1, 2, "slow_start = \"1600ms\"");
    case.follow(&[1, 2, 3]);
    assert_eq!((case.live(1).ramp, case.live(3).ramp), (RAMP_WHOLE, 1));
    case.follow(&[]);
    case.follow(&[4, 5]);
    assert_eq!(
        (case.live(4).ramp, case.live(5).ramp),
        (RAMP_WHOLE, RAMP_WHOLE)
    );
}

#[test]
fn the_last_healthy_endpoint_may_go_and_another_may_come() {
    let mut case = Case::new(1, 2, PROBE);
    case.check(&[(Good(1), "1:answers"), (Failed(2), "2:unhealthy")]);
    assert_eq!(case.follow(&[2]), "none");
    assert_eq!(case.follow(&[2, 3]), "some", "its first answer is awaited");
}

#[test]
fn as_many_may_be_ejected_for_all_as_there_are_endpoints_now() {
    let mut case = Case::new(1, 2, "eject = { ratio_max = 0.5 }");
    case.check(&[(Ejected(1, 0), "1:ejected(0) 1:out")]);
    case.check(&[(Ejected(2, 0), "2:ejected(0)")]);
    assert_eq!(case.follow(&[1, 2, 3, 4]), "2:out");
    assert!(case.live(2).ejected);
    assert_eq!(case.follow(&[2, 3]), "");
    assert!(case.live(2).ejected, "the one that half of two may be");
}

#[test]
fn where_endpoints_go_no_more_stay_out_than_may_be() {
    let mut case = Case::new(1, 4, "eject = { ratio_max = 0.5 }");
    case.check(&[(Ejected(1, 0), "1:ejected(0) 1:out")]);
    case.check(&[(Ejected(2, 0), "2:ejected(0) 2:out")]);
    assert_eq!(case.follow(&[1, 2]), "2:back");
    assert!(case.live(1).ejected);
    assert!(!case.live(2).ejected, "half of two is one");
    assert_eq!(case.follow(&[2]), "");
    assert_eq!(case.follow(&[2, 3]), "2:out", "its shard still has it out");
}

impl Case {
    /// Another configuration comes: services by name with the ports of their endpoints and keys.
    fn adopt(&mut self, services: &[(&str, &[u16], &str)]) -> String {
        let mut text = String::from("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:80\"\n");
        for (name, ports, keys) in services {
            let backends = ports.iter().map(|port| format!("\"{}\"", address(*port)));
            let backends = backends.collect::<Vec<_>>().join(", ");
            let service =
                format!("[[service]]\nname = {name:?}\nbackends = [{backends}]\n{keys}\n");
            text.push_str(&service);
        }
        let config = config::parse("config.toml", &text).expect("the text breaks no rule");
        let live = Live::new(self.standings.shards as u32, 1_064);
        let changes = self.standings.adopt(&config, &live, self.now);
        changes.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn what_is_known_outlives_another_order() {
    let mut case = Case::new(2, 3, "[service.probe]\n");
    case.check(&[
        (Failed(1), "1:unhealthy"),
        (Ejected(2, 0), "2:ejected(0)"),
        (Good(3), "3:answers"),
    ]);
    let before = [1, 2, 3].map(|port| case.live(port));
    assert_eq!(case.adopt(&[("t", &[1], ""), ("s", &[3, 2, 1], PROBE)]), "");
    assert!(case.standings.is_due(case.now));
    assert_eq!([1, 2, 3].map(|port| case.live(port)), before);
    case.check(&[(Readmitted(2, 0), "2:readmitted"), (Failed(1), "")]);
}

#[test]
fn nothing_is_said_of_what_is_gone() {
    let mut case = Case::new(2, 2, PROBE);
    assert_eq!(case.adopt(&[("s", &[2], PROBE)]), "");
    case.live(2);
    case.check(&[(Failed(1), ""), (Ejected(1, 0), ""), (Readmitted(1, 0), "")]);
    assert_eq!(case.adopt(&[("t", &[1, 2], PROBE)]), "");
    case.live(2);
    case.check(&[
        (Failed(2), ""),
        (Ejected(2, 0), ""),
        (Counted(2, 0, true), ""),
    ]);
    assert!(!case.standings.is_due(case.now));
}

#[test]
fn who_nobody_probes_any_more_is_not_unhealthy() {
    let mut case = Case::new(1, 2, PROBE);
    case.on(Failed(1));
    assert_eq!(case.on(Failed(2)), "2:unhealthy none");
    assert_eq!(case.adopt(&[("s", &[1, 2], "")]), "some");
    assert_eq!(case.live(1).health, Health::Unknown);
}

#[test]
fn who_had_exchanges_does_not_wait_for_a_first_probe() {
    let waits = "[service.probe]\nwait_first = true\n";
    let mut case = Case::new(1, 1, "");
    assert_eq!(case.adopt(&[("s", &[1, 2], waits)]), "");
    assert!(case.live(1).proven);
    assert!(!case.live(2).proven, "it is new");
    assert_eq!(case.adopt(&[("s", &[1, 2], waits)]), "");
    assert!(!case.live(2).proven, "it still waits");
}

#[test]
fn a_slow_start_goes_on_and_follows_its_key() {
    let slow = "slow_start = \"16s\"";
    let mut case = Case::new(1, 1, slow);
    case.adopt(&[("s", &[1, 2], slow), ("t", &[3], slow)]);
    assert_eq!((case.live(1).ramp, case.live(2).ramp), (16, 1));
    case.at(4_000);
    case.adopt(&[("t", &[3], slow), ("s", &[2, 1], slow)]);
    assert_eq!(case.live(2).ramp, 5);
    case.adopt(&[("s", &[2, 1], "slow_start = \"8s\"")]);
    assert_eq!(case.live(2).ramp, 9);
    case.adopt(&[("s", &[2, 1], "")]);
    assert_eq!(case.live(2).ramp, 16);
}

#[test]
fn another_ratio_holds_from_now_on() {
    let mut case = Case::new(1, 4, "[service.eject]\nratio_max = 0.5");
    case.on(Ejected(1, 0));
    case.on(Ejected(2, 0));
    assert!(case.live(1).ejected && case.live(2).ejected);
    let less = "[service.eject]\nratio_max = 0.25";
    assert_eq!(case.adopt(&[("s", &[1, 2, 3, 4], less)]), "2:back");
    assert!(case.live(1).ejected && !case.live(2).ejected);
}
