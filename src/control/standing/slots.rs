//! Whose a slot is: shards name an endpoint by its slot, control by its service and its address.
//!
//! A notice may speak of a plan that was replaced meanwhile; the slot's tenant tells an endpoint
//! that has left from the one that came after it.

use std::sync::Arc;

use super::Place;
use crate::plan::{Plan, Slot};

/// The endpoints of a plan by their slots; made anew when another plan is asked for.
#[derive(Debug, Default)]
pub struct SlotPlaces {
    /// 0 before the first.
    generation: u64,
    /// By the index of a slot: the places of its service and of its endpoint in the plan.
    by_index: Vec<Option<(u32, u32)>>,
}

impl SlotPlaces {
    /// The endpoint that has `slot` in `plan`.
    pub fn find(&mut self, plan: &Plan, slot: Slot) -> Option<Place> {
        if self.generation != plan.generation {
            self.learn(plan);
        }
        let (service, endpoint) = (*self.by_index.get(slot.index as usize)?)?;
        let service = &plan.services[service as usize];
        let endpoint = &service.endpoints[endpoint as usize];
        (endpoint.slot == slot).then(|| Place {
            service: Arc::from(&*service.name),
            address: endpoint.address,
        })
    }

    fn learn(&mut self, plan: &Plan) {
        self.generation = plan.generation;
        self.by_index.clear();
        self.by_index.resize(plan.slots.len(), None);
        for (service, found) in (0..).zip(&plan.services) {
            for (endpoint, found) in (0..).zip(&found.endpoints) {
                self.by_index[found.slot.index as usize] = Some((service, endpoint));
            }
        }
    }
}
