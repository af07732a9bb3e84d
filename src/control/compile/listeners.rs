//! The listeners of a plan, and which shard accepts from which of their sockets.

use std::collections::HashMap;
use std::iter;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use super::{BoundListener, Live, bytes, non_empty, share};
use crate::config::{self, Config};
use crate::plan::listener::{ListenerLimits, ListenerTimeouts};
use crate::plan::{Listener, ListenerId, ListeningSocket, ServiceIndex, Ticks};

/// Those of the configuration, and those that leave.
pub(super) fn listeners<'a>(
    config: &'a Config,
    live: &'a Live,
    indices: &'a HashMap<&str, ServiceIndex>,
) -> impl Iterator<Item = Listener> + use<'a> {
    let bound = live.bound.iter().map(Some).chain(iter::repeat(None));
    let stay = config.listeners().iter().zip(bound);
    let stay = stay.map(|(written, bound)| (written, bound, true));
    let leaving = live.leaving.iter();
    let leaving = leaving.map(|leaving| (&leaving.written, Some(&leaving.bound), false));
    stay.chain(leaving).map(move |(written, bound, accepting)| {
        let is_own = |bound: &&BoundListener| !live.held && !live.handed_on.contains(&bound.id);
        let own = bound.filter(is_own);
        let sockets = own.map_or_else(Box::default, |bound| shared_out(bound, live));
        let id = bound.map_or(ListenerId(0), |bound| bound.id);
        Listener {
            id,
            accepting,
            sockets,
            ..listener(written, indices, live.shards)
        }
    })
}

/// The sockets of a listener, over the shards that run: each has one, or several, or, where there
/// are more shards than sockets, none.
fn shared_out(bound: &BoundListener, live: &Live) -> Box<[ListeningSocket]> {
    let runs = |shard: &u32| !live.dead.contains(shard);
    let running: Vec<u32> = (0..live.shards).filter(runs).collect();
    let socket = |(place, socket): (usize, &Weak<OwnedFd>)| {
        let own = (place % live.shards.max(1) as usize) as u32;
        // Who stands in for a dead shard has its own as well. With none left they wait for theirs.
        let shard = match running.get(place % running.len().max(1)) {
            Some(other) if !runs(&own) => *other,
            _ => own,
        };
        ListeningSocket {
            shard,
            socket: Weak::clone(socket),
        }
    };
    bound.sockets.iter().enumerate().map(socket).collect()
}

/// Without its sockets.
fn listener(
    written: &config::Listener,
    indices: &HashMap<&str, ServiceIndex>,
    shards: u32,
) -> Listener {
    let config::ListenerLimits {
        connections_max,
        head_bytes_max,
        trailer_bytes_max,
        fields_max,
        body_bytes_max,
    } = written.limits;
    let config::ListenerTimeouts {
        head,
        body_idle,
        keep_alive,
        send_idle,
    } = written.timeouts;
    Listener {
        name: written.name.as_str().into(),
        address: written.address,
        id: ListenerId(0),
        accepting: true,
        sockets: Box::default(),
        protocol: written.protocol,
        proxy_protocol: written.proxy_protocol,
        // Absent, or, where the listener leaves, gone before it.
        service: indices.get(written.service.as_str()).copied(),
        service_parameter: non_empty(&written.service_parameter),
        limits: ListenerLimits {
            shard_connections_max: match connections_max {
                0 => u32::MAX,
                limit => share(limit, shards),
            },
            head_bytes_max: bytes(head_bytes_max),
            trailer_bytes_max: bytes(trailer_bytes_max),
            fields_max: fields_max as usize,
            body_bytes_max: if body_bytes_max == 0 {
                u64::MAX
            } else {
                body_bytes_max
            },
        },
        timeouts: ListenerTimeouts {
            head: Ticks::from_duration(head),
            body_idle: Ticks::from_duration(body_idle),
            keep_alive: Ticks::from_duration(keep_alive),
            send_idle: Ticks::from_duration(send_idle),
        },
    }
}
