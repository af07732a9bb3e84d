//! `[[service]]`: a named group of backends with one policy.

mod backend;
mod fanout;
mod health;
mod later;
mod limits;

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::file::Table;
use super::findings::Kind;
use super::value::{Read, duration, integer_in, placed, scalar, text};
use super::{DAY, HOUR, MINUTE, words};
use crate::plan::service::ATTEMPTS_MAX;
use crate::plan::{HashKey, POLICIES, Policy, TICK};
use crate::proxy_protocol::Version;

pub use backend::{Backend, BackendAddress};
pub use fanout::Fanout;
pub(super) use health::interval as probe_interval;
pub use health::{Eject, Probe, ProbeKind};
pub use limits::Limits;

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name; no other service has it.
    pub name: String,
    /// Hosts in lower case, exact or `*.SUFFIX`; no other service has one of them.
    pub domains: Vec<String>,
    /// How an endpoint is picked.
    pub policy: &'static Policy,
    /// What the policy `hash` hashes; the others do not look at it.
    pub hash_key: HashKey,
    /// At least one; none twice.
    pub backends: Vec<Backend>,
    /// How long the weight of an endpoint that is new or has recovered grows to its whole; 0 is not
    /// at all.
    pub slow_start: Duration,
    /// Whether all endpoints are used when none is healthy.
    pub fail_open: bool,
    /// The response field that names the endpoint; empty is none.
    pub backend_field: String,
    /// Bounds on how long endpoints take.
    pub timeouts: ServiceTimeouts,
    /// Bounds on upstream connections.
    pub pool: Pool,
    /// When a request is tried again.
    pub retry: Retry,
    /// How control asks endpoints whether they are well; `None`: it does not.
    pub probe: Option<Probe>,
    /// When a shard takes an endpoint out by what it sees of it.
    pub eject: Eject,
    /// How much is let in.
    pub limits: Limits,
    /// How a request is sent to every backend; `None`: it goes to one endpoint.
    pub fanout: Option<Fanout>,
    /// The header of the PROXY protocol that connections to endpoints begin with; `None`: none.
    pub send_proxy_protocol: Option<Version>,
    /// Fields that are set and removed.
    pub fields: Fields,
}

/// `[service.timeouts]`, each at least a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTimeouts {
    /// Connect begun to connected.
    pub connect: Duration,
    /// Last request byte to response head.
    pub response: Duration,
    /// An endpoint that takes nothing.
    pub send_idle: Duration,
    /// Between two reads of a response body.
    pub receive_idle: Duration,
    /// How long an endpoint may say nothing to a request that expects 100-continue.
    pub until_continued: Duration,
    /// A tunnel through which nothing goes in either direction.
    pub tunnel_idle: Duration,
    /// The whole exchange; 0 is no timeout.
    pub total: Duration,
}

/// `[service.pool]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections per endpoint and shard; 0 closes each after its exchange.
    pub idle_max: u32,
    /// Connections per endpoint and shard that are opened ahead; at most `idle_max`.
    pub idle_min: u32,
    /// How long one may be idle, at least a tick.
    pub idle: Duration,
    /// Connections per endpoint of the whole process, idle ones included; 0 is no limit.
    pub connections_max: u32,
    /// How long a request waits for one over that; 0 is not at all.
    pub queue: Duration,
}

/// `[service.retry]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Further tries, the first not counted; 0 is none.
    pub attempts_max: u32,
    /// Statuses of answers that are tried again, `400..=599`.
    pub statuses: Vec<u32>,
    /// One try, from its begin to its response head; 0 is no timeout.
    pub attempt: Duration,
    /// The wait before the first retry on a status; 0 is none.
    pub backoff: Duration,
    /// Retries as a share of requests, `0.0..=1.0`.
    pub budget: f64,
    /// Bytes of a request body, its framing included, up to which it is kept for a replay.
    pub body_bytes_max: u64,
}

/// `[service.fields]`: none of them frames a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Name and value, each replacing every field of that name in requests.
    pub request_set: Vec<(String, String)>,
    /// Names of fields that requests lose.
    pub request_remove: Vec<String>,
    /// Name and value, each replacing every field of that name in responses.
    pub response_set: Vec<(String, String)>,
    /// Names of fields that responses lose.
    pub response_remove: Vec<String>,
}

const PROXY_PROTOCOLS: [(&str, Option<Version>); 3] = [
    ("off", None),
    ("v1", Some(Version::V1)),
    ("v2", Some(Version::V2)),
];

