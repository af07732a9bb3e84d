//! Asks endpoints, again and again, whether they are well, and tells control's loop when that
//! changes.
//!
//! A task for each endpoint of each service that is probed, on control's own thread; `tcp.rs`,
//! `http.rs` and `exec.rs` are one try each, `count.rs` says what tries in a row mean, `pace.rs`
//! when the next one is. What does not change is told to nobody. The bar: 1,000 endpoints probed
//! each second cost at most a twentieth of a core (bench/README.md says how near that is).

mod count;
mod exec;
mod http;
mod pace;
mod tcp;

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use count::Count;
use pace::Beats;

use super::compile::{Health, Live, Stands};
use super::standing::Place;
use crate::balance::{self, Xorshift};
use crate::config::{Config, Probe, ProbeKind, Service};
use crate::fault::Fault;
use crate::fd;
use crate::proxy_protocol::{self, Encoded, Version};
use crate::units::format_duration;

/// Tries under way at once; each holds a descriptor.
const TRIES_MAX: u64 = 1024;

/// Commands that run at once; they share the machine with the shards.
const COMMANDS_MAX: usize = 16;

/// From one line that probes cannot be made to the next.
const EXHAUSTED_EVERY: Duration = Duration::from_secs(10);

/// Verdicts that control has not heard yet; who has another one waits.
const VERDICTS_MAX: usize = 1024;

/// Tries under way at once where the process may open `nofile` descriptors, at least 1: not so many
/// that clients have none. Where more endpoints than this hang, the others wait for them.
pub fn tries_max(nofile: u64) -> u64 {
    (nofile / 4).clamp(1, TRIES_MAX)
}

/// What the tries of one endpoint have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which endpoint.
    pub place: Place,
    /// Healthy or unhealthy; the same as the last one where it is healthy and one try had failed
    /// since.
    pub health: Health,
    /// What the last try came to; empty where it was good.
    pub reason: String,
}

/// Why a try was not good.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer, or none that is one.
    #[error("{}", .0.label())]
    Fault(Fault),
    /// An answer with a status that is not among `statuses`.
    #[error("status {0}")]
    Status(u16),
    /// The endpoint lives and is not ready for traffic.
    #[error("not ready: {0}")]
    NotReady(Box<Self>),
    /// The command ended with another code than 0.
    #[error("exit code {0}")]
    Exit(i32),
    /// The command was ended by a signal of somebody else.
    #[error("ended by signal {0}")]
    Signal(i32),
    /// The command was killed.
    #[error("no exit within {}", format_duration(*.0))]
    NoExit(Duration),
    /// There is no such command, or it can't be run.
    #[error("not run: {0}")]
    NotRun(io::Error),
    /// This machine ran out of something, for which the endpoint is not to blame: the try counts
    /// for nothing.
    #[error("{0}")]
    Exhausted(io::Error),
}

/// The tasks that probe, and what they say.
#[derive(Debug)]
pub struct Probers {
    common: Arc<Common>,
    tasks: JoinSet<()>,
    /// By the name of their service.
    probed: HashMap<Arc<str>, ProbedService>,
    /// The number of the prober that is started next.
    next: u64,
    verdicts: Receiver<(u64, Verdict)>,
}

/// A service that is probed.
#[derive(Debug)]
struct ProbedService {
    rules: Rules,
    /// By the address of the endpoint: the number of its prober, and its task.
    probers: HashMap<SocketAddr, (u64, AbortHandle)>,
}

/// What of a service its probers go by.
#[derive(Clone, Debug, PartialEq)]
struct Rules {
    probe: Arc<Probe>,
    /// What connections begin with.
    header: Option<Version>,
    /// One stands for `host` of the probe where that is empty.
    domains: Vec<String>,
}

/// How a prober begins.
#[derive(Debug)]
struct Begin {
    number: u64,
    place: Place,
    /// What is known of the endpoint.
    health: Health,
}

impl ProbedService {
    /// By nobody yet.
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            probers: HashMap::new(),
        }
    }

    /// Ends its probers.
    fn end(&mut self) {
        for (_, (_, task)) in self.probers.drain() {
            task.abort();
        }
    }
}

