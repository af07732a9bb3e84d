//! What a service's endpoints go through, as lines of words, and what comes of it.
//!
//! | Word | Means |
//! | --- | --- |
//! | `f0` `f0*3` | endpoint 0 fails an exchange, or three |
//! | `g0` | it answers |
//! | `w0=20*200` | 200 exchanges wait 20 ms each for it |
//! | `@95` `!95` | time goes on to tick 95; the pass of that one is yet to come |
//! | `r0` | a plan says that it has recovered |
//! | `s0=draining` | a plan gives it this standing |
//!
//! What is told is a list of `TICK:ENDPOINT` and what happened.

use proptest::prelude::*;

use super::*;
use crate::balance::window::ERROR_MAX;

/// A service under test, and what it has told.
struct Scene {
    service: Service,
    ejections: Ejections,
    endpoints: Vec<Rc<Ejection>>,
    now: u32,
    told: Vec<(u32, usize, Change)>,
}

impl Scene {
    fn new(endpoints: usize, eject: EjectRules) -> Self {
        let address = |number: usize| ([127, 0, 0, 1], 9_000 + number as u16).into();
        let addresses: Vec<_> = (0..endpoints).map(address).collect();
        let mut scene = Self {
            service: Service {
                eject,
                ..Service::over("a", &addresses)
            },
            ejections: Ejections::default(),
            endpoints: (0..endpoints).map(|_| Ejection::new()).collect(),
            now: 0,
            told: Vec::new(),
        };
        scene.adopt();
        scene
    }

    fn adopt(&mut self) {
        let Self { now, told, .. } = self;
        let members = self.endpoints.clone();
        let note = |ejection: &Ejection, change| told.push((*now, ejection.place(), change));
        self.ejections.adopt(*now, &self.service, members, note);
    }

    fn fault(&mut self, place: usize) {
        let Self { now, told, .. } = self;
        let note = |ejection: &Ejection, change| told.push((*now, ejection.place(), change));
        self.ejections.fault(*now, &self.endpoints[place], note);
    }

    fn go_on(&mut self, to: u32) {
        while self.now < to {
            self.now += 1;
            let Self { now, told, .. } = self;
            let note = |ejection: &Ejection, change| told.push((*now, ejection.place(), change));
            self.ejections.pass(*now, note);
        }
    }

    fn play(&mut self, word: &str) {
        let (word, times) = word.split_once('*').unwrap_or((word, "1"));
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        let number: usize = word[1..].parse().unwrap();
        for _ in 0..times.parse().unwrap() {
            match &word[..1] {
                "f" => self.fault(number),
                "g" => self.endpoints[number].good(),
                "w" => {
                    let nanoseconds = value.parse::<u64>().unwrap() * 1_000_000;
                    let ejection = &self.endpoints[number];
                    self.ejections.waited(self.now, ejection, nanoseconds);
                }
                "@" => self.go_on(number as u32),
                "!" => {
                    self.go_on(number as u32 - 1);
                    self.now += 1;
                }
                "r" => {
                    self.service.endpoints[number].recoveries += 1;
                    self.adopt();
                }
                "s" => {
                    self.service.endpoints[number].standing = match value {
                        "draining" => Standing::Draining,
                        "unhealthy" => Standing::Unhealthy,
                        "ejected" => Standing::Ejected,
                        _ => Standing::Healthy,
                    };
                    self.adopt();
                }
                _ => panic!("{word}"),
            }
        }
    }

