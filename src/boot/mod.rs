//! From a configuration to a running proxy and to its end; the only module that names both planes.
//!
//! Boot owns the listening sockets (`sockets.rs`), and gives each shard a thread and a CPU, and
//! again when it has died.

mod others;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use tokio::sync::mpsc::{Sender, UnboundedSender, channel, unbounded_channel};

use crate::balance;
use crate::config::{self, AdminAddress, Config};
use crate::control::admin;
use crate::control::compile::{BoundListener, Live};
use crate::control::log::register_shard_thread;
use crate::control::resolve::Naming;
use crate::control::run::{Control, Setting, ShardEnd};
use crate::control::signal::Signals;
use crate::control::source::ConfigSource;
use crate::control::supervisor::Supervisor;
use crate::door::{Subscriber, door};
use crate::fd;
use crate::plan::ListenerId;
use crate::shard::{self, DriverChoice, Setup};

use self::sockets::Sockets;

pub use crate::control::run::End;

/// What the command line asks for beyond the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Print the report to standard output once everything has drained.
    pub report_at_end: bool,
}

/// Every listener's name and the address that it is bound to.
pub type Listeners = Vec<(String, SocketAddr)>;

/// Where the process can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In the order of the configuration.
    pub listeners: Listeners,
    /// The admin API's; `None` where it is off.
    pub admin: Option<AdminAddress>,
}

/// What is called once all shards serve.
pub type OnReady<'a> = dyn FnMut(&Addresses) + 'a;

/// Requests of the admin API that may wait for control; its clients are few.
const WANTED_MAX: usize = 32;

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A listener's address cannot be bound.
    #[error("listener `{name}`: {address}: {source}")]
    Bind {
        /// The listener's name.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The admin API's address cannot be bound.
    #[error("the admin API: {address}: {source}")]
    Admin {
        /// `[admin] address`.
        address: AdminAddress,
        /// What the kernel says.
        source: io::Error,
    },
    /// Signals, threads or control's runtime are not to be had.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A shard could not start.
    #[error("a shard cannot start: {0}")]
    Shard(String),
}

/// Runs the proxy with `config` on the calling thread until it has drained; further configurations
/// come from `source`, where there is one. `on_ready` is called once.
///
/// # Errors
/// When it cannot start.
pub fn run(
    config: &Config,
    source: Option<Box<dyn ConfigSource>>,
    options: Options,
    on_ready: &mut OnReady<'_>,
) -> Result<End, BootError> {
    let shards = shard_count(config.runtime().shards);
    let mut sockets = Sockets::new(shards);
    let bound = bind_all(config, &mut sockets)?;
    let address = &config.admin().address;
    let admin = admin::Bound::open(address).map_err(|source| BootError::Admin {
        address: address.clone(),
        source,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| BootError::System {
            what: "control's runtime",
            source,
        })?;
    let opened = Opened {
        bound,
        sockets,
        admin,
    };
    runtime.block_on(serve(config, source, options, opened, shards, on_ready))
}

/// What listens before anything runs.
struct Opened {
    /// In the order of the configuration.
    bound: Vec<BoundListener>,
    sockets: Sockets,
    admin: Option<admin::Bound>,
}

async fn serve(
    config: &Config,
    source: Option<Box<dyn ConfigSource>>,
    options: Options,
    Opened {
        bound,
        sockets,
        admin,
    }: Opened,
    shards: usize,
    on_ready: &mut OnReady<'_>,
) -> Result<End, BootError> {
    // Before the first shard runs, so that no signal finds the system's default.
    let mut signals = Signals::listen().map_err(|source| BootError::System {
        what: "signals",
        source,
    })?;
    let (publisher, subscribers) = door(shards);
    let names = config.listeners().iter().map(|it| it.name.clone());
    let addresses = Addresses {
        listeners: names.zip(bound.iter().map(|it| it.address)).collect(),
        admin: admin.as_ref().map(|admin| admin.address().clone()),
    };
    let mut live = Live {
        via: draw_name(),
        bound,
        ..Live::new(shards as u32, fd::descriptors_max())
    };
    // Clients queue meanwhile: the sockets are bound.
    let mut naming = Naming::start(config);
    tokio::select! {
        biased;
        () = signals.end() => {
            log::info!("a signal ends the start");
            return Ok(End::Drained);
        }
        () = naming.first(&mut live) => {}
    }
    let config = config.clone();
    let setting = Setting {
        config,
        source,
        live,
        naming,
        report_at_end: options.report_at_end,
    };
    let control = Control::new(publisher, setting);
    let (ended, ends) = unbounded_channel();
    let (wanted_in, wanted) = channel(WANTED_MAX);
    let admin = admin.map(|admin| admin.serve(wanted_in.clone()));
    let admin = admin.transpose().map_err(|source| BootError::System {
        what: "the admin API's socket",
        source,
    })?;
    let runtime = &control.config().runtime();
    let mut boot = Boot {
        sockets,
        admin,
        wanted: wanted_in,
        addresses,
        cpus: cpus(runtime.pin, shards),
        driver: driver(runtime.driver),
        threads: Vec::new(),
        ended,
        on_ready,
    };
    for (shard, door) in subscribers.into_iter().enumerate() {
        boot.restart(shard, door)
            .map_err(|source| BootError::System {
                what: "a shard's thread",
                source,
            })?;
    }
    let end = control
        .run(signals, ends, wanted, &mut boot)
        .await
        .map_err(BootError::Shard)?;
    if let Some(admin) = boot.admin {
        admin.finish().await;
    }
    for thread in boot.threads {
        // Its end came through the channel; what is left of the thread is its return.
        let _ended = thread.join();
    }
    Ok(end)
}

/// What boot keeps while the proxy runs.
struct Boot<'a> {
    sockets: Sockets,
    /// `None` where it is off.
    admin: Option<admin::Serving>,
    /// Where the admin API asks control.
    wanted: Sender<admin::Wanted>,
    addresses: Addresses,
    /// By shard; empty when shards are not pinned.
    cpus: Vec<CoreId>,
    driver: DriverChoice,
    threads: Vec<JoinHandle<()>>,
    ended: UnboundedSender<ShardEnd>,
    on_ready: &'a mut OnReady<'a>,
}

