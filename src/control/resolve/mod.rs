//! Asks DNS what the names of backends stand for, again and again, and tells control's loop.
//!
//! A task for each name, on control's own thread; no shard ever resolves. `client.rs` is one lookup
//! over the network, `answer.rs` what its records mean, `pace.rs` when the next one is, `names.rs`
//! what control knows of each name. An answer is used until its TTL has passed, within the bounds
//! of `[dns]`; while there is no better one, the last good answer stays.
//!
//! Everything that a server says is bounded: how long a lookup takes, how many are under way, how
//! many targets a service and how many addresses a name has.

mod answer;
mod client;
mod names;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

pub use names::{Heard, Names, News};

use self::answer::Memory;
use self::client::Client;
use self::pace::Pace;
use super::compile::{Live, Resolved};
use crate::balance::{self, Xorshift};
use crate::config::{BackendAddress, Config, Dns};

/// Lookups under way at once; each may hold four descriptors, two families at two servers.
const LOOKUPS_MAX: usize = 32;

/// Descriptors that a lookup may hold.
const LOOKUP_DESCRIPTORS: u64 = 4;

/// Answers that control has not heard yet; who has another one waits.
const ANSWERS_MAX: usize = 1024;

/// How long the start, or a reload, waits for the first answers, all together.
pub const START_MAX: Duration = Duration::from_secs(3);

/// Descriptors that the lookups of `questions` may hold at once.
pub fn descriptors_max(questions: &BTreeSet<Question>) -> u64 {
    let lookups = questions.iter().map(|question| match question {
        Question::Host(_) => 1,
        // Its hosts are looked up side by side.
        Question::Srv(_) => answer::TARGETS_MAX,
    });
    lookups.sum::<usize>().min(LOOKUPS_MAX) as u64 * LOOKUP_DESCRIPTORS
}

/// What DNS is asked for a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The addresses of a host.
    Host(String),
    /// The SRV records of a name, and the addresses of their targets.
    Srv(String),
}

impl Question {
    /// What is asked for `address`; `None` where it is an address by itself.
    pub fn of(address: &BackendAddress) -> Option<Self> {
        match address {
            BackendAddress::Socket(_) => None,
            BackendAddress::Host(host, _) => Some(Self::Host(host.clone())),
            BackendAddress::Srv(name) => Some(Self::Srv(name.clone())),
        }
    }

    /// Every one that the backends of `config` ask, each once.
    pub fn all(config: &Config) -> BTreeSet<Self> {
        let backends = config.services().iter();
        let backends = backends.flat_map(|service| &service.backends);
        backends
            .filter_map(|backend| Self::of(&backend.address))
            .collect()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Host(name) | Self::Srv(name)) = self;
        f.write_str(name)
    }
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// What it stands for, or why that is not known.
    pub found: Result<Found, String>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// At least one, sorted, no address twice. Of a host the ports are 0: its backends know them.
    pub addresses: Vec<Resolved>,
    /// What of the answer could not be used, a sentence each.
    pub remarks: Vec<String>,
}

impl Found {
    /// What it means for a backend at `address`.
    fn at(&self, address: &BackendAddress) -> Vec<Resolved> {
        let BackendAddress::Host(_, port) = address else {
            return self.addresses.clone();
        };
        let with_port = |found: &Resolved| Resolved {
            address: SocketAddr::new(found.address.ip(), *port),
            ..*found
        };
        self.addresses.iter().map(with_port).collect()
    }
}

/// The tasks that ask, and what they say.
#[derive(Debug)]
pub struct Resolvers {
    tasks: JoinSet<()>,
    /// Who is asked for.
    asked: BTreeMap<Question, Asked>,
    /// Made for the first name, and anew for another `[dns]`.
    client: Option<Arc<Client>>,
    /// What `client` goes by, and the pace of the names that are new.
    dns: Dns,
    answers: Receiver<Answer>,
    answers_in: Sender<Answer>,
}

/// A name that is asked for.
#[derive(Debug)]
struct Asked {
    task: AbortHandle,
    /// What the task goes by.
    dns: Dns,
}

/// One name while it is looked up.
#[derive(Debug)]
struct Resolver {
    question: Question,
    client: Arc<Client>,
    memory: Memory,
    pace: Pace,
    generator: Xorshift,
    answers: Sender<Answer>,
}

impl Resolvers {
    /// Asks for every name of `config` from now on. To be called on control's runtime.
    pub fn start(config: &Config) -> Self {
        let (answers_in, answers) = channel(ANSWERS_MAX);
        let mut resolvers = Self {
            tasks: JoinSet::new(),
            asked: BTreeMap::new(),
            client: None,
            dns: config.dns().clone(),
            answers,
            answers_in,
        };
        resolvers.ask(Question::all(config), config.dns());
        resolvers
    }

