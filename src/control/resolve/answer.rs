//! What the records of a lookup mean: which addresses a name stands for, with which weights.
//!
//! Pure. The addresses are sorted, so that an answer in another order changes nothing, and bounded:
//! of more than a name may have, the same ones are kept each time.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Found;
use crate::control::compile::Resolved;

/// The most addresses that a name stands for.
pub(super) const ADDRESSES_MAX: usize = 256;

/// The most SRV records of a name that are looked at; each may be another host to look up.
pub(super) const TARGETS_MAX: usize = 64;

/// The greatest weight of [`Resolved`].
const WEIGHT_MAX: u64 = 1_000;

/// What a host was last found to have, by family, as long as its name is asked for: a family whose
/// lookup fails keeps its addresses while the other one is answered.
pub(super) type Memory = BTreeMap<String, [Vec<IpAddr>; 2]>;

/// What asking for the addresses of one family came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// There are some.
    Addresses(Vec<IpAddr>, Duration),
    /// The server says that there is none, and how it said it.
    None(String),
    /// The server says nothing, or that it can't.
    Failed(String),
}

/// The addresses of a host, and how long that is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) all: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// What both families of a host come to. One that fails while the other is answered is no failure:
/// it keeps what it `had`.
pub(super) fn host(had: &mut [Vec<IpAddr>; 2], heard: [Family; 2]) -> Result<Addresses, String> {
    let ttls = heard.iter().filter_map(|family| match family {
        Family::Addresses(_, ttl) => Some(*ttl),
        _ => None,
    });
    let Some(ttl) = ttls.min() else {
        return Err(reason(heard));
    };
    for (had, heard) in had.iter_mut().zip(heard) {
        match heard {
            Family::Addresses(addresses, _) => *had = addresses,
            Family::None(_) => had.clear(),
            Family::Failed(_) => {}
        }
    }
    let all = had.concat();
    Ok(Addresses { all, ttl })
}

/// Why there is no address: that a server failed says more than that it has none of one family.
fn reason(heard: [Family; 2]) -> String {
    let mut none = String::new();
    for family in heard {
        match family {
            Family::Failed(reason) => return reason,
            Family::None(reason) if none.is_empty() => none = reason,
            Family::None(_) | Family::Addresses(..) => {}
        }
    }
    none
}

/// What a host with the addresses `all` stands for; its backends know the port.
///
/// # Errors
/// When none of them can be connected to.
pub(super) fn of_host(all: &[IpAddr]) -> Result<Found, String> {
    let found = all.iter().map(|address| Resolved {
        address: SocketAddr::new(*address, 0),
        weight: 1,
        backup: false,
    });
    bounded(found.collect(), Vec::new())
}

/// An SRV record (RFC 2782). The order is that of the fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) priority: u16,
    /// In lower case, with its last dot.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) weight: u16,
}

/// Those of `targets` that are looked up, sorted, and what was left out.
///
/// # Errors
/// When there is none.
pub(super) fn targets(mut targets: Vec<Target>) -> Result<(Vec<Target>, Vec<String>), String> {
    targets.sort_unstable();
    targets.dedup_by(|a, b| (&a.host, a.port) == (&b.host, b.port) && a.priority == b.priority);
    let all = targets.len();
    // RFC 2782: a target of "." says that the service is decidedly not available here.
    targets.retain(|target| target.host != ".");
    if targets.is_empty() {
        return Err("its SRV records say that the service is not available".to_owned());
    }
    let mut remarks = Vec::new();
    let before = targets.len();
    targets.retain(|target| target.port != 0);
    if targets.len() < before {
        remarks.push(format!(
            "{} SRV records have port 0",
            before - targets.len()
        ));
    }
    if TARGETS_MAX < targets.len() {
        targets.truncate(TARGETS_MAX);
        remarks.push(format!("of {all} SRV records {TARGETS_MAX} are used"));
    }
    if targets.is_empty() {
        return Err("all its SRV records have port 0".to_owned());
    }
    Ok((targets, remarks))
}

