//! Which endpoint an exchange goes to: the tiers of its service, without those that failed it,
//! those that are ejected and those that are full.
//!
//! The tiers come in their order, and of each only what is in. Where the first tier that has an
//! endpoint for the exchange has none with room, the exchange waits: what is behind it is for
//! when it is gone, not for when it is busy. Where no tier has one, an endpoint is used again that
//! has failed the exchange but may be repeated; and where there is none either, those that are
//! ejected are used, which is counted: an answer that may fail is better than none.

use super::exchange::Exchange;
use super::service::{Member, RunningService};
use super::tries::Tries;
use crate::balance::{Candidates, Load};
use crate::plan::{Endpoint, Tier};

/// What came of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The endpoint at this place of the service.
    Picked(usize),
    /// Those that it may use are full.
    Full,
    /// There is none that it may use.
    Nobody,
}

/// Which endpoints may be used, beyond those that are in and have not failed the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scope {
    /// Also those that have failed it, unless they could not be connected to.
    failed: bool,
    /// Also those that the shard has ejected.
    ejected: bool,
}

/// The scopes, the best first.
const SCOPES: [Scope; 4] = [
    Scope {
        failed: false,
        ejected: false,
    },
    Scope {
        failed: true,
        ejected: false,
    },
    Scope {
        failed: false,
        ejected: true,
    },
    Scope {
        failed: true,
        ejected: true,
    },
];

/// A tier, as the picker asks of it.
#[derive(Debug)]
struct Scene<'a> {
    exchange: &'a Exchange<'a>,
    tier: &'a Tier,
    tries: &'a Tries,
    scope: Scope,
    /// When it is asked whether they are ejected; `None` where none is, or that does not matter.
    tick: Option<u32>,
}

/// An endpoint for the next try of `exchange`.
pub(super) fn choose(exchange: &Exchange<'_>, tries: &mut Tries) -> Choice {
    for scope in scopes(tries) {
        for (tier, picker) in exchange.service.tiers.iter().zip(&exchange.running.pickers) {
            let scene = Scene::new(exchange, tries, tier, scope);
            let mut generator = exchange.shard.generator.borrow_mut();
            if let Some(place) = picker.borrow_mut().pick(&scene, &mut generator) {
                if scope.ejected {
                    tries.fails_open(exchange);
                }
                return Choice::Picked(tier.places[place] as usize);
            }
            if scene.has_limit() && scene.has_usable() {
                return Choice::Full;
            }
        }
    }
    Choice::Nobody
}

/// True exactly when the endpoint at `place` of the service is one that the exchange, which has
/// waited for room, would be sent to.
pub(super) fn would_choose(exchange: &Exchange<'_>, tries: &Tries, place: usize) -> bool {
    for scope in scopes(tries) {
        for tier in &exchange.service.tiers {
            let scene = Scene::new(exchange, tries, tier, scope);
            if scene.has_usable() {
                let is_it = |at: &usize| tier.places[*at] as usize == place;
                let at = (0..tier.places.len()).find(is_it);
                return at.is_some_and(|at| scene.is_usable(at));
            }
        }
    }
    false
}

fn scopes(tries: &Tries) -> impl Iterator<Item = Scope> + use<> {
    let may_repeat = tries.may_repeat();
    let scopes = SCOPES.into_iter();
    scopes.filter(move |scope| may_repeat || !scope.failed)
}

impl<'a> Scene<'a> {
    fn new(exchange: &'a Exchange<'a>, tries: &'a Tries, tier: &'a Tier, scope: Scope) -> Self {
        Self {
            exchange,
            tier,
            tries,
            scope,
            tick: (!scope.ejected && exchange.has_ejected()).then(|| exchange.shard.clock.tick()),
        }
    }

    fn has_limit(&self) -> bool {
        self.exchange.service.pool.shard_connections_max.is_some()
    }

    fn member(&self, place: usize) -> &Member {
        let RunningService { members, .. } = &**self.exchange.running;
        &members[self.tier.places[place] as usize]
    }

    /// True exactly when there is one that the exchange may use, be it full or not.
    fn has_usable(&self) -> bool {
        (0..self.tier.places.len()).any(|place| self.is_usable(place))
    }

    /// True exactly when the exchange may use it, be it full or not.
    fn is_usable(&self, place: usize) -> bool {
        let in_service = self.tier.places[place];
        let is_out = match self.scope.failed {
            true => self.tries.has_refused(in_service),
            false => self.tries.has_failed(in_service),
        };
        let is_ejected = |tick| self.member(place).ejection.is_out(tick);
        !is_out && !self.tick.is_some_and(is_ejected)
    }

    fn has_room(&self, place: usize) -> bool {
        let Exchange { service, shard, .. } = self.exchange;
        let limit = service.pool.shard_connections_max;
        limit.is_none_or(|limit| {
            let endpoint: &Endpoint = &service.endpoints[self.tier.places[place] as usize];
            shard.pool.has_room(endpoint, limit)
        })
    }
}

impl Candidates for Scene<'_> {
    fn is_in(&self, place: usize) -> bool {
        self.is_usable(place) && self.has_room(place)
    }

    fn load(&self, place: usize) -> &Load {
        &self.member(place).load
    }

    fn now(&self) -> u64 {
        self.exchange.shard.clock.turn().began()
    }

    fn key(&self) -> u64 {
        self.exchange.key
    }
}
