//! `backends` of a service: what the operator wrote of each.

use std::fmt;
use std::net::SocketAddr;

use toml::Spanned;
use toml::de::DeValue;

use super::super::file::Table;
use super::super::value::{mismatch, text};
use super::super::words;

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where to connect.
    pub address: BackendAddress,
    /// Its share of the requests against the other backends' weights, `1..=1000`; of a backend that
    /// stands for several endpoints, that of each.
    pub weight: u32,
    /// Used only when no other is left.
    pub backup: bool,
    /// Gets nothing new.
    pub drain: bool,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendAddress {
    /// At this address; the port is not 0.
    Socket(SocketAddr),
    /// At every address that the host has, in lower case; the port is not 0.
    Host(String, u16),
    /// Where the SRV records of this name say (RFC 2782), in lower case.
    Srv(String),
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Srv(name) => f.write_str(name),
        }
    }
}

impl BackendAddress {
    /// The address that it is, without anybody being asked.
    pub const fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Host(..) | Self::Srv(_) => None,
        }
    }
}

impl Backend {
    /// At `address`, all else by default.
    const fn at(address: BackendAddress) -> Self {
        Self {
            address,
            weight: 1,
            backup: false,
            drain: false,
        }
    }
}

pub(super) fn backends(table: &mut Table<'_, '_>) -> Vec<Backend> {
    let Some(elements) = table.elements("backends") else {
        return Vec::new();
    };
    if elements.is_empty() {
        let message = "is missing: at least one backend, as in [\"127.0.0.1:9090\"]";
        table.wrong("backends", message.into());
    }
    let mut backends: Vec<Backend> = Vec::new();
    for element in elements {
        let Some(found) = element_of(table, element) else {
            continue;
        };
        let same = |backend: &Backend| backend.address == found.address;
        if backends.iter().any(same) {
            let message = format!(
                "{} is here twice; weight gives it a greater share",
                found.address
            );
            table.wrong_at("backends", element.span(), message);
        }
        backends.push(found);
    }
    backends
}

fn element_of<'t>(table: &mut Table<'_, 't>, element: &Spanned<DeValue<'t>>) -> Option<Backend> {
    match element.get_ref() {
        DeValue::Table(_) => table.enter("backends", element, backend),
        DeValue::String(_) => {
            let address = table.element("backends", element, text(words::backend_address));
            address.map(Backend::at)
        }
        other => {
            let message = mismatch("IP:PORT, HOST:PORT or a table with an address", other);
            table.wrong_at("backends", element.span(), message);
            None
        }
    }
}

fn backend(table: &mut Table<'_, '_>) -> Option<Backend> {
    let srv = table.flag("srv", false);
    let weight = table.integer("weight", "1", 1..=1_000);
    let backup = table.flag("backup", false);
    let drain = table.flag("drain", false);
    let what = "IP:PORT, as in \"127.0.0.1:9090\", or HOST:PORT";
    let address = if srv {
        let read = text(|name| words::srv_name(name).map(Some));
        table.required("address", what, None, read)
    } else {
        let read = text(|address| words::backend_address(address).map(Some));
        table.required("address", what, None, read)
    };
    Some(Backend {
        address: address?,
        weight,
        backup,
        drain,
    })
}
