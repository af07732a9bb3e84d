//! Whether clients may be sent here: what orchestrators and load balancers ask for.

use axum::http::StatusCode;

use super::super::admin::Reply;
use super::shards::ShardLife;
use super::{Control, FIRST};
use crate::config;

impl Control {
    /// What is said to who asks; with `service`, whether clients may be sent here for that one.
    pub(super) fn readiness(&self, service: Option<&str>) -> Reply {
        let endpoints = service.map(|name| self.endpoints_of(name)).transpose();
        let endpoints = match endpoints {
            Ok(endpoints) => endpoints,
            Err(unknown) => return unknown,
        };
        match (self.unready(), endpoints) {
            (Some(reason), _) => unavailable(&reason),
            (None, Some(Err(reason))) => unavailable(&reason),
            (None, Some(Ok(text))) => Reply::new(StatusCode::OK, text),
            (None, None) => Reply::new(StatusCode::OK, "ready"),
        }
    }

    /// Why no clients should be sent here; `None`: every listener accepts, and every shard has run
    /// a plan. A shard that has died alone is no reason: others accept from its sockets until it is
    /// back, some milliseconds later, and whoever looks just then would take all of them out.
    pub(super) fn unready(&self) -> Option<String> {
        if self.is_leaving() {
            return Some("draining".to_owned());
        }
        if !self.shards.iter().any(ShardLife::runs) {
            return Some("no shard runs".to_owned());
        }
        match self.crash_looping() {
            0 => {}
            1 => return Some("a shard dies again and again".to_owned()),
            shards => return Some(format!("{shards} shards die again and again")),
        }
        if self.live.held {
            return Some("starting: another process still serves in its place".to_owned());
        }
        (!self.ready && !self.publisher.adopted_by_all(FIRST))
            .then(|| "starting: not every shard has adopted its first plan".to_owned())
    }

    /// Whether an endpoint of the service is in, in words. The outer error is an answer by itself.
    fn endpoints_of(&self, name: &str) -> Result<Result<String, String>, Reply> {
        let place = self.service_at(name)?;
        let Some(posted) = self.publisher.current() else {
            return Ok(Err("starting".to_owned()));
        };
        let service = &posted.plan.services[place];
        let all = service.endpoints.len();
        let are_in = service.endpoints.iter();
        let are_in = are_in.filter(|it| it.standing.is_in()).count();
        let text = format!("service {name:?}: {are_in} of {all} endpoints are in");
        if 0 < are_in {
            return Ok(Ok(format!("ready; {text}")));
        }
        let open = if service.fails_open {
            "; it fails open, and all are used"
        } else {
            ""
        };
        Ok(Err(format!("{text}{open}")))
    }

    /// The place of the service `name` in the configuration.
    pub(super) fn service_at(&self, name: &str) -> Result<usize, Reply> {
        let services = self.config.services();
        let names = || services.iter().map(|service| service.name.as_str());
        let place = names().position(|it| it == name);
        place.ok_or_else(|| no_such("service", name, names()))
    }
}

/// That there is none of this name, with the one that may be meant.
pub(super) fn no_such<'a>(what: &str, name: &str, names: impl Iterator<Item = &'a str>) -> Reply {
    let near = config::nearest(name, names);
    let near = near.map_or_else(String::new, |near| format!("; the nearest is {near:?}"));
    let text = format!("there is no {what} {name:?}{near}");
    Reply::new(StatusCode::NOT_FOUND, text)
}

fn unavailable(reason: &str) -> Reply {
    let text = format!("not ready: {reason}");
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, text)
}
