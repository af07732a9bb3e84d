//! One lookup over the network: the hosts file first, then the servers, A and AAAA side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::{self, Addresses, Family, Memory, Target};
use super::{Found, LOOKUPS_MAX, Question};
use crate::config::Dns;
use crate::units::format_duration;

/// One lookup, of both families at all servers, with all its tries.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// One try of it at a server, so that there is time for another.
const TRY_MAX: Duration = Duration::from_secs(2);

/// How long one family is waited for when the other has addresses: some servers never answer what
/// they do not know.
const FAMILY_MAX: Duration = Duration::from_millis(500);

/// Lookups under way at once that are not known to be answered. One that is silent takes all of
/// [`LOOKUP_MAX`]: hundreds of names whose server is gone would keep all others waiting.
const DOUBTFUL_MAX: usize = LOOKUPS_MAX * 3 / 4;

/// CNAME records from a name to its addresses.
const ALIASES_MAX: usize = 16;

/// Who is asked where resolv.conf names nobody: resolv.conf(5).
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// What all lookups share.
#[derive(Debug)]
pub(super) struct Client {
    /// Or why there is none.
    resolver: Result<TokioResolver, String>,
    /// As it was at the start.
    hosts: Hosts,
    lookups: Semaphore,
    /// Those of them whose last one was no good, or is the first.
    doubtful: Semaphore,
}

impl Client {
    /// Asks whom `dns` names, else whom resolv.conf does.
    pub(super) fn new(dns: &Dns) -> Self {
        Self {
            resolver: resolver(dns).map_err(|error| error.to_string()),
            hosts: Hosts::from_system().unwrap_or_default(),
            lookups: Semaphore::new(LOOKUPS_MAX),
            doubtful: Semaphore::new(DOUBTFUL_MAX),
        }
    }

    /// What `question` stands for now, and for how long. `memory` is what it was last; `is_sound`
    /// exactly when the last lookup was good.
    ///
    /// # Errors
    /// Why that is not known.
    pub(super) async fn ask(
        self: &Arc<Self>,
        question: &Question,
        memory: &mut Memory,
        is_sound: bool,
    ) -> Result<(Found, Duration), String> {
        match question {
            Question::Host(host) => {
                let had = memory.entry(host.clone()).or_default();
                let Addresses { all, ttl } = self.host(host, had, is_sound).await?;
                Ok((answer::of_host(&all)?, ttl))
            }
            Question::Srv(name) => self.service(name, memory, is_sound).await,
        }
    }

    async fn service(
        self: &Arc<Self>,
        name: &str,
        memory: &mut Memory,
        is_sound: bool,
    ) -> Result<(Found, Duration), String> {
        let (targets, mut ttl) = self.targets(name, is_sound).await?;
        let (targets, mut remarks) = answer::targets(targets)?;
        let mut found = BTreeMap::new();
        let mut is_answered = false;
        let mut failed = None;
        for (host, had, heard) in self.hosts_of(&targets, memory, is_sound).await {
            match heard {
                Ok(addresses) => {
                    ttl = ttl.min(addresses.ttl);
                    is_answered = true;
                    found.insert(host.clone(), addresses.all);
                }
                Err(error) => {
                    remarks.push(format!("{host}: {error}"));
                    failed.get_or_insert(error);
                    found.insert(host.clone(), had.concat());
                }
            }
            memory.insert(host, had);
        }
        memory.retain(|host, _| found.contains_key(host));
        if let Some(reason) = failed.filter(|_| !is_answered) {
            return Err(reason);
        }
        let addresses = |target: Target| {
            let addresses = found[&target.host].clone();
            (target, addresses)
        };
        let targets: Vec<_> = targets.into_iter().map(addresses).collect();
        Ok((answer::of_targets(&targets, remarks)?, ttl))
    }

