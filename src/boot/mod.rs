//! From a configuration to a running proxy and to its end; the only module that names both planes.
//!
//! Boot owns the listening sockets (`sockets.rs`), some of which it may have been started with
//! (`inherit.rs`), gives each shard a thread and a CPU, and again when it has died, and starts the
//! process that takes the place of this one (`launch.rs`).

mod bind;
mod inherit;
mod launch;
mod machine;
mod others;
mod pid_file;
mod predecessor;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;
use tokio::sync::mpsc::{Sender, UnboundedSender, channel, unbounded_channel};

use crate::balance;
use crate::config::{AdminAddress, Config};
use crate::control::admin::{self, Wanted};
use crate::control::compile::{BoundListener, Live};
use crate::control::log::register_shard_thread;
use crate::control::resolve::Naming;
use crate::control::run::{Control, Setting, ShardEnd};
use crate::control::signal::Signals;
use crate::control::source::ConfigSource;
use crate::control::successor::{Handed, Successor};
use crate::control::supervisor::Supervisor;
use crate::door::{Subscriber, door};
use crate::fd;
use crate::plan::ListenerId;
use crate::shard::{self, DriverChoice, Setup};

use self::bind::{bind_all, open_admin, pid_file};
use self::inherit::{ADMIN, KEPT};
use self::launch::Launch;
use self::machine::{cpus, driver, shard_count};
use self::pid_file::PidFile;
use self::sockets::Sockets;

pub use self::inherit::Inherited;
pub use self::launch::settle;
pub use self::predecessor::Predecessor;
pub use crate::control::run::End;

/// What there is beyond the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Print the report to standard output once everything has drained.
    pub report_at_end: bool,
    /// The sockets that the process was started with.
    pub inherited: Inherited,
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

/// How long the process that takes the place of this one may take until it is ready.
const SUCCESSOR: Duration = Duration::from_secs(60);

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
    /// The file for the number of the process cannot be written.
    #[error("pid_file: {}: {source}", path.display())]
    PidFile {
        /// `[runtime] pid_file`.
        path: PathBuf,
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
    let Options {
        report_at_end,
        mut inherited,
    } = options;
    let shards = shard_count(config.runtime().shards);
    inherited.prepare();
    let is_upgrade = inherited.is_upgrade();
    let mut sockets = Sockets::new(shards, is_upgrade);
    let bound = bind_all(config, &mut sockets, &mut inherited)?;
    let admin = open_admin(&config.admin().address, &mut sockets, &mut inherited)?;
    let pid_file = pid_file(config.runtime().pid_file.as_ref())?;
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
        pid_file,
        predecessor: inherited.finish(),
    };
    runtime.block_on(serve(config, source, report_at_end, opened, on_ready))
}

/// What listens before anything runs.
struct Opened {
    /// In the order of the configuration.
    bound: Vec<BoundListener>,
    sockets: Sockets,
    admin: Option<admin::Bound>,
    pid_file: Option<PidFile>,
    /// Where this is an upgrade.
    predecessor: Option<Predecessor>,
}

async fn serve(
    config: &Config,
    source: Option<Box<dyn ConfigSource>>,
    report_at_end: bool,
    Opened {
        bound,
        sockets,
        admin,
        pid_file,
        predecessor,
    }: Opened,
    on_ready: &mut OnReady<'_>,
) -> Result<End, BootError> {
    // Before the first shard runs, so that no signal finds the system's default.
    let mut signals = Signals::listen().map_err(|source| BootError::System {
        what: "signals",
        source,
    })?;
    let shards = sockets.shards();
    let (publisher, subscribers) = door(shards);
    let names = config.listeners().iter().map(|it| it.name.clone());
    let addresses = Addresses {
        listeners: names.zip(bound.iter().map(|it| it.address)).collect(),
        admin: admin.as_ref().map(|admin| admin.address().clone()),
    };
    let handed = predecessor.as_ref().map(Predecessor::handed);
    let mut live = Live {
        via: draw_name(),
        bound,
        held: handed.is_some(),
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
        report_at_end,
        handed: handed.unwrap_or_default(),
    };
    let control = Control::new(publisher, setting);
    let (ended, ends) = unbounded_channel();
    let (wanted_in, wanted) = channel(WANTED_MAX);
    let runtime = &control.config().runtime();
    let mut boot = Boot {
        sockets,
        admin_to_serve: admin,
        admin: None,
        admin_socket: None,
        wanted: wanted_in,
        addresses,
        pid_file,
        predecessor,
        launch: Launch::of_this_process(),
        handing: Vec::new(),
        cpus: cpus(runtime.pin, shards),
        driver: driver(runtime.driver),
        threads: Vec::new(),
        ended,
        on_ready,
    };
    if !control.is_held() {
        boot.begin().map_err(|source| BootError::System {
            what: "the admin API's socket",
            source,
        })?;
    }
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
    /// Until it is served.
    admin_to_serve: Option<admin::Bound>,
    /// `None` where it is off.
    admin: Option<admin::Serving>,
    /// Where the admin API asks control.
    wanted: Sender<Wanted>,
    /// The admin API's, for the process that takes the place of this one.
    admin_socket: Option<OwnedFd>,
    addresses: Addresses,
    pid_file: Option<PidFile>,
    /// Until it is told.
    predecessor: Option<Predecessor>,
    launch: Launch,
    /// What the process that was started last was handed, by place.
    handing: Vec<Part>,
    /// By shard; empty when shards are not pinned.
    cpus: Vec<CoreId>,
    driver: DriverChoice,
    threads: Vec<JoinHandle<()>>,
    ended: UnboundedSender<ShardEnd>,
    on_ready: &'a mut OnReady<'a>,
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Listener(ListenerId),
    Admin,
}

