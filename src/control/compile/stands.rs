//! Which endpoints the backends of a service stand for now.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{Live, Override};
use crate::config::{self, Backend, BackendAddress};

/// An address that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolved {
    /// Where to connect.
    pub address: SocketAddr,
    /// Its share against the others of its name, `1..=1000`; 1 where the name says nothing of it.
    pub weight: u32,
    /// True exactly when it is to be used only where others of its name are gone.
    pub backup: bool,
}

/// What the backends of a service stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stands {
    /// No address twice.
    pub endpoints: Vec<Stand>,
    /// By backend: the places of its endpoints. What two backends have stands in both.
    pub backends: Vec<Vec<u32>>,
}

/// An endpoint, as its backend has it: the first that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Where to connect.
    pub address: SocketAddr,
    /// `1..=1_000_000`.
    pub weight: u32,
    /// Used only when no other is left.
    pub backup: bool,
    /// Gets nothing new.
    pub drain: bool,
    /// Is expected to be away: gets nothing new, and is not asked whether it is well.
    pub down: bool,
}

impl Stands {
    /// Those of `service` now.
    pub fn of(service: &config::Service, live: &Live) -> Self {
        let mut stands = Self::default();
        let mut places = HashMap::new();
        for backend in &service.backends {
            let state = live.overrides.state(&service.name, backend);
            let mut own = Vec::new();
            for resolved in resolved(backend, live) {
                let place = *places.entry(resolved.address).or_insert_with(|| {
                    stands.endpoints.push(Stand {
                        address: resolved.address,
                        weight: backend.weight * resolved.weight,
                        backup: backend.backup || resolved.backup,
                        drain: state != Override::Ready,
                        down: state == Override::Down,
                    });
                    stands.endpoints.len() as u32 - 1
                });
                own.push(place);
            }
            stands.backends.push(own);
        }
        stands
    }
}

fn resolved<'a>(backend: &Backend, live: &'a Live) -> impl Iterator<Item = Resolved> + use<'a> {
    let (written, found) = match &backend.address {
        BackendAddress::Socket(address) => (Some(*address), &[][..]),
        name => (None, live.resolved.get(name).map_or(&[][..], Vec::as_slice)),
    };
    let written = written.map(|address| Resolved {
        address,
        weight: 1,
        backup: false,
    });
    written.into_iter().chain(found.iter().copied())
}

#[cfg(test)]
mod tests;
