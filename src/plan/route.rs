//! From host, path and method to a service.
//!
//! `[[route]]` entries are tried in the order of the file; then the services' domains: the exact
//! host, then the wildcards, longest first. Hosts are compared without case and port: the caller
//! passes the host as it came, [`Routes::find`] folds it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::ServiceIndex;

/// The routing table of a plan.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Box<[Route]>,
    /// Exact domains in lower case.
    domains: HashMap<Box<[u8]>, ServiceIndex, BuildHasherDefault<HostHasher>>,
    /// Suffixes in lower case with their leading dot (`.example.com`), longest first.
    wildcards: Box<[(Box<[u8]>, ServiceIndex)]>,
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What the host must be.
    pub domain: DomainMatch,
    /// What the path must be.
    pub path: PathMatch,
    /// Methods, in their exact spelling (RFC 9110 section 9.1: they are case-sensitive); empty is
    /// any.
    pub methods: Box<[Box<str>]>,
    /// Where matching requests go.
    pub service: ServiceIndex,
}

/// A pattern for hosts, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainMatch {
    /// Any host, or none.
    Any,
    /// This one.
    Exact(Box<str>),
    /// Anything that ends in this suffix, which begins with a dot: `*.example.com` is
    /// `.example.com`.
    Suffix(Box<str>),
}

/// A pattern for paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Any path.
    Any,
    /// This one.
    Exact(Box<str>),
    /// `/api/*` is `/api/`: this prefix, or the prefix without its last slash.
    Prefix(Box<str>),
}

/// The longest host that can match, in whole lanes: a DNS name is at most 253 bytes (RFC 1035
/// section 2.3.4), a bracketed IPv6 address less.
pub const HOST_BYTES_MAX: usize = 16 * LANE;

/// How many bytes are folded at once.
const LANE: usize = 16;

impl Routes {
    /// Builds the table. `domains` are the services' domains in lower case, exact (`a.b`) or
    /// wildcard (`*.b`); of two equal ones the first wins (the configuration refuses them).
    pub fn new(
        routes: Vec<Route>,
        domains: impl IntoIterator<Item = (String, ServiceIndex)>,
    ) -> Self {
        let mut exact = HashMap::default();
        let mut wildcards: Vec<(Box<[u8]>, ServiceIndex)> = Vec::new();
        for (domain, service) in domains {
            match domain.strip_prefix('*') {
                Some(suffix) => wildcards.push((suffix.as_bytes().into(), service)),
                None => {
                    exact
                        .entry(domain.into_bytes().into_boxed_slice())
                        .or_insert(service);
                }
            }
        }
        wildcards.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Self {
            routes: routes.into(),
            domains: exact,
            wildcards: wildcards.into(),
        }
    }

    /// The service for a request, `host` as the client wrote it (case, port and brackets included),
    /// `path` without the query.
    pub fn find(&self, host: &[u8], path: &[u8], method: &[u8]) -> Option<ServiceIndex> {
        let mut folded = [0; HOST_BYTES_MAX];
        let host = fold(host, &mut folded)?;
        let routed = self
            .routes
            .iter()
            .find(|route| route.matches(host, path, method));
        if let Some(route) = routed {
            return Some(route.service);
        }
        if let Some(service) = self.domains.get(host) {
            return Some(*service);
        }
        let suffixed = self
            .wildcards
            .iter()
            .find(|(suffix, _)| ends_in(host, suffix));
        suffixed.map(|(_, service)| *service)
    }
}

impl Route {
    fn matches(&self, host: &[u8], path: &[u8], method: &[u8]) -> bool {
        let domain = match &self.domain {
            DomainMatch::Any => true,
            DomainMatch::Exact(domain) => domain.as_bytes() == host,
            DomainMatch::Suffix(suffix) => ends_in(host, suffix.as_bytes()),
        };
        let path = match &self.path {
            PathMatch::Any => true,
            PathMatch::Exact(exact) => exact.as_bytes() == path,
            PathMatch::Prefix(prefix) => {
                let prefix = prefix.as_bytes();
                path.starts_with(prefix) || Some(path) == prefix.strip_suffix(b"/")
            }
        };
        let method =
            self.methods.is_empty() || self.methods.iter().any(|name| name.as_bytes() == method);
        domain && path && method
    }
}

/// Eight bytes a step: the standard hasher takes 200 instructions more for a host. It withstands
/// chosen keys, but here the operator chooses them, and a client only asks.
#[derive(Clone, Copy, Debug, Default)]
struct HostHasher(u64);