impl Rules {
    /// Those of `service`; `None` where it is not probed.
    fn of(service: &Service) -> Option<Self> {
        Some(Self {
            probe: Arc::new(service.probe.clone()?),
            header: service.send_proxy_protocol,
            domains: service.domains.clone(),
        })
    }
}

/// What all probers share.
#[derive(Debug)]
struct Common {
    beats: Beats,
    tries: Semaphore,
    commands: Semaphore,
    /// Somebody has asked and awaits a look.
    asked: Notify,
    /// Whoever has asked looks now.
    look: Notify,
    verdicts: Sender<(u64, Verdict)>,
    begun: Instant,
    /// The second, counted from `begun`, from which on a try that was exhausted has a line again.
    quiet_until: AtomicU64,
}

/// One endpoint while it is probed.
#[derive(Debug)]
struct Prober {
    common: Arc<Common>,
    /// No other prober of the process has it or had it.
    number: u64,
    place: Place,
    address: SocketAddr,
    probe: Arc<Probe>,
    /// What a connection begins with: the PROXY header, where the service sends one, and for the
    /// kind HTTP the request for `path`.
    request: Box<[u8]>,
    /// For `ready_path`, where there is one.
    ready_request: Option<Box<[u8]>>,
    count: Count,
    generator: Xorshift,
}

impl Probers {
    /// Probes every endpoint that the backends of `config` stand for and whose service says so,
    /// from now on. To be called on control's runtime.
    pub fn start(config: &Config, live: &Live) -> Self {
        let (sender, verdicts) = channel(VERDICTS_MAX);
        let begun = Instant::now();
        let common = Arc::new(Common {
            beats: Beats::new(begun),
            tries: Semaphore::new(tries_max(live.nofile) as usize),
            commands: Semaphore::new(COMMANDS_MAX),
            asked: Notify::new(),
            look: Notify::new(),
            verdicts: sender,
            begun,
            quiet_until: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&common).call_looks());
        let mut probers = Self {
            common,
            tasks,
            probed: HashMap::new(),
            next: 0,
            verdicts,
        };
        for written in config.services() {
            let unknown = |_| Health::Unknown;
            probers.follow(written, &Stands::of(written, live), unknown);
        }
        probers
    }

    /// The services are those of `config` from now on. Who is probed as before goes on; where the
    /// rules are others, new probers begin with the health that `health` says.
    pub fn adopt(
        &mut self,
        config: &Config,
        live: &Live,
        health: impl Fn(&str, SocketAddr) -> Health,
    ) {
        let services = config.services().iter();
        let probed = services.filter(|service| service.probe.is_some());
        let names: HashSet<&str> = probed
            .clone()
            .map(|service| service.name.as_str())
            .collect();
        self.probed.retain(|name, service| {
            let stays = names.contains(&**name);
            if !stays {
                service.end();
            }
            stays
        });
        for written in probed {
            let health = |address| health(&written.name, address);
            self.follow(written, &Stands::of(written, live), health);
        }
    }