    /// What the hosts of `targets` have now, each once, in their order; with what they had.
    async fn hosts_of(
        self: &Arc<Self>,
        targets: &[Target],
        memory: &Memory,
        is_sound: bool,
    ) -> Vec<(String, [Vec<IpAddr>; 2], Result<Addresses, String>)> {
        let hosts: BTreeSet<&String> = targets.iter().map(|target| &target.host).collect();
        let mut lookups = JoinSet::new();
        for host in hosts {
            let (client, host) = (Arc::clone(self), host.clone());
            let mut had = memory.get(&host).cloned().unwrap_or_default();
            lookups.spawn(async move {
                let heard = client.host(&host, &mut had, is_sound).await;
                (host, had, heard)
            });
        }
        let mut all = lookups.join_all().await;
        all.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        all
    }

    async fn host(
        &self,
        host: &str,
        had: &mut [Vec<IpAddr>; 2],
        is_sound: bool,
    ) -> Result<Addresses, String> {
        let name = Name::from_ascii(host).map_err(|error| error.to_string())?;
        // Who stands in the hosts file, be it with one family, is not asked for elsewhere:
        // hosts(5), nsswitch.conf(5).
        if let Some(all) = self.in_hosts(&name) {
            let ttl = Duration::MAX;
            return Ok(Addresses { all, ttl });
        }
        let _turn = self.turn(is_sound).await;
        let both = async {
            let v4 = self.family(&name, RecordType::A);
            let v6 = self.family(&name, RecordType::AAAA);
            tokio::pin!(v4, v6);
            tokio::select! {
                v4 = &mut v4 => { let v6 = beside(&v4, v6).await; [v4, v6] }
                v6 = &mut v6 => { let v4 = beside(&v6, v4).await; [v4, v6] }
            }
        };
        let heard = timeout(LOOKUP_MAX, both).await;
        answer::host(had, heard.map_err(|_elapsed| no_answer(LOOKUP_MAX))?)
    }

    fn in_hosts(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let families = [RecordType::A, RecordType::AAAA];
        let found = families.map(|family| {
            let query = Query::query(name.clone(), family);
            self.hosts.lookup_static_host(&query)
        });
        let found = found.iter().flatten();
        let records = found.flat_map(|lookup| lookup.answers());
        let addresses: Vec<_> = records.filter_map(|record| record.data.ip_addr()).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    /// The addresses of `name` in one family.
    async fn family(&self, name: &Name, family: RecordType) -> Family {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(reason) => return Family::Failed(reason.clone()),
        };
        let lookup = match resolver.lookup(name.clone(), family).await {
            Ok(lookup) => lookup,
            Err(error) => return failed(&error),
        };
        let records = own_records(&lookup);
        let of_family = records.iter();
        let of_family = of_family.filter(|record| record.record_type() == family);
        let addresses: Vec<_> = of_family
            .filter_map(|record| record.data.ip_addr())
            .collect();
        if addresses.is_empty() {
            return Family::None("no addresses".to_owned());
        }
        Family::Addresses(addresses, ttl(&records))
    }

    /// The SRV records of `name`.
    async fn targets(&self, name: &str, is_sound: bool) -> Result<(Vec<Target>, Duration), String> {
        let name = Name::from_ascii(name).map_err(|error| error.to_string())?;
        let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
        let _turn = self.turn(is_sound).await;
        let lookup = timeout(LOOKUP_MAX, resolver.lookup(name, RecordType::SRV)).await;
        let lookup = lookup.map_err(|_elapsed| no_answer(LOOKUP_MAX))?;
        let lookup = lookup.map_err(|error| match failed(&error) {
            Family::None(reason) | Family::Failed(reason) => reason,
            Family::Addresses(..) => String::new(),
        })?;
        let records = own_records(&lookup);
        let targets = records.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Target {
                priority: srv.priority,
                host: srv.target.to_lowercase().to_ascii(),
                port: srv.port,
                weight: srv.weight,
            }),
            _ => None,
        });
        let targets: Vec<_> = targets.collect();
        if targets.is_empty() {
            return Err("no SRV records".to_owned());
        }
        Ok((targets, ttl(&records)))
    }

    /// Waits until another lookup may be under way.
    async fn turn(&self, is_sound: bool) -> (Option<SemaphorePermit<'_>>, SemaphorePermit<'_>) {
        let doubtful = match is_sound {
            true => None,
            false => Some(self.doubtful.acquire().await.expect("nobody closes it")),
        };
        let turn = self.lookups.acquire().await.expect("nobody closes it");
        (doubtful, turn)
    }
}

