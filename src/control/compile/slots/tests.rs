//! Endpoints that come and go over any sequence of plans: what holds of their slots.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use crate::config::{self, BackendAddress, Config};
use crate::control::compile::{Live, Resolved, compile};
use crate::plan::{Plan, Slot};

/// Two services with a name each.
const CONFIG: &str = r#"
    [[listener]]
    name = "web"
    address = "127.0.0.1:8080"
    service = "a"
    [[service]]
    name = "a"
    backends = ["127.0.0.1:1", "a.test:80"]
    [[service]]
    name = "b"
    backends = ["b.test:80"]
"#;

/// The endpoints of a plan: by service and address, the slot.
type Endpoints = HashMap<(String, std::net::SocketAddr), Slot>;

/// The plans that follow one another as the names stand for the hosts in `turns`.
fn plans(turns: &[[Vec<u8>; 2]]) -> Vec<Plan> {
    let config: Config = config::parse("config.toml", CONFIG).expect("the text breaks no rule");
    let mut plans: Vec<Plan> = Vec::new();
    for (generation, hosts) in (1..).zip(turns) {
        let names = ["a.test", "b.test"].into_iter().zip(hosts);
        let resolved = names.map(|(name, hosts)| {
            let found = hosts.iter().map(|host| Resolved {
                address: ([127, 0, 1, *host], 80).into(),
                weight: 1,
                backup: false,
            });
            let name = BackendAddress::Host(name.to_owned(), 80);
            (name, found.collect())
        });
        let live = Live {
            generation,
            resolved: resolved.collect(),
            ..Live::new(1, 1_064)
        };
        plans.push(compile(&config, &live, plans.last()));
    }
    plans
}

fn endpoints(plan: &Plan) -> Endpoints {
    let services = plan.services.iter();
    let endpoints = services.flat_map(|service| {
        let name = service.name.to_string();
        let endpoints = service.endpoints.iter();
        endpoints.map(move |endpoint| ((name.clone(), endpoint.address), endpoint.slot))
    });
    endpoints.collect()
}

fn turns() -> impl Strategy<Value = Vec<[Vec<u8>; 2]>> {
    let hosts = || prop::collection::btree_set(0..12_u8, 0..10);
    let turn = [hosts(), hosts()].prop_map(|turn| turn.map(Vec::from_iter));
    prop::collection::vec(turn, 1..30)
}

proptest! {
    #[test]
    fn slots_are_kept_and_never_shared(turns in turns()) {
        let plans = plans(&turns);
        let mut last = Endpoints::new();
        let mut met = HashSet::new();
        let mut most = 0;
        for plan in &plans {
            let now = endpoints(plan);
            let indices: HashSet<u32> = now.values().map(|slot| slot.index).collect();
            prop_assert_eq!(indices.len(), now.len(), "an index has one endpoint");
            for (endpoint, slot) in &now {
                // The number of the tenant is that of the index.
                prop_assert_eq!(plan.slots[slot.index as usize], slot.tenant);
                match last.get(endpoint) {
                    Some(had) => prop_assert_eq!(had, slot, "who stays keeps its slot"),
                    None => prop_assert!(met.insert((slot.index, slot.tenant)), "a new tenant"),
                }
            }
            // Who comes gets a slot that the plan before did not use.
            let had: HashSet<u32> = last.values().map(|slot| slot.index).collect();
            let fresh = now.iter().filter(|(endpoint, _)| !last.contains_key(*endpoint));
            for (_, slot) in fresh {
                prop_assert!(!had.contains(&slot.index));
            }
            let both = last.keys().chain(now.keys()).collect::<HashSet<_>>().len();
            most = most.max(both);
            prop_assert!(plan.slots.len() <= most, "no more than two plans need");
            last = now;
        }
    }
}

#[test]
fn a_thousand_changes_take_no_more_slots_than_two_plans() {
    let turns: Vec<_> = (0..1_000_u32)
        .map(|turn| [vec![(turn % 250) as u8], Vec::new()])
        .collect();
    let plans = plans(&turns);
    let last = plans.last().expect("there are plans");
    assert_eq!(last.slots.len(), 3, "one that stays, and two by turns");
}