/// What the SRV records `targets` stand for, each with the addresses of its host. The least
/// priority is ordinary, others are backups. A target's weight is that of all its addresses
/// together.
///
/// # Errors
/// When no address can be connected to.
pub(super) fn of_targets(
    targets: &[(Target, Vec<IpAddr>)],
    remarks: Vec<String>,
) -> Result<Found, String> {
    let least = targets.iter().map(|(target, _)| target.priority).min();
    let (first, others): (Vec<_>, Vec<_>) = targets
        .iter()
        .partition(|(target, _)| Some(target.priority) == least);
    let mut found = Vec::new();
    for (group, backup) in [(first, false), (others, true)] {
        let weights = weights(&group);
        for ((target, addresses), weight) in group.into_iter().zip(weights) {
            found.extend(addresses.iter().map(|address| Resolved {
                address: SocketAddr::new(*address, target.port),
                weight,
                backup,
            }));
        }
    }
    bounded(found, remarks)
}

/// The weight of each address of each target: in proportion, `1..=1000`. Exact where the numbers
/// allow it.
fn weights(group: &[&(Target, Vec<IpAddr>)]) -> Vec<u32> {
    // Enough for what can be told apart in the end.
    const COMMON_MAX: u64 = 1_000_000;
    let mut common = 1;
    for (_, addresses) in group {
        let count = addresses.len().max(1) as u64;
        let multiple = common / common_divisor(common, count) * count;
        common = multiple.min(COMMON_MAX);
    }
    let share = |(target, addresses): &&(Target, Vec<IpAddr>)| {
        u64::from(target.weight) * common / addresses.len().max(1) as u64
    };
    let shares: Vec<u64> = group.iter().map(share).collect();
    let divisor = shares.iter().copied().fold(0, common_divisor).max(1);
    let most = shares.iter().copied().max().unwrap_or(0) / divisor;
    // RFC 2782: a weight of 0 is a very small chance beside others, not none.
    let has_least = 0 < most && shares.contains(&0);
    let scaled = |share: &u64| match share / divisor {
        share if most <= WEIGHT_MAX && !has_least => share,
        share => (share * WEIGHT_MAX + most / 2) / most,
    };
    let weights = shares.iter().map(scaled).map(|weight| weight.max(1) as u32);
    weights.collect()
}

const fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// `found` without what cannot be connected to, sorted, and no more than may be.
fn bounded(found: Vec<Resolved>, mut remarks: Vec<String>) -> Result<Found, String> {
    let canonical = |found: Resolved| Resolved {
        // An IPv4 address in the clothes of an IPv6 one is the same endpoint.
        address: SocketAddr::new(found.address.ip().to_canonical(), found.address.port()),
        ..found
    };
    let found = found.into_iter().map(canonical);
    let (mut kept, unusable): (Vec<_>, Vec<_>) =
        found.partition(|found| is_usable(found.address.ip()));
    if let Some(first) = unusable.iter().map(|found| found.address.ip()).min() {
        let count = unusable.len();
        let remark = format!("{count} addresses cannot be connected to, as {first}");
        remarks.push(remark);
    }
    // Those that are used first come first; of one that is there twice the first stays.
    kept.sort_unstable_by_key(|found| (found.backup, found.address, found.weight));
    let mut seen = HashSet::new();
    kept.retain(|found| seen.insert(found.address));
    if ADDRESSES_MAX < kept.len() {
        let count = kept.len();
        kept.truncate(ADDRESSES_MAX);
        remarks.push(format!("of {count} addresses {ADDRESSES_MAX} are used"));
    }
    if kept.is_empty() {
        return Err(remarks.pop().unwrap_or_else(|| "no addresses".to_owned()));
    }
    kept.sort_unstable();
    Ok(Found {
        addresses: kept,
        remarks,
    })
}

/// Whether somebody may listen there. A link-local address of IPv6 says nothing without its
/// interface, which DNS cannot name (RFC 4007 section 6).
fn is_usable(address: IpAddr) -> bool {
    let is_out = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_out && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests;
