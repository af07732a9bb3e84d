//! Plans that follow each other on a shard, without its thread.

use std::num::NonZeroU32;

use super::*;
use crate::balance;
use crate::door::{Publisher, door};
use crate::plan::{Life, Routes};

/// What a shard has from plan to plan.
struct Adopting {
    publisher: Publisher,
    tallies: tallies::Tallies,
    members: Members,
    listeners: Listeners,
    generator: Xorshift,
    last: Option<Current>,
}

impl Adopting {
    fn new() -> Self {
        Self {
            publisher: door(1).0,
            tallies: tallies::Tallies::default(),
            members: Members::default(),
            listeners: Listeners::default(),
            generator: balance::generator(),
            last: None,
        }
    }

    /// Adopts a plan of these services.
    fn adopt(&mut self, services: &[Arc<Service>]) -> &Current {
        self.publisher.publish(Plan {
            generation: self.publisher.generation() + 1,
            life: Life::Serving,
            via: "test".into(),
            shard_connections_max: 1,
            listeners: [].into(),
            services: services.into(),
            routes: Arc::new(Routes::default()),
            slots: [].into(),
        });
        let posted = Arc::clone(self.publisher.current().unwrap());
        let had = (&self.tallies, &self.members, &self.listeners);
        let last = self.last.take();
        let next = Current::new(posted, 0, last.as_ref(), had, &mut self.generator);
        self.last.insert(next)
    }
}

/// A service that lets in so many exchanges at once; 0 is no limit.
fn service(name: &str, concurrent: u32) -> Arc<Service> {
    let mut service = Service::over(name, &[([127, 0, 0, 1], 1).into()]);
    service.limits.shard_concurrent = NonZeroU32::new(concurrent);
    Arc::new(service)
}

#[test]
fn a_service_goes_on_with_what_it_has_wherever_it_stands() {
    let mut adopting = Adopting::new();
    let (a, b) = (service("a", 1), service("b", 0));
    let first = adopting.adopt(&[Arc::clone(&a), b, service("c", 2)]);
    let running: Vec<_> = first.running.iter().map(Rc::clone).collect();
    assert!(running[0].limiter.is_some() && running[1].limiter.is_none());
    // `c` and `b` have changed, `a` has moved, and `d` is new.
    let services = [service("c", 0), service("b", 1), service("d", 1), a];
    let next = adopting.adopt(&services);
    assert!(Rc::ptr_eq(&next.running[3], &running[0]), "it is the same");
    for (had, has) in [(2, 0), (1, 1)] {
        assert!(Rc::ptr_eq(&next.running[has].kept, &running[had].kept));
    }
    assert!(next.running[0].limiter.is_none());
    let limiter = next.running[1].limiter.as_ref().unwrap();
    assert!(Rc::ptr_eq(limiter, &running[1].kept.limiter));
    for had in &running {
        assert!(!Rc::ptr_eq(&next.running[2].kept, &had.kept));
    }
}