impl HostHasher {
    #[inline]
    fn step(&mut self, word: u64) {
        // The constant of splitmix64, an odd one whose bits are well mixed.
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for HostHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            let word = word.first_chunk().copied().unwrap_or_default();
            self.step(u64::from_le_bytes(word));
        }
        match (words.remainder(), bytes.last_chunk()) {
            ([], _) => {}
            // The last word overlaps the one before it.
            (_, Some(word)) => self.step(u64::from_le_bytes(*word)),
            (few, None) => few.iter().for_each(|byte| self.step(u64::from(*byte))),
        }
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        self.step(length as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The table picks its bucket by the low bits, which a product mixes least.
        self.0 ^ self.0 >> 32
    }
}

/// A wildcard stands for at least one byte.
fn ends_in(host: &[u8], suffix: &[u8]) -> bool {
    suffix.len() < host.len() && host.ends_with(suffix)
}

/// `host` in lower case, without its port and a trailing dot; `None` when it is longer than any
/// that could match.
fn fold<'a>(host: &[u8], folded: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    let host = without_port(host);
    let host = host.strip_suffix(b".").unwrap_or(host);
    folded.get_mut(..host.len())?.copy_from_slice(host);
    // Whole lanes are folded at once; byte by byte it is 80 instructions more for a usual host.
    let lanes = folded.chunks_exact_mut(LANE);
    for lane in lanes.take(host.len().div_ceil(LANE)) {
        lane.make_ascii_lowercase();
    }
    Some(&folded[..host.len()])
}

/// RFC 3986 section 3.2: the port follows the last colon, unless that stands inside the brackets of
/// an IPv6 address.
fn without_port(host: &[u8]) -> &[u8] {
    // RFC 3986 section 3.2.3: *DIGIT; most hosts have none, and end in a letter.
    let Some(b'0'..=b'9' | b':') = host.last() else {
        return host;
    };
    match memchr::memrchr(b':', host) {
        Some(colon) if memchr::memchr(b']', &host[colon..]).is_none() => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Routes {
        let route = |domain, path, methods: &[&str], service| Route {
            domain,
            path,
            methods: methods.iter().map(|method| (*method).into()).collect(),
            service: ServiceIndex(service),
        };
        let routes = vec![
            route(
                DomainMatch::Exact("app.example.com".into()),
                PathMatch::Exact("/register".into()),
                &["POST"],
                10,
            ),
            route(
                DomainMatch::Any,
                PathMatch::Prefix("/static/".into()),
                &[],
                11,
            ),
            route(
                DomainMatch::Suffix(".admin.example.com".into()),
                PathMatch::Any,
                &["GET"],
                12,
            ),
        ];
        let domains = [
            ("example.com", 0),
            ("*.example.com", 1),
            ("*.eu.example.com", 2),
            ("app.example.com", 3),
            ("[::1]", 4),
        ];
        Routes::new(
            routes,
            domains.map(|(domain, service)| (domain.into(), ServiceIndex(service))),
        )
    }

    #[track_caller]
    fn check(host: &str, path: &str, method: &str, expected: Option<u32>) {
        let found = table().find(host.as_bytes(), path.as_bytes(), method.as_bytes());
        assert_eq!(found, expected.map(ServiceIndex), "{method} {host}{path}");
    }

    #[test]
    fn case_port_and_trailing_dot_do_not_matter() {
        check("example.com", "/", "GET", Some(0));
        check("EXAMPLE.com:8080", "/", "GET", Some(0));
        check("example.com.", "/", "GET", Some(0));
        check("[::1]:80", "/", "GET", Some(4));
        check("[::1]", "/", "GET", Some(4));
        check("example.com:", "/", "GET", Some(0));
        check(
            "a-host-of-more-than-sixteen.EXAMPLE.com",
            "/",
            "GET",
            Some(1),
        );
    }

    #[test]
    fn exact_wins_over_wildcards_and_the_longest_wildcard_over_the_others() {
        check("app.example.com", "/", "GET", Some(3));
        check("b.example.com", "/", "GET", Some(1));
        check("b.eu.example.com", "/", "GET", Some(2));
        check(".example.com", "/", "GET", None);
        check("example.org", "/", "GET", None);
        check("", "/", "GET", None);
    }

    #[test]
    fn routes_come_before_domains_in_their_order() {
        check("app.example.com", "/register", "POST", Some(10));
        check("app.example.com", "/register", "GET", Some(3));
        check("app.example.com", "/register/", "POST", Some(3));
        check("nobody.org", "/static/a.css", "GET", Some(11));
        check("nobody.org", "/static", "GET", Some(11));
        check("nobody.org", "/statics", "GET", None);
        check("x.admin.example.com", "/", "GET", Some(12));
        check("x.admin.example.com", "/", "PUT", Some(1));
    }

    #[test]
    fn a_host_that_is_too_long_matches_nothing() {
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        check(&long, "/static/a", "GET", None);
    }
}