    fn told(&self) -> String {
        let told = self.told.iter().map(|(tick, place, change)| {
            let change = match change {
                Change::Ejected(reason, ticks) => format!("out {} {}", reason.label(), ticks.0),
                Change::Readmitted(_) => "in".to_owned(),
            };
            format!("{tick}:{place} {change}")
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

fn rules(consecutive_faults: u32) -> EjectRules {
    EjectRules {
        consecutive_faults,
        duration: Ticks(100),
        ratio_max: 0.5,
        latency_factor: 0.0,
    }
}

fn slow(latency_factor: f64) -> EjectRules {
    EjectRules {
        latency_factor,
        ..rules(0)
    }
}

#[track_caller]
fn check(endpoints: usize, rules: EjectRules, words: &str, expected: &str) {
    let mut scene = Scene::new(endpoints, rules);
    words.split_whitespace().for_each(|word| scene.play(word));
    let expected: Vec<_> = expected.split_whitespace().collect();
    assert_eq!(scene.told(), expected.join(" "), "{words}");
}

#[test]
fn so_many_faults_in_a_row_eject() {
    check(2, rules(3), "f0 f0", "");
    check(2, rules(3), "f0 f0 f0", "0:0 out consecutive_faults 100");
    check(2, rules(3), "f0 f0 g0 f0 f0 @9 f1 f1", "");
    check(
        2,
        rules(3),
        "f0 f1 f0 f1 g1 f0",
        "0:0 out consecutive_faults 100",
    );
    check(2, rules(1), "@7 f1", "7:1 out consecutive_faults 100");
    check(2, rules(0), "f0*1000", "");
    // What was under way when it was ejected changes nothing.
    check(
        2,
        rules(3),
        "f0*9 @9 f0*9",
        "0:0 out consecutive_faults 100",
    );
}

#[test]
fn an_ejection_ends_by_time() {
    let mut scene = Scene::new(2, rules(1));
    let [first, second] = [0, 1].map(|place| Rc::clone(&scene.endpoints[place]));
    scene.play("@5");
    scene.play("f0");
    for (tick, is_out) in [(5, true), (104, true), (105, true), (106, false)] {
        assert_eq!(first.is_out(tick), is_out, "{tick}");
        assert!(!second.is_out(tick));
    }
    check(2, rules(1), "f0 @100", "0:0 out consecutive_faults 100");
    check(
        2,
        rules(1),
        "f0 @110",
        "0:0 out consecutive_faults 100, 101:0 in",
    );
    // Its faults before do not count when it is back.
    let told = "0:0 out consecutive_faults 100, 101:0 in";
    check(2, rules(3), "f0*3 @111 f0 f0", told);
}

#[test]
fn ejections_in_a_row_last_twice_as_long_each() {
    check(
        2,
        rules(1),
        "f0 @111 f0 @330 f0 @800",
        "0:0 out consecutive_faults 100, 101:0 in, 111:0 out consecutive_faults 200, 312:0 in, \
         330:0 out consecutive_faults 400, 731:0 in",
    );
    // In until 101, and then for as long as it was out.
    let first = "0:0 out consecutive_faults 100, 101:0 in,";
    let again = format!("{first} 200:0 out consecutive_faults 200");
    check(2, rules(1), "f0 @200 f0", &again);
    let anew = format!("{first} 201:0 out consecutive_faults 100");
    check(2, rules(1), "f0 @201 f0", &anew);
    // Ejected again before the pass that would have told of it.
    let at_once = "0:0 out consecutive_faults 100, 101:0 in, 101:0 out consecutive_faults 200";
    check(2, rules(1), "f0 !101 f0 @102", at_once);
}

#[test]
fn ejections_become_no_longer_than_five_minutes() {
    #[track_caller]
    fn check(duration: u32, expected: &[u32]) {
        let rules = EjectRules {
            duration: Ticks(duration),
            ..rules(1)
        };
        let mut scene = Scene::new(2, rules);
        for _ in expected {
            scene.fault(0);
            scene.go_on(scene.endpoints[0].until.get());
        }
        let lasted = scene.told.iter().filter_map(|(_, _, change)| match change {
            Change::Ejected(_, ticks) => Some(ticks.0),
            Change::Readmitted(_) => None,
        });
        assert_eq!(lasted.collect::<Vec<_>>(), expected);
    }
    check(700, &[700, 1_400, 2_800, 3_000, 3_000]);
    check(
        10,
        &[10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_000, 3_000],
    );
    check(3_000, &[3_000, 3_000]);
    check(36_000, &[36_000, 36_000]);
}

#[test]
fn no_more_are_out_than_ratio_max() {
    #[track_caller]
    fn check(endpoints: usize, ratio_max: f64, expected: usize) {
        let rules = EjectRules {
            ratio_max,
            ..rules(2)
        };
        let mut scene = Scene::new(endpoints, rules);
        for place in 0..endpoints {
            (0..9).for_each(|_| scene.fault(place));
        }
        let out = scene.endpoints.iter();
        let out = out.filter(|ejection| ejection.is_out(0)).count();
        assert_eq!(out, expected, "{ratio_max} of {endpoints}");
        assert_eq!(scene.told.len(), expected);
    }
    for (endpoints, ratio_max, expected) in [
        (1, 0.5, 0),
        (1, 0.99, 0),
        (1, 1.0, 1),
        (2, 0.5, 1),
        (2, 0.0, 0),
        (3, 0.5, 1),
        (3, 0.67, 2),
        (5, 0.4, 2),
        (10, 0.3, 3),
        (100, 0.29, 29),
        (100, 1.0, 100),
    ] {
        check(endpoints, ratio_max, expected);
    }
}

#[test]
fn who_could_not_be_ejected_is_when_another_one_is_back() {
    check(
        2,
        rules(2),
        "f0*2 f1*9 @100 f1 @101 f1",
        "0:0 out consecutive_faults 100, 101:0 in, 101:1 out consecutive_faults 100",
    );
    check(
        2,
        rules(2),
        "f0*2 f1*9 g1 @101 f1",
        "0:0 out consecutive_faults 100, 101:0 in",
    );
}

#[test]
fn a_recovery_readmits_at_once() {
    check(
        2,
        rules(1),
        "f0 @7 r0",
        "0:0 out consecutive_faults 100, 7:0 in",
    );
    check(2, rules(1), "f0 @7 r1", "0:0 out consecutive_faults 100");
    check(2, rules(2), "f0 @7 r0 f0", "");
    // It counts as one that has lasted: what comes soon after it is in a row.
    let back = "0:0 out consecutive_faults 100, 7:0 in,";
    let again = format!("{back} 106:0 out consecutive_faults 200");
    check(2, rules(1), "f0 @7 r0 @106 f0", &again);
    let anew = format!("{back} 107:0 out consecutive_faults 100");
    check(2, rules(1), "f0 @7 r0 @107 f0", &anew);
    check(2, rules(1), "r0 f0", "0:0 out consecutive_faults 100");
}

#[test]
fn who_comes_back_by_a_plan_is_in_from_then_on() {
    // Its time was over at 101; the plan that most shards have it ejected ended at 150.
    let words = "f0 s0=ejected @150 s0=healthy";
    let back = "0:0 out consecutive_faults 100, 101:0 in,";
    let again = format!("{back} 249:0 out consecutive_faults 200");
    check(2, rules(1), &format!("{words} @249 f0"), &again);
    let anew = format!("{back} 250:0 out consecutive_faults 100");
    check(2, rules(1), &format!("{words} @250 f0"), &anew);
    // On a shard that had not ejected it, it is the first time.
    let first = "150:0 out consecutive_faults 100";
    check(2, rules(1), "s0=ejected @150 s0=healthy f0", first);
}

#[test]
fn what_the_plan_has_out_is_not_ejected_and_does_not_count() {
    check(2, rules(1), "s0=draining f0*9", "");
    check(2, rules(1), "s0=unhealthy f0*9", "");
    check(2, rules(1), "s0=ejected f0*9", "");
    // One that is left is one of one.
    check(2, rules(1), "s0=unhealthy f1*9", "");
    check(
        4,
        rules(1),
        "s0=unhealthy f1 f2 f3",
        "0:1 out consecutive_faults 100",
    );
    // Of four, one is ejected by most shards: one more may be.
    check(
        4,
        rules(1),
        "s0=ejected f1 f2 f3",
        "0:1 out consecutive_faults 100",
    );
    check(
        4,
        rules(1),
        "f0 s0=ejected f1 f2",
        "0:0 out consecutive_faults 100, 0:1 out consecutive_faults 100",
    );
    // One that is ejected and then unhealthy makes room, and comes back when its time is over.
    check(
        4,
        rules(1),
        "f0 f1 s0=unhealthy @5 f2 s1=draining f2 @110",
        "0:0 out consecutive_faults 100, 0:1 out consecutive_faults 100, \
         5:2 out consecutive_faults 100, 101:0 in, 101:1 in, 106:2 in",
    );
}

#[test]
fn a_plan_keeps_what_it_does_not_change() {
    let mut scene = Scene::new(3, rules(2));
    for word in "f0*2 f1 @50".split(' ') {
        scene.play(word);
    }
    // The first one leaves; the second one has its place and one fault.
    scene.service.endpoints = scene.service.endpoints[1..].into();
    let gone = scene.endpoints.remove(0);
    scene.adopt();
    scene.fault(0);
    assert_eq!(
        scene.told(),
        "0:0 out consecutive_faults 100, 50:0 out consecutive_faults 100"
    );
    // What exchanges of the older plan see of the one that has left is nothing to anybody.
    scene.go_on(200);
    scene.told.clear();
    for _ in 0..9 {
        scene.endpoints.push(Rc::clone(&gone));
        scene.fault(2);
        scene.endpoints.pop();
    }
    assert_eq!(scene.told(), "");
}

#[test]
fn an_endpoint_that_is_slower_than_the_others_is_ejected() {
    // The first pass learns what is usual, the second one judges.
    let usual = "w0=1*200 w1=1*200 w2=1*200 @10";
    let told = |words: &str| {
        let mut scene = Scene::new(3, slow(5.0));
        let words = format!("{usual} {words}");
        words.split_whitespace().for_each(|word| scene.play(word));
        scene.told()
    };
    let is_out = "20:0 out latency 100";
    assert_eq!(
        told("w0=20*3 @20"),
        is_out,
        "more than a hundredth are slow"
    );
    assert_eq!(told("w0=20*2 @20"), "", "less are");
    assert_eq!(told("w0=4*300 @20"), "", "four times the median");
    assert_eq!(told("w0=6*300 @20"), is_out, "six times");
    assert_eq!(told("w0=20*300 @20 @110"), is_out);
    assert_eq!(told("w0=20*300 @20 @130"), format!("{is_out}, 121:0 in"));
    assert_eq!(
        told("w0=20*9 w1=20*9 w2=20*9 @20"),
        is_out,
        "a third of three"
    );
    assert_eq!(
        told("@300 w0=20*300 @310"),
        "",
        "what was usual is long ago"
    );
}

#[test]
fn of_two_the_slower_one_is_ejected_whoever_has_more_waits() {
    for (waits, expected) in [
        ("w0=1*200 w1=90*200", "20:1 out latency 100"),
        ("w0=1*200 w1=90*700", "20:1 out latency 100"),
        ("w0=90*200 w1=1*200", "20:0 out latency 100"),
        ("w0=1*200 w1=1*200", ""),
        // Less than a hundred waits in all: nothing is known of the one, or of the other.
        ("w0=1*49 w1=90*700", ""),
        ("w0=1*700 w1=90*49", ""),
    ] {
        check(2, slow(5.0), &format!("{waits} @10 {waits} @20"), expected);
    }
    check(1, slow(5.0), "w0=1*200 @10 w0=90*200 @20", "");
}

#[test]
fn who_is_back_is_judged_by_new_waits() {
    let usual = "w0=1*200 w1=1*200 @10";
    check(
        2,
        EjectRules {
            duration: Ticks(10),
            ..slow(5.0)
        },
        &format!("{usual} w0=90*300 @20 @40 w0=90 @50 w0=1*200 @60"),
        "20:0 out latency 10, 31:0 in",
    );
}

#[test]
fn waits_are_not_kept_where_nobody_judges_them() {
    let mut scene = Scene::new(2, rules(1));
    scene.play("w0=90*1000");
    assert!(scene.endpoints[0].waits.borrow().is_none());
    scene.service.eject = slow(5.0);
    scene.adopt();
    for word in "w0=1*200 w1=1*200 @10 w0=90*200".split(' ') {
        scene.play(word);
    }
    scene.service.eject = rules(1);
    scene.adopt();
    scene.go_on(20);
    assert_eq!(scene.told(), "");
    assert!(scene.endpoints[0].waits.borrow().is_none());
    scene.service.eject = slow(5.0);
    scene.adopt();
    for word in "w0=1*200 w1=1*200 @30 w0=90*200 @40".split(' ') {
        scene.play(word);
    }
    assert_eq!(scene.told(), "40:0 out latency 100");
}

#[test]
fn many_suspects_take_turns() {
    let many = 3 * 64;
    let mut scene = Scene::new(
        many,
        EjectRules {
            ratio_max: 1.0,
            ..slow(5.0)
        },
    );
    let wait = |scene: &mut Scene, places: std::ops::Range<usize>, wait: u32| {
        for place in places {
            scene.play(&format!("w{place}={wait}*100"));
        }
    };
    wait(&mut scene, 0..many, 1);
    scene.go_on(10);
    wait(&mut scene, 0..70, 9);
    let mut out = Vec::new();
    for pass in 2..5 {
        scene.go_on(10 * pass);
        out.push(scene.told.len());
    }
    assert_eq!(out, [64, 70, 70]);
}

proptest! {
    #[test]
    fn ratio_max_holds_and_changes_are_told_in_turn(
        endpoints in 1_usize..12, ratio_max in 0.0..=1.0,
        steps in prop::collection::vec((0_usize..12, 0_u32..9), 1..300),
    ) {
        let mut scene = Scene::new(endpoints, EjectRules { ratio_max, ..rules(2) });
        for (place, what) in steps {
            let place = place % endpoints;
            match what {
                0 => scene.play(&format!("g{place}")),
                1 => scene.play(&format!("r{place}")),
                2 => scene.go_on(scene.now + 17 * place as u32),
                // A shard that was late passes over ticks.
                3 => scene.now += 40 * place as u32,
                _ => scene.fault(place),
            }
            let now = scene.now;
            let out = scene.endpoints.iter().filter(|ejection| ejection.is_out(now)).count();
            prop_assert!(out as f64 <= ratio_max * endpoints as f64 + 1e-9);
        }
        for place in 0..endpoints {
            let of = scene.told.iter().filter(|(_, told, _)| *told == place);
            for (turn, (_, _, change)) in of.enumerate() {
                prop_assert_eq!(matches!(change, Change::Ejected(..)), turn % 2 == 0);
            }
        }
        // Everybody is back in the end, and told of.
        scene.go_on(scene.now + LONGEST.0 + 20);
        let changes = scene.told.len();
        prop_assert_eq!(changes % 2, 0);
        prop_assert!(scene.ejections.out.borrow().is_empty());
    }

    #[test]
    fn the_slow_one_is_found_and_no_other(
        usual in 1_u32..100, factor in 2.0..50.0, endpoints in 2_usize..9, off in 0_usize..9,
    ) {
        let mut scene = Scene::new(endpoints, slow(factor));
        let slow_one = off % endpoints;
        // As far from the bound as the windows may be off.
        let error = (1.0 + ERROR_MAX) / (1.0 - ERROR_MAX);
        let too_long = (f64::from(usual) * factor * error).ceil() as u32 + 1;
        let long = ((f64::from(usual) * factor / error) as u32 - 1).max(1);
        for (wait, expected) in [(long, None), (too_long, Some(slow_one))] {
            for place in 0..endpoints {
                scene.play(&format!("w{place}={usual}*300"));
            }
            scene.go_on(scene.now + 10);
            scene.play(&format!("w{slow_one}={wait}*300"));
            scene.go_on(scene.now + 10);
            let found = scene.told.first().map(|(_, place, _)| *place);
            prop_assert_eq!(found, expected);
        }
    }
}
