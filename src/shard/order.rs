//! From the head of a request to what is sent on: parse, check, route, rewrite, all between two
//! waits.
//!
//! Everything that needs the borrowed head happens here. What comes of it is an [`Order`], or a
//! [`Refusal`] for ringmain's own answer; neither borrows from the head.

use super::admit::{Admission, Shed};
use super::buffer::{Buffer, SMALL, Share};
use super::client::Client;
use super::listeners::Under;
use super::{Current, Shard};
use crate::balance;
use crate::fault::Fault;
use crate::http::exchange::RequestFacts;
use crate::http::framing::{Body, BodyLimits, FramingError};
use crate::http::head::{FieldSpace, HeadLimits, Request};
use crate::http::hop::{RequestHop, write_request};
use crate::http::reply::Reply;
use crate::plan::{Listener, ServiceIndex};

/// What an exchange has to know of a request that was understood.
#[derive(Debug)]
pub(super) struct Routed {
    /// Where it goes.
    pub(super) service: ServiceIndex,
    /// The hash of what the policy of the service tells requests apart by; 0 where it does not.
    pub(super) key: u64,
    /// What decides how its answer is framed and whether it may be sent once more.
    pub(super) facts: RequestFacts,
    /// The protocols that it offers to go on in, if any.
    pub(super) offer: Option<Box<[u8]>>,
}

/// What is sent to an endpoint.
#[derive(Debug)]
pub(super) struct Order {
    /// As long as it is held, the exchange counts against the limits of the service; `None` where
    /// that has none, and when a tunnel has taken it over.
    pub(super) admission: Option<Admission>,
    /// The rewritten head and what was already here of the body; what comes later of it too, as
    /// long as all of it is kept. When the answer was a 101, what came behind that.
    pub(super) outbox: Buffer,
    /// The framing of the body, past what has come of it.
    pub(super) body: Body,
    /// How many bytes of the body, framing included, have come.
    body_bytes: usize,
    /// What is kept of them, besides what came with the head; `None` where not all is.
    kept: Option<Share>,
    /// The most that is kept.
    kept_max: usize,
    /// Its client was told by ringmain to go on.
    pub(super) told: bool,
}

/// A request that is answered by ringmain itself.
#[derive(Debug)]
pub(super) struct Refusal {
    /// `None` where it is no fault: an OPTIONS that is to be forwarded no further.
    pub(super) fault: Option<Fault>,
    /// `None` when the request did not get as far as a service.
    pub(super) service: Option<ServiceIndex>,
    /// The shape of the answer, as far as the request says.
    pub(super) reply: Reply,
    /// True exactly when nothing of the request is left to be read.
    pub(super) whole: bool,
}

/// What the rewriting adds to a head at most, the operator's edits aside: a guess that only picks
/// the class of a buffer.
const REWRITE_BYTES: usize = 512;

/// Understands the head of `length` bytes at the front of `inbox`: its framing, its service, what
/// is sent on. Takes what is here of this request out of `inbox`.
pub(super) fn order(
    shard: &Shard,
    under: &Under,
    client: &Client,
    inbox: &mut Buffer,
    length: usize,
) -> Result<(Routed, Order), Refusal> {
    let (current, listener) = (&*under.current, under.listener());
    let (head, rest) = inbox.filled().split_at(length);
    let mut space = FieldSpace::new();
    let request = Request::parse(head, &head_limits(listener), &mut space)
        .map_err(|error| Refusal::of_head(error.request_fault(), head))?;
    let facts = request.facts();
    let service = route(shard, current, listener, &request);
    let refuse_framing = |error: FramingError| {
        let fault = error.request_fault();
        Refusal {
            fault: Some(fault),
            service,
            reply: Reply::to(&facts),
            whole: false,
        }
    };
    let mut body = Body::new(request.body, body_limits(listener)).map_err(refuse_framing)?;
    if let Some(nominations) = request.nominations() {
        body.nominate(nominations);
    }
    let here = body.pass(rest).map_err(refuse_framing)?;

    let mut reply = Reply::to(&facts);
    let admitted = match service {
        // RFC 9110 section 7.6.2. A TRACE would be reflected, which we do not.
        _ if request.max_forwards == Some(0) => {
            Err((request.method == b"TRACE").then_some(Fault::RequestUnsupported))
        }
        _ if request.passed_through(&current.plan().via) => Err(Some(Fault::LoopDetected)),
        None => Err(Some(not_found(shard, &request))),
        Some(service) => match admit(shard, current, client, service) {
            Ok(admission) => Ok((service, admission)),
            Err(shed) => {
                reply.retry_after = shed.retry_after;
                Err(Some(shed.limit.fault()))
            }
        },
    };
    let (service, admission) = match admitted {
        Ok(admitted) => admitted,
        Err(fault) => {
            inbox.consume(length + here.taken);
            let whole = body.is_done();
            return Err(Refusal {
                fault,
                service,
                reply,
                whole,
            });
        }
    };
    let mut outbox = shard.stock.sized(length + REWRITE_BYTES + here.taken);
    let to = current.plan().service(service);
    let offer = match to.fanout {
        None => request.offer(),
        // One connection can't go on in another protocol at several endpoints.
        Some(_) => None,
    };
    let generator = &mut shard.generator.borrow_mut();
    let hop = RequestHop {
        client: client.address.as_str(),
        via: &current.plan().via,
        request_id: balance::draw_id(generator),
        edits: &to.request_edits,
        repeated: to.fanout.map(|_| balance::draw_id(generator)),
    };
    let key = key(current, client, service, &request);
    write_request(outbox.tail(), &request, &hop);
    outbox.tail().extend_from_slice(&rest[..here.send]);
    if let Some(trailers) = body.take_trailers() {
        trailers.write(outbox.tail(), hop.edits, None);
    }
    inbox.consume(length + here.taken);
    let kept_max = to.retry.replayed_bytes_max;
    let replayable = facts.idempotent && (here.taken == 0 || here.taken <= kept_max);
    let mut share = shard.stock.share();
    let has_room = outbox.capacity() <= SMALL || share.resize_kept(outbox.capacity());
    let order = Order {
        admission,
        outbox,
        body,
        body_bytes: here.taken,
        kept: (replayable && has_room).then_some(share),
        kept_max,
        told: false,
    };
    let routed = Routed {
        service,
        key,
        facts,
        offer,
    };
    Ok((routed, order))
}

