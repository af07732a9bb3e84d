//! What is known of an endpoint, for people.

use std::net::SocketAddr;
use std::time::Instant;

use super::Standings;
use crate::control::compile::Health;

/// What is known of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What probes have said.
    pub health: Health,
    /// Since when they have.
    pub since: Instant,
    /// What the last probe that was news came to; empty where it was good.
    pub reason: String,
    /// How many shards have ejected it.
    pub ejected_by: usize,
}

impl Standings {
    /// What is known of an endpoint; `None` where it is gone.
    pub fn seen(&self, service: &str, address: SocketAddr) -> Option<Seen> {
        let service = self.services.get(service)?;
        let endpoint = &service.endpoints[service.place_of(address)?];
        Some(Seen {
            health: endpoint.health,
            since: endpoint.since,
            reason: endpoint.reason.clone(),
            ejected_by: endpoint.ejected_by.len(),
        })
    }
}
