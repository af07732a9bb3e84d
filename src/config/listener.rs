//! `[[listener]]`: an address, what is spoken on it, and what its clients may do.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::file::Table;
use super::findings::Kind;
use super::value::text;
use super::{DAY, HOUR, words};
use crate::plan::{Protocol, TICK};

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name; no other listener has it.
    pub name: String,
    /// Where it is bound; no other listener is bound there. Port 0 has the kernel choose one.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether each connection has to begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// The service of requests that no route matches; empty answers them with 404. With TCP it is
    /// named, and every connection goes there.
    pub service: String,
    /// The query parameter whose value stands for the Host; empty is none, as it is with TCP.
    pub service_parameter: String,
    /// Bounds on what clients send.
    pub limits: ListenerLimits,
    /// Bounds on how long they take.
    pub timeouts: ListenerTimeouts,
}

/// `[listener.limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Clients of this listener, over all shards; 0 is no limit beside the process's.
    pub connections_max: u32,
    /// Bytes of a head.
    pub head_bytes_max: u64,
    /// Bytes of a trailer section.
    pub trailer_bytes_max: u64,
    /// Fields of a head.
    pub fields_max: u32,
    /// Bytes of a request body; 0 is no limit.
    pub body_bytes_max: u64,
}

/// `[listener.timeouts]`, each at least a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// First to last byte of a head.
    pub head: Duration,
    /// Between two reads of a request body.
    pub body_idle: Duration,
    /// Idle between two requests.
    pub keep_alive: Duration,
    /// A client that takes nothing.
    pub send_idle: Duration,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const PIB: u64 = 1 << 50;

const PROTOCOLS: [(&str, Protocol); 2] = [("http", Protocol::Http), ("tcp", Protocol::Tcp)];

pub(super) fn listener(table: &mut Table<'_, '_>) -> Listener {
    let name = table.required(
        "name",
        "a name, as in \"web\"",
        String::new(),
        text(words::name),
    );
    table.define(Kind::Listener, "name", &name);
    let address = table.required(
        "address",
        "IP:PORT, as in \"0.0.0.0:8080\"",
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        text(words::listen_address),
    );
    // Port 0 is a new port each time.
    if address.port() != 0 {
        table.define(Kind::Address, "address", &address.to_string());
    }
    let protocol = table.choice("protocol", "http", &PROTOCOLS);
    let service = table.text("service", "", words::name_or_empty);
    if !service.is_empty() {
        table.refer("service", &service, protocol);
    }
    let service_parameter = table.text("service_parameter", "", words::parameter);
    if protocol == Protocol::Tcp {
        if service.is_empty() {
            let message = "is missing: with protocol \"tcp\" every connection goes to one service";
            table.wrong("service", message.into());
        }
        if !service_parameter.is_empty() {
            let message = "with protocol \"tcp\" there are no requests that could have it";
            table.wrong("service_parameter", message.into());
        }
    }
    Listener {
        name,
        address,
        protocol,
        proxy_protocol: table.flag("proxy_protocol", false),
        service,
        service_parameter,
        limits: table.table("limits", limits),
        timeouts: table.table("timeouts", timeouts),
    }
}

fn limits(table: &mut Table<'_, '_>) -> ListenerLimits {
    ListenerLimits {
        connections_max: table.integer("connections_max", "0", 0..=10_000_000),
        head_bytes_max: table.size("head_bytes_max", r#""16KiB""#, KIB..=MIB),
        trailer_bytes_max: table.size("trailer_bytes_max", r#""8KiB""#, 0..=MIB),
        fields_max: table.integer("fields_max", "100", 1..=500),
        body_bytes_max: table.size("body_bytes_max", "0", 0..=PIB),
    }
}

fn timeouts(table: &mut Table<'_, '_>) -> ListenerTimeouts {
    ListenerTimeouts {
        head: table.duration("head", "10s", TICK..=HOUR),
        body_idle: table.duration("body_idle", "30s", TICK..=HOUR),
        keep_alive: table.duration("keep_alive", "75s", TICK..=DAY),
        send_idle: table.duration("send_idle", "30s", TICK..=HOUR),
    }
}
