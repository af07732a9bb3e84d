//! What holds for every policy, and what holds for those that weigh alike.

use std::collections::VecDeque;
use std::ops::Range;

use proptest::prelude::*;
use rand::SeedableRng;

use super::stage::{Stage, members};
use super::*;

const PICKS: usize = 20_000;

fn one_of_a_shard(
    policy: &Policy,
    members: &[Member],
    generator: &mut Xorshift,
) -> Box<dyn Picker> {
    (policy.make)(members).of_shard(generator)
}

#[test]
fn labels_differ_and_name_their_policy() {
    for policy in &POLICIES {
        assert_eq!(Policy::named(policy.label), Some(policy));
        let equal = POLICIES.iter().filter(|other| *other == policy);
        assert_eq!(equal.count(), 1, "{policy:?}");
    }
    assert_eq!(Policy::named("p3c"), None);
}

#[test]
fn without_members_nothing_is_picked() {
    let mut generator = Xorshift::seed_from_u64(7);
    for policy in &POLICIES {
        let mut picker = one_of_a_shard(policy, &[], &mut generator);
        assert_eq!(
            picker.pick(&Stage::new(0), &mut generator),
            None,
            "{policy:?}"
        );
    }
}

/// Endpoints with weights from the whole range, in or out, loaded and measured somehow.
fn any_stage() -> impl Strategy<Value = (Vec<u32>, Stage)> {
    let weight = prop_oneof![1_u32..4, 1_u32..16_000, Just(u32::MAX)];
    let endpoint = (weight, any::<bool>(), 0_u32..20, 0_u64..3, any::<bool>());
    let endpoints = prop::collection::vec(endpoint, 1..40);
    (endpoints, any::<u64>()).prop_map(|(endpoints, now)| {
        let mut stage = Stage::new(endpoints.len());
        stage.now = now;
        for (place, (_, is_in, active, waits, is_faulty)) in endpoints.iter().enumerate() {
            stage.inside[place] = *is_in;
            let load = &stage.loads[place];
            (0..*active).for_each(|_| load.begin());
            (0..*waits).for_each(|wait| load.observe(wait * 1_000_000, now / 2 + wait));
            if *is_faulty {
                load.penalize(now / 2);
            }
        }
        let weights = endpoints.iter().map(|endpoint| endpoint.0).collect();
        (weights, stage)
    })
}