    /// The service `written` has the endpoints of `stands` from now on. A prober that is new begins
    /// with the health that `health` says.
    pub fn follow(
        &mut self,
        written: &Service,
        stands: &Stands,
        health: impl Fn(SocketAddr) -> Health,
    ) {
        let Some(rules) = Rules::of(written) else {
            return;
        };
        let entry = self.probed.entry(written.name.as_str().into());
        let name = Arc::clone(entry.key());
        let service = entry.or_insert_with(|| ProbedService::new(rules.clone()));
        if service.rules != rules {
            service.end();
            service.rules = rules;
        }
        let asked = || stands.endpoints.iter().filter(|stand| !stand.down);
        let addresses: HashSet<SocketAddr> = asked().map(|stand| stand.address).collect();
        service.probers.retain(|address, (_, task)| {
            let stays = addresses.contains(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for address in asked().map(|stand| stand.address) {
            service.probers.entry(address).or_insert_with(|| {
                self.next += 1;
                let begin = Begin {
                    number: self.next,
                    place: Place {
                        service: Arc::clone(&name),
                        address,
                    },
                    health: health(address),
                };
                let prober = Prober::new(&self.common, written, &service.rules.probe, begin);
                (self.next, self.tasks.spawn(prober.live()))
            });
        }
    }

    /// Waits for the next verdict; for ever where nobody probes. May be dropped: none is lost.
    pub async fn next(&mut self) -> Verdict {
        loop {
            tokio::select! {
                Some((number, verdict)) = self.verdicts.recv() => {
                    // What was on its way when its prober was told to end is not heard.
                    if self.is_probed_by(&verdict.place, number) {
                        return verdict;
                    }
                }
                Some(Err(error)) = self.tasks.join_next() => {
                    // Those of endpoints that are gone were told to end.
                    if !error.is_cancelled() {
                        log::error!(error:%; "an endpoint is not probed any more");
                    }
                }
                else => pending().await,
            }
        }
    }

    /// Whether the prober with this number is the one of the endpoint at `place`.
    fn is_probed_by(&self, place: &Place, number: u64) -> bool {
        let service = self.probed.get(&place.service);
        let prober = service.and_then(|service| service.probers.get(&place.address));
        prober.is_some_and(|(probed_by, _)| *probed_by == number)
    }

    /// Ends all tries that are under way, and begins no others.
    pub fn stop(&mut self) {
        self.tasks.abort_all();
        self.verdicts.close();
    }

    /// As [`Probers::stop`]; returns when the last command is killed.
    pub async fn end(&mut self) {
        self.verdicts.close();
        self.tasks.shutdown().await;
    }
}

impl Common {
    /// One timer for all that have begun together: each of their own that is due before the next
    /// one of the runtime would be a write to its event descriptor.
    async fn call_looks(self: Arc<Self>) {
        loop {
            self.asked.notified().await;
            sleep_until(self.beats.look(Instant::now())).await;
            self.look.notify_waiters();
        }
    }

    /// At most a line every so often: where descriptors run short some tries still succeed, and
    /// thousands a second may not.
    fn say_exhausted(&self, error: &io::Error, now: Instant) {
        let second = now.duration_since(self.begun).as_secs();
        if self.quiet_until.load(Ordering::Relaxed) <= second {
            let next = second + EXHAUSTED_EVERY.as_secs();
            self.quiet_until.store(next, Ordering::Relaxed);
            log::warn!(error:%; "probes cannot be made; what is known stays");
        }
    }
}

impl Prober {
    fn new(common: &Arc<Common>, service: &Service, probe: &Arc<Probe>, begin: Begin) -> Self {
        let Begin {
            number,
            place,
            health,
        } = begin;
        let address = place.address;
        // Without one the endpoint would refuse the connection. It is nobody's but ours.
        let version = service.send_proxy_protocol;
        let header = version.map(|version| proxy_protocol::encode(version, None));
        let header = header.as_ref().map_or(&[][..], Encoded::as_bytes);
        let request = |path: &str| {
            let request = http::request(service, path, address);
            Box::<[u8]>::from([header, &request].concat())
        };
        let is_http = probe.kind == ProbeKind::Http;
        Self {
            common: Arc::clone(common),
            number,
            place,
            address,
            probe: Arc::clone(probe),
            request: if is_http {
                request(&probe.path)
            } else {
                header.into()
            },
            ready_request: (is_http && !probe.ready_path.is_empty())
                .then(|| request(&probe.ready_path)),
            count: Count::new(health, probe.healthy_after, probe.unhealthy_after),
            generator: balance::generator(),
        }
    }

    /// Probes the endpoint until it is aborted.
    async fn live(mut self) {
        let begun = self.probe().await;
        let failing = self.count.is_failing();
        let wait = pace::first_wait(&self.probe, failing, &mut self.generator);
        self.rest(begun, wait).await;
        loop {
            let begun = self.probe().await;
            let failing = self.count.is_failing();
            let wait = pace::wait(&self.probe, failing, &mut self.generator);
            self.rest(begun, wait).await;
        }
    }

    /// Waits until `wait` after the last try began.
    async fn rest(&self, begun: Instant, wait: Duration) {
        sleep_until(self.common.beats.next((begun, wait), Instant::now())).await;
    }

    /// One try and what comes of it. Says when it began.
    async fn probe(&mut self) -> Instant {
        let (begun, tried) = self.attempt().await;
        let reason = match tried {
            Ok(()) => None,
            Err(ProbeError::Exhausted(error)) => {
                self.common.say_exhausted(&error, begun);
                return begun;
            }
            Err(error) => Some(error),
        };
        if let Some(health) = self.count.note(reason.is_none()) {
            let verdict = Verdict {
                place: self.place.clone(),
                health,
                reason: reason.map_or_else(String::new, |reason| reason.to_string()),
            };
            // Nobody listens any more when the process drains.
            let _unheard = self.common.verdicts.send((self.number, verdict)).await;
        }
        begun
    }

    /// When its turn came, and how the try ended.
    async fn attempt(&self) -> (Instant, Result<(), ProbeError>) {
        let turn = self.turn().await;
        let begun = Instant::now();
        let deadline = begun + self.probe.timeout;
        let tried = match self.probe.kind {
            ProbeKind::Http => self.ask(deadline).await,
            ProbeKind::Tcp => self.connect(&self.request, deadline).await.map(drop),
            ProbeKind::Exec => {
                let run = exec::run(&self.probe.command, self.address);
                let run = timeout_at(deadline, run).await;
                run.unwrap_or(Err(ProbeError::NoExit(self.probe.timeout)))
            }
        };
        drop(turn);
        (begun, tried)
    }

    /// Waits until another try may be under way.
    async fn turn(&self) -> SemaphorePermit<'_> {
        let turns = match self.probe.kind {
            ProbeKind::Http | ProbeKind::Tcp => &self.common.tries,
            ProbeKind::Exec => &self.common.commands,
        };
        turns.acquire().await.expect("nobody closes it")
    }

    /// Asks for `path`, and then for `ready_path` while the endpoint is not healthy.
    async fn ask(&self, deadline: Instant) -> Result<(), ProbeError> {
        self.get(&self.request, deadline).await?;
        match &self.ready_request {
            Some(request) if self.count.health() != Health::Healthy => {
                let ready = self.get(request, deadline).await;
                ready.map_err(|error| match error {
                    ProbeError::Exhausted(_) => error,
                    _ => ProbeError::NotReady(Box::new(error)),
                })
            }
            _ => Ok(()),
        }
    }

    async fn get(&self, request: &[u8], deadline: Instant) -> Result<(), ProbeError> {
        let connection = self.connect(request, deadline).await?;
        // Nearly every answer is here by then, and needs no wake of its own.
        let look = self.common.look.notified();
        self.common.asked.notify_one();
        look.await;
        let status = timeout_at(deadline, http::status(connection)).await;
        let status = status.unwrap_or(Err(Fault::ResponseTimeout));
        match status.map_err(ProbeError::Fault)? {
            status if self.probe.statuses.contains(&u32::from(status)) => Ok(()),
            status => Err(ProbeError::Status(status)),
        }
    }

    /// A connection on which `first` has been sent.
    async fn connect(
        &self,
        first: &[u8],
        deadline: Instant,
    ) -> Result<tcp::Connection, ProbeError> {
        let opened = timeout_at(deadline, tcp::open(self.address, first)).await;
        let opened = opened.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        opened.map_err(not_connected)
    }
}

fn not_connected(error: io::Error) -> ProbeError {
    match error.kind() {
        _ if fd::is_exhaustion(&error) => ProbeError::Exhausted(error),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            ProbeError::Fault(Fault::ConnectionRefused)
        }
        io::ErrorKind::TimedOut => ProbeError::Fault(Fault::ConnectionTimeout),
        io::ErrorKind::BrokenPipe => ProbeError::Fault(Fault::ConnectionTerminated),
        _ => ProbeError::Fault(Fault::DestinationUnroutable),
    }
}