/// What the `other` family comes to: it has not for ever where `this` one has addresses.
async fn beside(this: &Family, other: impl Future<Output = Family>) -> Family {
    if !matches!(this, Family::Addresses(..)) {
        return other.await;
    }
    let other = timeout(FAMILY_MAX, other).await;
    other.unwrap_or_else(|_elapsed| Family::Failed(no_answer(FAMILY_MAX)))
}

fn no_answer(within: Duration) -> String {
    format!("no answer within {}", format_duration(within))
}

/// The records of the name that was asked for and of those that it is an alias of: those of others
/// have nothing to say here, whatever a server adds to its answer.
fn own_records(lookup: &Lookup) -> Vec<&Record> {
    let names = aliases(lookup);
    let records = lookup.answers().iter();
    records
        .filter(|record| names.contains(&record.name))
        .collect()
}

/// How long all of `records` are good.
fn ttl(records: &[&Record]) -> Duration {
    let ttls = records.iter().map(|record| record.ttl);
    Duration::from_secs(ttls.min().unwrap_or(0).into())
}

/// The name that was asked for, and those that it is an alias of.
fn aliases(lookup: &Lookup) -> Vec<Name> {
    let mut names = vec![lookup.query().name().clone()];
    while names.len() <= ALIASES_MAX {
        let next = lookup
            .answers()
            .iter()
            .find_map(|record| match &record.data {
                RData::CNAME(alias) if names.last() == Some(&record.name) => Some(&alias.0),
                _ => None,
            });
        match next {
            Some(next) if !names.contains(next) => names.push(next.clone()),
            _ => break,
        }
    }
    names
}

/// What an error says of the family that was asked for.
fn failed(error: &NetError) -> Family {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NoError => Family::None("no addresses".to_owned()),
            ResponseCode::NXDomain => Family::None("no such name (NXDOMAIN)".to_owned()),
            code => Family::Failed(code.to_string()),
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => {
            Family::Failed("the server failed (SERVFAIL)".to_owned())
        }
        NetError::Timeout => Family::Failed(no_answer(TRY_MAX)),
        error => Family::Failed(error.to_string()),
    }
}

fn resolver(dns: &Dns) -> Result<TokioResolver, NetError> {
    let (servers, mut options) = servers(dns);
    options.timeout = options.timeout.min(TRY_MAX);
    // Nothing is used for longer than its TTL, which is counted in pace.rs.
    options.cache_size = 0;
    // Of all lookups at once, for both families, on one connection.
    options.max_active_requests = 2 * LOOKUPS_MAX;
    options.use_hosts_file = ResolveHosts::Never;
    let builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
    builder.with_options(options).build()
}

/// Who is asked, and how.
fn servers(dns: &Dns) -> (ResolverConfig, ResolverOpts) {
    let of = |servers: &[SocketAddr]| {
        let servers = servers.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        (config, ResolverOpts::default())
    };
    if !dns.servers.is_empty() {
        return of(&dns.servers);
    }
    system_conf::read_system_conf().unwrap_or_else(|error| {
        let error = match &error {
            NetError::Io(error) if error.kind() == io::ErrorKind::NotFound => "not found".into(),
            error => error.to_string(),
        };
        log::warn!(error, asked:% = NOBODY; "/etc/resolv.conf names no server");
        of(&[NOBODY])
    })
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections.into())
}