proptest! {
    #[test]
    fn every_policy_picks_one_that_is_in_exactly_when_there_is_one(
        (weights, mut stage) in any_stage(),
        place in 0..POLICIES.len(),
        seed in any::<u64>(),
    ) {
        let policy = &POLICIES[place];
        let mut generator = Xorshift::seed_from_u64(seed);
        let mut picker = one_of_a_shard(policy, &members(&weights), &mut generator);
        let is_any_in = stage.inside.contains(&true);
        for key in 0..50_u64 {
            stage.key = hash_key(&(seed ^ key).to_le_bytes());
            let picked = picker.pick(&stage, &mut generator);
            prop_assert_eq!(picked.is_some(), is_any_in, "{:?}", policy);
            prop_assert!(picked.is_none_or(|place| stage.inside[place]), "{:?}", policy);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn idle_endpoints_share_by_weight_under_every_policy(
        entries in prop::collection::vec((1_u32..100, any::<bool>()), 2..12),
    ) {
        let (weights, mut inside): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        inside[0] = true;
        let mut generator = Xorshift::seed_from_u64(7);
        for policy in &POLICIES {
            let mut picker = one_of_a_shard(policy, &members(&weights), &mut generator);
            let mut stage = Stage::new(weights.len()).with_inside(&inside);
            let counts = stage.counts(&mut *picker, PICKS);
            counts.check(&weights, |place| inside[place]);
        }
    }
}

proptest! {
    #[test]
    fn least_connections_picks_none_that_is_more_loaded_than_another(
        (weights, stage) in any_stage(),
        seed in any::<u64>(),
    ) {
        let mut generator = Xorshift::seed_from_u64(seed);
        let mut picker = LeastConnections::new(&members(&weights));
        // Cross products of u32s, so that nothing is rounded.
        let is_less = |one: usize, other: usize| {
            let product = |active: usize, weight: usize| {
                u64::from(stage.loads[active].active()) * u64::from(weights[weight])
            };
            product(one, other) < product(other, one)
        };
        if let Some(picked) = picker.pick(&stage, &mut generator) {
            let mut inside = (0..weights.len()).filter(|place| stage.inside[*place]);
            prop_assert!(!inside.any(|place| is_less(place, picked)));
        }
    }

    #[test]
    fn of_two_that_are_in_p2c_and_ewma_never_pick_the_worse(
        (weights, mut stage) in any_stage(),
        seed in any::<u64>(),
    ) {
        stage.inside.fill(false);
        let last = weights.len() - 1;
        stage.inside[0] = true;
        stage.inside[last] = true;
        let [mut least, mut p2c, mut ewma] = ["least_connections", "p2c", "ewma"].map(|label| {
            let policy = Policy::named(label).expect("it is registered");
            (policy.make)(&members(&weights))
        });
        let least = stage.places_picked(&mut *least, 100);
        let p2c = stage.places_picked(&mut *p2c, 100);
        prop_assert!(p2c.iter().all(|place| least.contains(place)), "{:?} {:?}", p2c, least);
        let mut generator = Xorshift::seed_from_u64(seed);
        let first = ewma.pick(&stage, &mut generator);
        let waits = [0, last].map(|place| {
            let load = &stage.loads[place];
            (load.wait(stage.now), load.active())
        });
        if waits[0] != waits[1] && waits.iter().all(|(_, active)| *active == 0) {
            let sooner = if waits[0].0 < waits[1].0 { 0 } else { last };
            prop_assert_eq!(first, Some(sooner), "{:?}", waits);
        }
    }
}

/// How many more exchanges than the mean run at the fullest of a hundred endpoints, when ten
/// thousand have begun and none has ended.
fn excess(label: &str) -> u32 {
    let mut generator = Xorshift::seed_from_u64(7);
    let policy = Policy::named(label).expect("it is registered");
    let mut picker = one_of_a_shard(policy, &members(&[1; 100]), &mut generator);
    let stage = Stage::new(100);
    for _ in 0..10_000 {
        let picked = picker.pick(&stage, &mut generator);
        stage.loads[picked.expect("all are in")].begin();
    }
    let fullest = stage.loads.iter().map(Load::active).max();
    fullest.expect("there are some") - 100
}

#[test]
fn two_choices_are_nearly_as_even_as_all() {
    assert_eq!(excess("least_connections"), 0);
    // Mitzenmacher: the logarithm of the logarithm of a hundred, and a little.
    assert!(excess("p2c") <= 4, "{}", excess("p2c"));
    assert!(20 <= excess("random"), "{}", excess("random"));
}

/// Two thousand requests a second to ten endpoints under `ewma`, in virtual time. They answer after
/// a millisecond, but the first after twenty in seconds 10 to 20.
#[derive(Debug)]
struct Slowdown {
    stage: Stage,
    picker: Ewma,
    generator: Xorshift,
    /// When an exchange is answered, where, and how long that took.
    answers: VecDeque<(u64, usize, u64)>,
}

impl Slowdown {
    const SECOND: u64 = 1_000_000_000;

    /// The share of the requests of this second that the first endpoint gets.
    fn share_in(&mut self, second: u64) -> f64 {
        let mut first = 0;
        for request in 0..2000 {
            self.stage.now = second * Self::SECOND + request * Self::SECOND / 2000;
            self.answer();
            let picked = self.picker.pick(&self.stage, &mut self.generator);
            let picked = picked.expect("all are in");
            self.stage.loads[picked].begin();
            let is_slow = picked == 0 && (10..20).contains(&second);
            let wait = if is_slow { 20_000_000 } else { 1_000_000 };
            self.answers
                .push_back((self.stage.now + wait, picked, wait));
            first += u32::from(picked == 0);
        }
        f64::from(first) / 2000.0
    }

    fn answer(&mut self) {
        let now = self.stage.now;
        self.answers.retain(|(at, place, wait)| {
            let is_due = *at <= now;
            if is_due {
                self.stage.loads[*place].observe(*wait, now);
                self.stage.loads[*place].end();
            }
            !is_due
        });
    }
}

#[test]
fn ewma_leaves_a_slow_endpoint_and_comes_back_to_it() {
    let mut slowdown = Slowdown {
        stage: Stage::new(10),
        picker: Ewma::new(&members(&[1; 10])),
        generator: Xorshift::seed_from_u64(7),
        answers: VecDeque::new(),
    };
    let shares: Vec<f64> = (0..60).map(|second| slowdown.share_in(second)).collect();
    let all_within = |seconds: Range<usize>, least, most| {
        let shares = &shares[seconds];
        let within = shares.iter().all(|share| least <= *share && *share <= most);
        assert!(within, "{shares:?}");
    };
    all_within(1..10, 0.05, 0.15);
    all_within(10..20, 0.0, 0.01);
    all_within(55..60, 0.05, 0.15);
}
