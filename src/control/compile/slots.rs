//! Slots for the endpoints of a plan: who had one keeps it, others get one that the plan before did
//! not use.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::plan::{Plan, Slot};

/// The slots of a plan that is being made.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    /// By service and address.
    had: HashMap<(&'a str, SocketAddr), Slot>,
    /// As [`Plan::slots`].
    tenants: Vec<u32>,
    /// Indices that nobody had, descending.
    free: Vec<u32>,
}

impl<'a> Slots<'a> {
    /// Of the plan that follows `last`.
    pub(super) fn after(last: Option<&'a Plan>) -> Self {
        let services = last.iter().flat_map(|last| &last.services);
        let had = services.flat_map(|service| {
            let endpoints = service.endpoints.iter();
            endpoints.map(|endpoint| ((&*service.name, endpoint.address), endpoint.slot))
        });
        let had: HashMap<_, _> = had.collect();
        let tenants = last.map_or_else(Vec::new, |last| last.slots.to_vec());
        let mut is_free = vec![true; tenants.len()];
        for slot in had.values() {
            is_free[slot.index as usize] = false;
        }
        let free = (0..).zip(is_free).filter(|(_, is_free)| *is_free);
        let mut free: Vec<u32> = free.map(|(index, _)| index).collect();
        free.reverse();
        Self { had, tenants, free }
    }

    /// That of the endpoint at `address` of `service`.
    pub(super) fn of(&mut self, service: &str, address: SocketAddr) -> Slot {
        // Lifetimes of keys: a map borrows what it is asked for as long as what it holds.
        let had: &HashMap<(&str, SocketAddr), Slot> = &self.had;
        if let Some(slot) = had.get(&(service, address)) {
            return *slot;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.tenants.push(0);
            self.tenants.len() as u32 - 1
        });
        let tenant = &mut self.tenants[index as usize];
        *tenant = tenant.wrapping_add(1).max(1);
        Slot {
            index,
            tenant: *tenant,
        }
    }

    /// [`Plan::slots`] of the plan that was made.
    pub(super) fn finish(self) -> Box<[u32]> {
        self.tenants.into()
    }
}

#[cfg(test)]
mod tests;