impl Supervisor for Boot<'_> {
    fn restart(&mut self, shard: usize, door: Subscriber) -> io::Result<()> {
        let setup = Setup {
            door,
            driver: self.driver,
        };
        let cpu = self.cpus.get(shard).copied();
        let ended = self.ended.clone();
        let body = move || {
            let error = run_shard(setup, cpu);
            // Control is gone only when the process ends anyway.
            let _unheard = ended.send(ShardEnd { shard, error });
        };
        self.threads.push(
            thread::Builder::new()
                .name(format!("shard-{shard}"))
                .spawn(body)?,
        );
        Ok(())
    }

    fn open(&mut self, address: SocketAddr) -> io::Result<BoundListener> {
        self.sockets.open(address)
    }

    fn close(&mut self, listener: ListenerId) {
        self.sockets.close(listener);
    }

    fn let_go(&mut self, listener: ListenerId) {
        self.sockets.let_go(listener);
    }

    fn renew(&mut self, listener: ListenerId) -> BoundListener {
        self.sockets.renew(listener)
    }

    fn release(&mut self) {
        self.sockets.release();
    }

    fn serve_admin(&mut self, bound: Option<admin::Bound>) -> io::Result<()> {
        let next = bound.map(|bound| bound.serve(self.wanted.clone()));
        let last = std::mem::replace(&mut self.admin, next.transpose()?);
        if let Some(last) = last {
            tokio::spawn(last.finish());
        }
        Ok(())
    }

    fn ready(&mut self) {
        (self.on_ready)(&self.addresses);
    }
}

/// The body of a shard's thread; says what went wrong, if anything did.
fn run_shard(setup: Setup, cpu: Option<CoreId>) -> Option<String> {
    register_shard_thread();
    if let Some(cpu) = cpu
        && !core_affinity::set_for_current(cpu)
    {
        log::warn!(cpu = cpu.id; "a shard cannot be pinned to its CPU");
    }
    match catch_unwind(AssertUnwindSafe(|| shard::run(setup))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Some(text.unwrap_or_else(|| "a panic without words".to_owned()))
        }
    }
}

/// A shard per CPU that the process may use: its affinity mask and its cgroup's quota.
fn shard_count(configured: u32) -> usize {
    if configured != 0 {
        return configured as usize;
    }
    thread::available_parallelism().map_or(1, usize::from)
}

/// The CPUs to pin the shards to, one each, within the affinity mask; none where that would do
/// harm.
fn cpus(pin: config::Pin, shards: usize) -> Vec<CoreId> {
    // Within the mask of the process (sched_getaffinity).
    let mask = core_affinity::get_core_ids().unwrap_or_default();
    let quota = thread::available_parallelism().is_ok_and(|cpus| cpus.get() < mask.len());
    let pinned = match pin {
        config::Pin::Off => false,
        config::Pin::On => !mask.is_empty(),
        // Under a quota the scheduler must be free to move what it has stopped.
        config::Pin::Auto => shards <= mask.len() && !quota,
    };
    if pinned {
        (0..shards).map(|shard| mask[shard % mask.len()]).collect()
    } else {
        Vec::new()
    }
}

const fn driver(configured: config::Driver) -> DriverChoice {
    match configured {
        config::Driver::Auto => DriverChoice::Auto,
        config::Driver::IoUring => DriverChoice::IoUring,
        config::Driver::Epoll => DriverChoice::Epoll,
    }
}

/// Our name in Via where the operator gave none: only one's own name is a loop, so no two processes
/// share it.
fn draw_name() -> String {
    let id = balance::draw_id(&mut balance::generator());
    format!("ringmain-{:04x}", id as u16)
}

/// What the listeners of `config` are bound with, in its order.
fn bind_all(config: &Config, sockets: &mut Sockets) -> Result<Vec<BoundListener>, BootError> {
    let listeners = config.listeners().iter();
    let bound = listeners.map(|listener| {
        let bound = sockets.open(listener.address);
        bound.map_err(|source| BootError::Bind {
            name: listener.name.clone(),
            address: listener.address,
            source,
        })
    });
    bound.collect()
}
