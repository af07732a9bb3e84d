//! Plans that follow one another, and connections that end under an older one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use monoio::{LegacyDriver, RuntimeBuilder};

use super::*;
use crate::plan::Life;
use crate::shard::deadline::Wheel;

/// The pool of a shard, on the driver of epoll, whose streams need no ring.
fn with_pool(act: impl FnOnce(&Pool, &Peer)) {
    let runtime = RuntimeBuilder::<LegacyDriver>::new().build();
    runtime.expect("epoll works").block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let peer = Peer {
            listener,
            wheel: Wheel::new(),
        };
        act(&Pool::default(), &peer);
    });
}

/// Who all connections lead to.
struct Peer {
    listener: TcpListener,
    wheel: Rc<Wheel>,
}

impl Peer {
    /// A connection, and its other end.
    fn connect(&self) -> (Stream, TcpStream) {
        let address = self.listener.local_addr().expect("it is bound");
        let ours = TcpStream::connect(address).expect("it listens");
        let (theirs, _) = self.listener.accept().expect("it was connected to");
        let stream = Stream::from_accepted(ours, &self.wheel);
        (stream.expect("epoll takes it"), theirs)
    }
}

/// A plan with a service of endpoints on ports, each with its slot.
fn plan(endpoints: &[(u16, plan::Slot)], slots: u32) -> Plan {
    let addresses: Vec<SocketAddr> = endpoints
        .iter()
        .map(|(port, _)| ([127, 0, 0, 1], *port).into())
        .collect();
    let mut service = Service::over("a", &addresses);
    for (endpoint, (_, slot)) in service.endpoints.iter_mut().zip(endpoints) {
        endpoint.slot = *slot;
    }
    Plan {
        generation: 1,
        life: Life::Serving,
        via: "ringmain-test".into(),
        shard_connections_max: 1,
        listeners: [].into(),
        services: [Arc::new(service)].into(),
        routes: Arc::default(),
        slots: vec![0; slots as usize].into(),
    }
}

const fn slot(index: u32, tenant: u32) -> plan::Slot {
    plan::Slot { index, tenant }
}

fn endpoint(plan: &Plan, place: usize) -> &Endpoint {
    &plan.services[0].endpoints[place]
}

fn limits(plan: &Plan) -> PoolLimits {
    plan.services[0].pool
}

#[test]
fn an_endpoint_that_stays_keeps_its_connections() {
    with_pool(|pool, peer| {
        let first = plan(&[(1, slot(0, 1)), (2, slot(1, 1))], 2);
        pool.adopt(&first);
        let (stream, _theirs) = peer.connect();
        let one = endpoint(&first, 0);
        assert!(pool.put(one, (stream, pool.seat(one)), 0, limits(&first)));
        // The other one goes, a third comes, and the order is another.
        let second = plan(&[(3, slot(2, 1)), (1, slot(0, 1))], 3);
        assert_eq!(pool.adopt(&second), 0);
        assert!(pool.take(endpoint(&second, 1)).kept.is_some());
    });
}

#[test]
fn the_idle_connections_of_an_endpoint_that_is_gone_are_closed() {
    // Whether its slot has another tenant at once, or none.
    for next in [plan(&[(2, slot(0, 2))], 1), plan(&[(2, slot(1, 1))], 2)] {
        with_pool(|pool, peer| {
            let first = plan(&[(1, slot(0, 1))], 1);
            pool.adopt(&first);
            let one = endpoint(&first, 0);
            let (stream, theirs) = peer.connect();
            assert!(pool.put(one, (stream, pool.seat(one)), 0, limits(&first)));
            assert_eq!(pool.adopt(&next), 1);
            assert!(!fd::is_quiet(theirs.as_raw_fd()), "closed");
            assert!(pool.take(one).kept.is_none());
        });
    }
}

#[test]
fn an_exchange_of_an_older_plan_does_not_meet_the_next_tenant() {
    with_pool(|pool, peer| {
        let older = plan(&[(1, slot(0, 1))], 1);
        pool.adopt(&older);
        let gone = endpoint(&older, 0);
        let seat = pool.seat(gone);
        let newer = plan(&[(2, slot(0, 2))], 1);
        pool.adopt(&newer);
        let next = endpoint(&newer, 0);
        let (idle, _theirs) = peer.connect();
        assert!(pool.put(next, (idle, pool.seat(next)), 0, limits(&newer)));
        // It takes nothing that is the next one's,
        let taken = pool.take(gone);
        assert!(taken.kept.is_none() && taken.stale == 0);
        assert_eq!(pool.weed(gone, NonZeroU32::new(1)).closed, 0);
        // and leaves nothing there.
        let (late, theirs) = peer.connect();
        assert!(!pool.put(gone, (late, seat), 0, limits(&older)));
        assert!(!fd::is_quiet(theirs.as_raw_fd()), "closed");
        assert!(pool.take(next).kept.is_some(), "its own");
        assert!(pool.take(next).kept.is_none(), "and no other");
    });
}

#[test]
fn seats_of_an_endpoint_that_is_gone_do_not_count_for_the_next_tenant() {
    with_pool(|pool, _peer| {
        let one = NonZeroU32::MIN;
        let older = plan(&[(1, slot(0, 1))], 1);
        pool.adopt(&older);
        let gone = endpoint(&older, 0);
        let seat = pool.seat(gone);
        assert!(!pool.has_seat(gone, one));
        let newer = plan(&[(2, slot(0, 2))], 1);
        pool.adopt(&newer);
        let next = endpoint(&newer, 0);
        assert!(pool.has_seat(next, one));
        // At one that is gone there is no limit: nobody new is sent there.
        assert!(pool.has_seat(gone, one));
        let late = pool.seat(gone);
        assert!(pool.has_seat(next, one));
        let own = pool.seat(next);
        drop((seat, late));
        assert!(!pool.has_seat(next, one), "they free only their own");
        drop(own);
        assert!(pool.has_seat(next, one));
    });
}

#[test]
fn connections_that_were_being_opened_ahead_do_not_count_for_the_next_tenant() {
    with_pool(|pool, _peer| {
        let older = plan(&[(1, slot(0, 1))], 1);
        pool.adopt(&older);
        pool.opens(slot(0, 1));
        assert_eq!(pool.missing(endpoint(&older, 0), 2), 1);
        let newer = plan(&[(2, slot(0, 2))], 1);
        pool.adopt(&newer);
        assert_eq!(pool.missing(endpoint(&newer, 0), 2), 2);
        pool.opened(slot(0, 1), false);
        assert_eq!(pool.missing(endpoint(&newer, 0), 2), 2);
        assert_eq!(pool.missing(endpoint(&older, 0), 2), 0, "nobody wants them");
    });
}

#[test]
fn many_tenants_one_after_the_other_take_no_more_room() {
    with_pool(|pool, _peer| {
        for tenant in 1..1_000 {
            pool.adopt(&plan(&[(1, slot(0, tenant))], 1));
        }
        assert_eq!(pool.slots.borrow().len(), 1);
        assert_eq!(pool.queues.borrow().len(), 1);
    });
}
