//! Candidates for tests, and how their picks are counted.

use rand::SeedableRng;

use super::{Candidates, Load, Member, Picker, Xorshift, hash_key};

/// Endpoints as a test has set them up.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) inside: Vec<bool>,
    pub(super) loads: Vec<Load>,
    pub(super) now: u64,
    pub(super) key: u64,
}

impl Stage {
    /// So many endpoints: all in, idle and not measured.
    pub(super) fn new(count: usize) -> Self {
        Self {
            inside: vec![true; count],
            loads: vec![Load::default(); count],
            now: 0,
            key: 0,
        }
    }

    /// With so many exchanges under way at each.
    pub(super) fn with_active(self, active: &[u32]) -> Self {
        for (load, active) in self.loads.iter().zip(active) {
            (0..*active).for_each(|_| load.begin());
        }
        self
    }

    /// With these in.
    pub(super) fn with_inside(mut self, inside: &[bool]) -> Self {
        self.inside = inside.to_vec();
        self
    }

    /// How often each is picked in so many picks, for each of which there is another key.
    #[track_caller]
    pub(super) fn counts(&mut self, picker: &mut dyn Picker, picks: usize) -> Counts {
        let mut generator = Xorshift::seed_from_u64(7);
        let mut counts = Counts::new(self.loads.len());
        for number in 0..picks {
            self.key = hash_key(&number.to_le_bytes());
            let picked = picker.pick(self, &mut generator);
            counts.add(picked.expect("one is in"));
        }
        counts
    }

    /// What is picked for each of so many keys.
    #[track_caller]
    pub(super) fn places_by_key(&mut self, picker: &mut dyn Picker, keys: u64) -> Vec<usize> {
        let mut generator = Xorshift::seed_from_u64(7);
        let mut pick = |key: u64| {
            self.key = hash_key(&key.to_le_bytes());
            picker.pick(self, &mut generator).expect("one is in")
        };
        (0..keys).map(&mut pick).collect()
    }

    /// The places that are picked at all in so many picks, in ascending order.
    #[track_caller]
    pub(super) fn places_picked(&self, picker: &mut dyn Picker, picks: usize) -> Vec<usize> {
        let mut generator = Xorshift::seed_from_u64(7);
        let picked = (0..picks).map(|_| picker.pick(self, &mut generator).expect("one is in"));
        let mut places: Vec<_> = picked.collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

impl Candidates for Stage {
    fn is_in(&self, place: usize) -> bool {
        self.inside[place]
    }

    fn load(&self, place: usize) -> &Load {
        &self.loads[place]
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn key(&self) -> u64 {
        self.key
    }
}

/// How often each place was picked.
#[derive(Debug)]
pub(super) struct Counts(pub(super) Vec<u32>);

impl Counts {
    pub(super) fn new(places: usize) -> Self {
        Self(vec![0; places])
    }

    pub(super) fn add(&mut self, place: usize) {
        self.0[place] += 1;
    }

    /// Pearson's test over the places that are in: the statistic stays under a bound that a fair
    /// picker passes all but once in ten million (mean `k`, standard deviation `sqrt(2k)`, and a
    /// long right tail for few `k`).
    #[track_caller]
    pub(super) fn check(&self, weights: &[u32], is_in: impl Fn(usize) -> bool) {
        let Self(counts) = self;
        let picks: u32 = counts.iter().sum();
        let places = || (0..weights.len()).filter(|place| is_in(*place));
        let strays = (0..weights.len()).filter(|place| !is_in(*place) && counts[*place] != 0);
        assert_eq!(strays.collect::<Vec<_>>(), [0; 0], "are not in");
        let total: f64 = places().map(|place| f64::from(weights[place])).sum();
        let statistic: f64 = places()
            .map(|place| {
                let expected = f64::from(weights[place]) / total * f64::from(picks);
                (f64::from(counts[place]) - expected).powi(2) / expected
            })
            .sum();
        let freedom = (places().count() - 1) as f64;
        let bound = freedom + 6.0 * (2.0 * freedom).sqrt() + 20.0;
        assert!(
            statistic < bound,
            "{statistic} for {weights:?} got {counts:?}"
        );
    }
}

/// Members with these weights; their ids differ.
pub(super) fn members(weights: &[u32]) -> Vec<Member> {
    let places = 0_u64..;
    let pairs = weights.iter().zip(places);
    pairs
        .map(|(weight, place)| Member {
            id: hash_key(&place.to_le_bytes()),
            weight: *weight,
        })
        .collect()
}