    /// Asks for `questions` as `dns` says, beside what is asked for so already.
    fn ask(&mut self, questions: BTreeSet<Question>, dns: &Dns) {
        if self.dns != *dns {
            self.dns = dns.clone();
            self.client = None;
        }
        for question in questions {
            let same = |asked: &Asked| asked.dns == self.dns;
            if self.asked.get(&question).is_some_and(same) {
                continue;
            }
            let client = self
                .client
                .get_or_insert_with(|| Arc::new(Client::new(dns)));
            let resolver = Resolver {
                question: question.clone(),
                client: Arc::clone(client),
                memory: Memory::default(),
                pace: Pace::new(dns),
                generator: balance::generator(),
                answers: self.answers_in.clone(),
            };
            let asked = Asked {
                task: self.tasks.spawn(resolver.live()),
                dns: dns.clone(),
            };
            if let Some(last) = self.asked.insert(question, asked) {
                last.task.abort();
            }
        }
    }

    /// Asks for the names of `config`, as its `[dns]` says, and for no others.
    fn adopt(&mut self, config: &Config) {
        let questions = Question::all(config);
        self.asked.retain(|question, asked| {
            let stays = questions.contains(question);
            if !stays {
                asked.task.abort();
            }
            stays
        });
        self.ask(questions, config.dns());
    }

    /// Waits for the next answer that is news: another one than the last, or a failure; for ever
    /// where nobody asks. May be dropped: none is lost.
    pub async fn next(&mut self) -> Answer {
        loop {
            tokio::select! {
                Some(answer) = self.answers.recv() => return answer,
                Some(Err(error)) = self.tasks.join_next() => {
                    if !error.is_cancelled() {
                        log::error!(error:%; "a name is not resolved any more");
                    }
                }
                else => pending().await,
            }
        }
    }

    /// Ends all lookups that are under way, and begins no others.
    pub fn stop(&mut self) {
        self.tasks.abort_all();
        self.answers.close();
    }
}

impl Resolver {
    /// Asks until it is aborted.
    async fn live(mut self) {
        let mut last = None;
        loop {
            let is_sound = matches!(last, Some(Ok(_)));
            let asked = self.client.ask(&self.question, &mut self.memory, is_sound);
            let (found, wait) = match asked.await {
                Ok((found, ttl)) => (Ok(found), self.pace.after_answer(ttl)),
                Err(reason) => {
                    let unit = balance::draw_unit(&mut self.generator);
                    (Err(reason), self.pace.after_failure(unit))
                }
            };
            if found.is_err() || last.as_ref() != Some(&found) {
                let answer = Answer {
                    question: self.question.clone(),
                    found: found.clone(),
                };
                last = Some(found);
                // Nobody listens any more when the process drains.
                let _unheard = self.answers.send(answer).await;
            }
            sleep(wait).await;
        }
    }
}

/// The names of a configuration: who asks for them, and what is known.
#[derive(Debug)]
pub struct Naming {
    /// Who asks.
    pub resolvers: Resolvers,
    /// What is known.
    pub names: Names,
}

impl Naming {
    /// Asks for every name of `config` from now on. To be called on control's runtime.
    pub fn start(config: &Config) -> Self {
        Self {
            resolvers: Resolvers::start(config),
            names: Names::of(config),
        }
    }

    /// Asks for the names of `next` that are new, whose configuration does not run yet. Gives those
    /// of which nothing is known.
    pub fn prepare(&mut self, next: &Config) -> BTreeSet<Question> {
        let mut questions = Question::all(next);
        questions.retain(|question| !self.names.is_heard(question));
        for question in &questions {
            self.names.expect(question.clone());
        }
        self.resolvers.ask(questions.clone(), next.dns());
        questions
    }

    /// The names are those of `config` from now on. What is known of those that stay stays, and
    /// `live` knows what they stand for.
    pub fn adopt(&mut self, config: &Config, live: &mut Live) {
        self.names.adopt(config, &mut live.resolved);
        self.resolvers.adopt(config);
    }

    /// Waits until each name was answered for, or could not be, but not for long; `live` knows then
    /// what is known. The first plan waits for this: what it had to do without would be answered
    /// with `dns_error`.
    pub async fn first(&mut self, live: &mut Live) {
        let names = self.names.unheard().count();
        if 0 < names {
            log::info!(names; "looking names up");
        }
        let all = timeout(START_MAX, async {
            while self.names.has_unheard() {
                let answer = self.resolvers.next().await;
                let heard = self.names.hear(answer, &mut live.resolved, now());
                heard.news.iter().for_each(News::log);
            }
        });
        if all.await.is_err() {
            for question in self.names.unheard() {
                log::warn!(name:% = question; "a name is not resolved yet; starting without it");
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the control plane reads the clock"
)]
fn now() -> Instant {
    Instant::now()
}
