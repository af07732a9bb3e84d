//! Which endpoints of a service are picked from, and in which order of groups.

use crate::balance::{Member, hash_key};
use crate::plan::{Endpoint, Tier};

/// Those of `endpoints` that are picked from; and whether that is because none is in.
pub(super) fn tiers(endpoints: &[Endpoint], fail_open: bool) -> (Box<[Tier]>, bool) {
    let of = |is_member: &dyn Fn(&Endpoint) -> bool| {
        let members = (0..).zip(endpoints);
        let members = members.filter(|(_, endpoint)| is_member(endpoint));
        let member = |(place, endpoint): (u32, &Endpoint)| {
            let id = hash_key(endpoint.name.as_bytes());
            let weight = endpoint.weight * endpoint.ramp;
            (place, Member { id, weight })
        };
        let (places, mut members): (Vec<_>, Vec<_>) = members.map(member).unzip();
        drop_common_divisor(&mut members);
        (!places.is_empty()).then(|| Tier::new(places.into(), members.into()))
    };
    let is_in = |endpoint: &Endpoint| endpoint.standing.is_in();
    let ordinary = of(&|endpoint| is_in(endpoint) && !endpoint.backup);
    let backups = of(&|endpoint| is_in(endpoint) && endpoint.backup);
    let tiers: Vec<Tier> = ordinary.into_iter().chain(backups).collect();
    if !tiers.is_empty() || !fail_open {
        return (tiers.into(), false);
    }
    let all = of(&|endpoint| endpoint.standing.is_last_resort());
    let fails_open = all.is_some();
    (all.into_iter().collect(), fails_open)
}

/// The same proportions in the least numbers, which make the shortest cycle of a round robin.
fn drop_common_divisor(members: &mut [Member]) {
    fn common(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { common(b, a % b) }
    }
    let weights = members.iter().map(|member| member.weight);
    let divisor = weights.fold(0, common).max(1);
    for member in members {
        member.weight /= divisor;
    }
}
