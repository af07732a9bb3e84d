//! What holds for every policy, and what holds for those that weigh alike.

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