impl Boot<'_> {
    /// What is handed on: whose each socket is, by which name it is known, and the socket.
    fn parts(&self, names: &[(ListenerId, &str)]) -> Vec<(Part, String, &OwnedFd)> {
        let named = |name: &str, socket| match self.sockets.is_kept(socket) {
            true => format!("{KEPT}{name}"),
            false => name.to_owned(),
        };
        let listeners = names.iter().flat_map(|(id, name)| {
            let sockets = self.sockets.of(*id).iter();
            sockets.map(move |socket| (Part::Listener(*id), named(name, socket), &**socket))
        });
        let admin = self.admin_socket.iter();
        let admin = admin.map(|socket| (Part::Admin, named(ADMIN, socket), socket));
        listeners.chain(admin).collect()
    }
}

impl Supervisor for Boot<'_> {
    fn restart(&mut self, shard: usize, door: Subscriber) -> io::Result<()> {
        let setup = Setup {
            door,
            driver: self.driver,
        };
        let cpu = self.cpus.get(shard).copied();
        let ended = self.ended.clone();
        // The stack of a thread that has ended is there until nobody can wait for it any more.
        self.threads.retain(|thread| !thread.is_finished());
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

    fn serve_admin(&mut self, bound: Option<admin::Bound>) -> io::Result<()> {
        let socket = bound.as_ref().map(admin::Bound::duplicate).transpose()?;
        let next = bound.map(|bound| bound.serve(self.wanted.clone()));
        let last = std::mem::replace(&mut self.admin, next.transpose()?);
        self.admin_socket = socket;
        if let Some(last) = last {
            tokio::spawn(last.finish());
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        self.sockets.begin()?;
        match self.admin_to_serve.take() {
            Some(admin) => self.serve_admin(Some(admin)),
            None => Ok(()),
        }
    }

    fn ready(&mut self) {
        (self.on_ready)(&self.addresses);
        if let Some(Err(error)) = self.pid_file.as_ref().map(PidFile::publish) {
            log::error!(error:%; "the pid_file cannot be put in its place");
        }
        if let Some(predecessor) = self.predecessor.take() {
            self.sockets.own();
            predecessor.ready(process::id());
        }
    }

    fn start_successor(
        &mut self,
        listeners: &[(ListenerId, &str)],
        handed: &Handed,
    ) -> io::Result<Successor> {
        let (channel, other) = UnixStream::pair()?;
        let parts = self.parts(listeners);
        let handing = parts.iter().map(|(part, ..)| *part).collect();
        let sockets = parts.into_iter().map(|(_, name, socket)| (name, socket));
        let sockets: Vec<(String, &OwnedFd)> = sockets.collect();
        let (command, copies) = self.launch.successor(&sockets, &other.into())?;
        let successor = Successor::start(command, channel, handed, SUCCESSOR);
        drop(copies);
        let program = self.launch.program().display();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
        let successor = successor.map_err(named)?;
        self.handing = handing;
        Ok(successor)
    }

    fn leave_to_successor(&mut self, unwanted: &[usize]) -> Vec<ListenerId> {
        let handed = std::mem::take(&mut self.handing).into_iter().enumerate();
        let taken = handed.filter(|(place, _)| !unwanted.contains(place));
        let mut handed_on = Vec::new();
        for (_, part) in taken {
            match part {
                Part::Listener(id) => {
                    self.sockets.let_go(id);
                    handed_on.push(id);
                }
                Part::Admin => {
                    self.admin_socket = None;
                    if let Some(admin) = &mut self.admin {
                        admin.leave_to_successor();
                    }
                }
            }
        }
        handed_on
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

/// Our name in Via where the operator gave none: only one's own name is a loop, so no two processes
/// share it.
fn draw_name() -> String {
    let id = balance::draw_id(&mut balance::generator());
    format!("ringmain-{:04x}", id as u16)
}