pub(super) fn service(table: &mut Table<'_, '_>) -> Service {
    later::service(table);
    let name = table.required(
        "name",
        "a name, as in \"my-service\"",
        String::new(),
        text(words::name),
    );
    table.define(Kind::Service, "name", &name);
    let service = Service {
        name,
        domains: domains(table),
        policy: table.choice("policy", "random", &policies()),
        hash_key: table.value("hash_key", "\"client\"", text(words::hash_key)),
        backends: backend::backends(table),
        slow_start: table.duration("slow_start", "0s", Duration::ZERO..=DAY),
        fail_open: table.flag("fail_open", true),
        backend_field: table.text("backend_field", "", words::field_name_or_empty),
        timeouts: table.table("timeouts", timeouts),
        pool: table.table("pool", pool),
        retry: table.table("retry", retry),
        probe: table.table_if_present("probe", health::probe),
        eject: table.table("eject", health::eject),
        limits: table.table("limits", limits::limits),
        fanout: table.table_if_present("fanout", fanout::fanout),
        send_proxy_protocol: table.choice("send_proxy_protocol", "off", &PROXY_PROTOCOLS),
        fields: table.table("fields", fields),
    };
    if service.fanout.is_some() {
        table.fans_out(&service.name);
    }
    let field = &service.backend_field;
    let mut set = service.fields.response_set.iter();
    if set.any(|(name, _)| words::same_field(name, field)) {
        let message = format!("{field:?} is in response_set too; a field has one value");
        table.wrong("backend_field", message);
    }
    let idle_min = service.pool.idle_min;
    if service.send_proxy_protocol.is_some() && 0 < idle_min {
        let message = format!(
            "pool.idle_min is {idle_min}; a connection that says whose it is can't be opened ahead"
        );
        table.wrong("send_proxy_protocol", message);
    }
    service
}

/// Every policy behind its word.
fn policies() -> [(&'static str, &'static Policy); POLICIES.len()] {
    POLICIES.each_ref().map(|policy| (policy.label, policy))
}

fn domains(table: &mut Table<'_, '_>) -> Vec<String> {
    let domains = table.list("domains", "[]", placed(text(words::domain)));
    for domain in &domains {
        table.define_at(Kind::Domain, "domains", domain.get_ref(), domain.span());
    }
    domains.into_iter().map(Spanned::into_inner).collect()
}

fn timeouts(table: &mut Table<'_, '_>) -> ServiceTimeouts {
    ServiceTimeouts {
        connect: table.duration("connect", "1s", TICK..=HOUR),
        response: table.duration("response", "30s", TICK..=DAY),
        send_idle: table.duration("send_idle", "30s", TICK..=HOUR),
        receive_idle: table.duration("receive_idle", "30s", TICK..=DAY),
        until_continued: table.duration("continue", "1s", TICK..=HOUR),
        tunnel_idle: table.duration("tunnel_idle", "1h", TICK..=30 * DAY),
        total: table.value("total", "\"0s\"", off_or(TICK..=30 * DAY)),
    }
}

fn pool(table: &mut Table<'_, '_>) -> Pool {
    let idle_max = table.integer("idle_max", "64", 0..=100_000);
    let idle_min = table.integer("idle_min", "0", 0..=100_000);
    if idle_max < idle_min {
        let message = format!("{idle_min} is above idle_max, {idle_max}; so many are not kept");
        table.wrong("idle_min", message);
    }
    Pool {
        idle_max,
        idle_min,
        idle: table.duration("idle", "30s", TICK..=DAY),
        connections_max: table.integer("connections_max", "0", 0..=10_000_000),
        queue: table.duration("queue", "0s", Duration::ZERO..=HOUR),
    }
}

fn retry(table: &mut Table<'_, '_>) -> Retry {
    Retry {
        attempts_max: table.integer("attempts_max", "2", 0..=u32::from(ATTEMPTS_MAX)),
        statuses: table.list("statuses", "[]", integer_in(400..=599)),
        attempt: table.value("attempt", "\"0s\"", off_or(TICK..=DAY)),
        backoff: table.duration("backoff", "0s", Duration::ZERO..=MINUTE),
        budget: table.number("budget", "0.2", 0.0..=1.0),
        body_bytes_max: table.size("body_bytes_max", r#""64KiB""#, 0..=(1 << 20)),
    }
}

/// The reader of a duration within `range`, or 0, which is off.
fn off_or(range: RangeInclusive<Duration>) -> impl Read<Duration> {
    scalar(
        move |value| match duration(value, &(Duration::ZERO..=Duration::MAX))? {
            Duration::ZERO => Ok(Duration::ZERO),
            _ => {
                duration(value, &range).map_err(|message| format!("{message}; or \"0s\" for none"))
            }
        },
    )
}

fn fields(table: &mut Table<'_, '_>) -> Fields {
    let fields = Fields {
        request_set: field_values(table, "request_set", words::request_field_name),
        request_remove: table.list("request_remove", "[]", text(words::removable_field_name)),
        response_set: field_values(table, "response_set", words::field_name),
        response_remove: table.list("response_remove", "[]", text(words::removable_field_name)),
    };
    for (key, set, remove) in [
        (
            "request_remove",
            &fields.request_set,
            &fields.request_remove,
        ),
        (
            "response_remove",
            &fields.response_set,
            &fields.response_remove,
        ),
    ] {
        let both = set
            .iter()
            .find(|(name, _)| remove.iter().any(|gone| gone.eq_ignore_ascii_case(name)));
        if let Some((name, _)) = both {
            table.wrong(
                key,
                format!("{name:?} is set as well; setting replaces what was there"),
            );
        }
    }
    fields
}

fn field_values(
    table: &mut Table<'_, '_>,
    key: &'static str,
    name: fn(&str) -> Result<String, String>,
) -> Vec<(String, String)> {
    // RFC 9110 section 5.1: names of fields ignore case.
    let same = str::eq_ignore_ascii_case;
    table.pairs(key, name, same, text(words::field_value))
}