/// What the limits of its service say of a request, or of a session of TCP.
pub(super) fn admit(
    shard: &Shard,
    current: &Current,
    client: &Client,
    service: ServiceIndex,
) -> Result<Option<Admission>, Shed> {
    let Some(limiter) = current.limiter(service) else {
        return Ok(None);
    };
    let limits = &current.plan().service(service).limits;
    let counters = &current.tally(service).counters;
    let now = shard.clock.turn().began();
    let admitted = limiter.admit(limits, client.key, now, counters);
    admitted.map(Some).inspect_err(|shed| {
        let (client, limit) = (client.address.as_str(), shed.limit.label());
        log::debug!(client, limit; "shed");
    })
}

/// What the policy of its service hashes of a request, where it does.
fn key(current: &Current, client: &Client, service: ServiceIndex, request: &Request<'_>) -> u64 {
    let service = current.plan().service(service);
    if !service.policy.keyed {
        return 0;
    }
    let client = client.address.as_str();
    balance::hash_key(service.hash_key.bytes(request, client))
}

fn not_found(shard: &Shard, request: &Request<'_>) -> Fault {
    let mut not_found = shard.not_found.borrow_mut();
    not_found.note(request.host, request.path);
    log::debug!(host = not_found.host, path = not_found.path; "destination_not_found");
    Fault::DestinationNotFound
}

/// The service that a request is for. Where the listener's parameter is present it stands for the
/// Host, and nothing else does.
fn route(
    shard: &Shard,
    current: &Current,
    listener: &Listener,
    request: &Request<'_>,
) -> Option<ServiceIndex> {
    let generator = &mut shard.generator.borrow_mut();
    let routes = &current.plan().routes;
    let parameter = listener.service_parameter.as_deref();
    match parameter.and_then(|name| request.parameter(name.as_bytes())) {
        Some(domain) => routes.find(domain, request, generator),
        None => routes
            .find(request.host, request, generator)
            .or(listener.service),
    }
}

impl Order {
    /// True exactly when no more of the request is to come.
    pub(super) fn is_at_hand(&self) -> bool {
        self.body.is_done()
    }

    /// True exactly when all that has come of the request is in `outbox` and may be sent once more.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// How many bytes of the body, framing included, have come.
    pub(super) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// True exactly when the client has sent nothing of its body and waits to be told to.
    pub(super) fn is_withheld(&self, facts: &RequestFacts) -> bool {
        facts.expects_continue && self.body_bytes == 0 && !self.told
    }

    /// Keeps `bytes` of the body that have come behind what is in `outbox`. False where nothing is
    /// kept any more, neither these nor those before.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> bool {
        self.body_bytes += bytes.len();
        let within = self.body_bytes <= self.kept_max;
        let has_room = |share: &mut Share| share.resize_kept(share.bytes() + bytes.len());
        if within && self.kept.as_mut().is_some_and(has_room) {
            self.outbox.tail().extend_from_slice(bytes);
            return true;
        }
        if self.kept.take().is_some() {
            self.outbox = Buffer::default();
        }
        false
    }
}

impl Refusal {
    /// A head that was not understood and begins with `bytes`: what follows it on the connection is
    /// never read as a request.
    pub(super) fn of_head(fault: Fault, bytes: &[u8]) -> Self {
        Self {
            fault: Some(fault),
            service: None,
            reply: Reply::to_head(bytes),
            whole: false,
        }
    }
}

pub(super) fn head_limits(listener: &Listener) -> HeadLimits {
    let limits = &listener.limits;
    HeadLimits {
        bytes_max: limits.head_bytes_max,
        fields_max: limits.fields_max,
    }
}

fn body_limits(listener: &Listener) -> BodyLimits {
    let limits = &listener.limits;
    BodyLimits {
        bytes_max: limits.body_bytes_max,
        trailer_bytes_max: limits.trailer_bytes_max,
    }
}
