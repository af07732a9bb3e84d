//! `ringmain backend`: dummy backends that say which address answered, for trying, testing and
//! benching the proxy.
//!
//! Every address is bound before any is announced; each of several threads has its own listening
//! socket on each address (SO_REUSEPORT), and every thread its own runtime. One file an idea:
//!
//! - `misbehaviour`: how it fails when it is asked to;
//! - `answers`: from a request to what is answered, without I/O;
//! - `request`: monoio-http's request reader behind small caps;
//! - `server`: runtime, accepting, one connection from its first request to its last.

mod answers;
mod misbehaviour;
mod request;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::{env, io, thread};

use clap::Args as ClapArgs;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{self, Config};

use super::interrupt::Interrupt;
use super::{Failure, print};
use misbehaviour::Misbehaviour;

/// Connections that wait for us to accept them; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// `ringmain backend`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  ringmain backend --config config.toml\n  \
    ringmain backend --listen 127.0.0.1:9090 --listen 127.0.0.1:9091 --log-requests\n  \
    ringmain backend --listen 127.0.0.1:0 --fail-ratio 0.1 --delay-first-byte 20ms\n\n\
    Answers:\n  GET  /            which address answered; so does every other path\n  \
    POST /reflect     the request's body, with its Content-Type\n  \
    ANY  /echo        method, path, fields, body and a timestamp as JSON\n  \
    GET  /live        200\n  GET  /ready       200\n  \
    GET  /bytes/N     N bytes with a Content-Length\n  GET  /chunked/N   N bytes in chunks\n\n\
    Environment:\n  SKIP_SOME_REQUESTS=true  as --skip-some-requests")]
pub(super) struct Args {
    /// Listens on every backend address of this file [default, without --listen: as `ringmain
    /// run`].
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    config: Option<PathBuf>,
    /// An address to listen on; port 0 is a free one. Again for each further address.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Threads, each with a runtime of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Prints each request and the status that it got.
    #[arg(long)]
    log_requests: bool,
    #[command(flatten)]
    misbehaviour: Misbehaviour,
}

/// What every connection of every thread goes by.
#[derive(Debug)]
pub(super) struct Conduct {
    misbehaviour: Misbehaviour,
    log_requests: bool,
}

impl Conduct {
    /// One that behaves well and says nothing.
    pub(super) fn quiet() -> Self {
        Self {
            misbehaviour: Misbehaviour::default(),
            log_requests: false,
        }
    }
}

/// Serves until it is interrupted.
pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let addresses = match args.listen.is_empty() {
        true => addresses_of(&load(args.config.as_deref())?)?,
        false => args.listen.clone(),
    };
    let listeners = listen(&addresses, args.threads)?;
    let interrupt = Interrupt::new()?;
    print(&announcement(&listeners[0])?)?;
    let conduct = Arc::new(Conduct {
        misbehaviour: args.misbehaviour.clone(),
        log_requests: args.log_requests,
    });
    for listeners in listeners {
        start(listeners, Arc::clone(&conduct))?;
    }
    interrupt.wait();
    Ok(ExitCode::SUCCESS)
}

/// Starts one thread that serves `listeners` for as long as the process lives.
pub(super) fn start(listeners: Vec<TcpListener>, conduct: Arc<Conduct>) -> Result<(), Failure> {
    let serve = move || server::serve(listeners, conduct);
    thread::Builder::new()
        .name("ringmain-dummy".to_owned())
        .spawn(serve)
        .map(drop)
        .map_err(|error| Failure::from_error(&error))
}

fn load(file: Option<&Path>) -> Result<Config, Failure> {
    let file = config::find(file, |name| env::var(name).ok());
    config::load(&file).map_err(|errors| Failure::of_configuration(&errors))
}

/// Every backend's address, each once, with a summary of the file on standard output.
fn addresses_of(config: &Config) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::new();
    let mut summary = String::new();
    for service in config.services() {
        summary.push_str(&format!("service {}:", service.name));
        for backend in &service.backends {
            summary.push_str(&format!(" {}", backend.address));
            // A name stands for addresses that others give it.
            let Some(address) = backend.address.socket() else {
                summary.push_str(" (skipped: a name)");
                continue;
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        summary.push('\n');
    }
    print(&summary)?;
    if addresses.is_empty() {
        let nothing = "no backend has an address to listen on: all are names";
        return Err(Failure::at_run_time(nothing.to_owned()).because(
            "names lead to hosts that others have; a dummy takes an address of this one",
            "ringmain backend --listen 127.0.0.1:9090",
        ));
    }
    Ok(addresses)
}

/// For each thread a socket on each address. The first thread's sockets settle the port where it
/// was 0.
fn listen(addresses: &[SocketAddr], threads: u16) -> Result<Vec<Vec<TcpListener>>, Failure> {
    let bind_all = |addresses: &[SocketAddr]| -> Result<Vec<TcpListener>, Failure> {
        addresses
            .iter()
            .map(|address| bind(*address, 1 < threads))
            .collect()
    };
    let first = bind_all(addresses)?;
    let settled = local_addresses(&first)?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(bind_all(&settled)?);
    }
    Ok(listeners)
}

/// A listening socket on `address` (port 0: a free one). A `shared` one lets others on the same
/// address; without need it would hide that another process has it.
pub(super) fn bind(address: SocketAddr, shared: bool) -> Result<TcpListener, Failure> {
    let bound = || -> io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().map_err(|error| {
        Failure::from_error(&BindError {
            address,
            source: error,
        })
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Where `listeners` listen.
pub(super) fn local_addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, Failure> {
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<io::Result<_>>();
    addresses.map_err(|error| Failure::from_error(&error))
}

/// One line an address, in a form that a browser opens and a test reads.
fn announcement(listeners: &[TcpListener]) -> Result<String, Failure> {
    let addresses = local_addresses(listeners)?;
    Ok(addresses
        .iter()
        .map(|address| format!("listening on http://{address}\n"))
        .collect())
}
