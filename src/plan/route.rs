//! From host, path, method, fields and query to a service.
//!
//! `[[route]]` entries are tried in the order of the file; then the services' domains: the exact
//! host, then the wildcards, longest first. Hosts are compared without case and port: the caller
//! passes the host as it came, [`Routes::find`] folds it. Where a route has several services, the
//! generator, an argument, draws one by weight for each request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::ServiceIndex;
use crate::balance::{Xorshift, draw_below};
use crate::http::head::Request;

/// The routing table of a plan.
#[derive(Debug, Default, PartialEq, Eq)]
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
    /// Names of fields, in any case, each with the value that one of its lines must be, to the
    /// byte: a line that is a list is one value (RFC 9110 section 5.3: which commas separate is
    /// for each field to say).
    pub fields: Box<[(Box<str>, Box<str>)]>,
    /// Names of query parameters, each with the value that its first occurrence must have; both as
    /// they are sent, without decoding.
    pub query: Box<[(Box<str>, Box<str>)]>,
    /// Where matching requests go.
    pub destination: Destination,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To one service.
    Service(ServiceIndex),
    /// To one of several.
    Weighted(Weights),
}

/// Services with their shares of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Each service with the sum of its weight and of those before it: the sums rise.
    sums: Box<[(u32, ServiceIndex)]>,
    total: u32,
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

    /// The service for `request`, whose host is `host`, as the client wrote it (case, port and
    /// brackets included).
    pub fn find(
        &self,
        host: &[u8],
        request: &Request<'_>,
        generator: &mut Xorshift,
    ) -> Option<ServiceIndex> {
        let mut folded = [0; HOST_BYTES_MAX];
        let host = fold(host, &mut folded)?;
        let routed = self
            .routes
            .iter()
            .find(|route| route.matches(host, request));
        if let Some(route) = routed {
            return Some(route.destination.draw(generator));
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
    #[inline]
    fn matches(&self, host: &[u8], request: &Request<'_>) -> bool {
        let (path, method) = (request.path, request.method);
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
        domain && path && method && (self.takes_any_head() || self.has_in_head(request))
    }

    fn takes_any_head(&self) -> bool {
        self.fields.is_empty() && self.query.is_empty()
    }

    /// Kept out of the way of the routes that look at neither.
    #[inline(never)]
    fn has_in_head(&self, request: &Request<'_>) -> bool {
        let (mut fields, mut query) = (self.fields.iter(), self.query.iter());
        fields.all(|(name, value)| request.values(name).any(|line| line == value.as_bytes()))
            && query
                .all(|(name, value)| request.parameter(name.as_bytes()) == Some(value.as_bytes()))
    }
}

impl Destination {
    #[inline]
    fn draw(&self, generator: &mut Xorshift) -> ServiceIndex {
        match self {
            Self::Service(service) => *service,
            Self::Weighted(weights) => weights.draw(generator),
        }
    }
}

impl Weights {
    /// Of services and their weights; those without any get nothing.
    ///
    /// # Panics
    /// When no service has a weight, or their sum is over `u32::MAX`.
    pub fn new(weights: impl IntoIterator<Item = (ServiceIndex, u32)>) -> Self {
        let mut total = 0_u32;
        let with_weight = weights.into_iter().filter(|(_, weight)| 0 < *weight);
        let sums = with_weight.map(|(service, weight)| {
            total = total.checked_add(weight).expect("weights are small");
            (total, service)
        });
        let sums: Box<[_]> = sums.collect();
        assert!(0 < total, "a service has a weight");
        Self { sums, total }
    }

    /// Each service with its weight, which is 1 or more.
    pub fn services(&self) -> impl Iterator<Item = (ServiceIndex, u32)> {
        let before = std::iter::once(0).chain(self.sums.iter().map(|(sum, _)| *sum));
        let sums = self.sums.iter().zip(before);
        sums.map(|((sum, service), before)| (*service, sum - before))
    }

    fn draw(&self, generator: &mut Xorshift) -> ServiceIndex {
        let drawn = draw_below(self.total, generator);
        let place = self.sums.partition_point(|(sum, _)| *sum <= drawn);
        self.sums[place].1
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
    use rand::SeedableRng;

    use super::*;
    use crate::http::head::{FieldSpace, HeadLimits};

    fn table() -> Routes {
        let route = |domain, path, methods: &[&str], service| Route {
            domain,
            path,
            methods: methods.iter().map(|method| (*method).into()).collect(),
            fields: [].into(),
            query: [].into(),
            destination: Destination::Service(ServiceIndex(service)),
        };
        let pairs = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect()
        };
        let canary = Route {
            fields: pairs(&[("X-Canary", "1"), ("x-group", "")]),
            ..route(DomainMatch::Any, PathMatch::Any, &[], 13)
        };
        let tried = Route {
            query: pairs(&[("try", "a%20b"), ("flag", "")]),
            ..route(DomainMatch::Any, PathMatch::Any, &[], 14)
        };
        let routes = vec![
            canary,
            tried,
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

    fn find(routes: &Routes, host: &str, head: &str) -> Option<u32> {
        let limits = HeadLimits {
            bytes_max: 4096,
            fields_max: 10,
        };
        let mut space = FieldSpace::new();
        let request = Request::parse(head.as_bytes(), &limits, &mut space).unwrap();
        let mut generator = Xorshift::seed_from_u64(7);
        let found = routes.find(host.as_bytes(), &request, &mut generator);
        found.map(|ServiceIndex(service)| service)
    }

    #[track_caller]
    fn check(host: &str, path: &str, method: &str, expected: Option<u32>) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let found = find(&table(), host, &head);
        assert_eq!(found, expected, "{method} {host}{path}");
    }

    #[track_caller]
    fn check_head(target: &str, fields: &str, expected: Option<u32>) {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(find(&table(), "nobody.org", &head), expected, "{head:?}");
    }

    #[test]
    fn a_route_by_fields_wants_all_of_them_and_of_each_one_line() {
        for (fields, expected) in [
            ("X-Canary: 1\r\nX-Group:\r\n", Some(13)),
            ("x-group: \r\nx-CANARY: \t1 \r\n", Some(13)),
            ("X-Canary: 0\r\nX-Canary: 1\r\nX-Group: \r\n", Some(13)),
            ("X-Canary: 1\r\n", None),
            ("X-Canary: 0, 1\r\nX-Group:\r\n", None),
            ("X-Canary: 11\r\nX-Group:\r\n", None),
            ("X-Canary: 1\r\nX-Group: x\r\n", None),
            ("X_Canary: 1\r\nX-Group:\r\n", None),
        ] {
            check_head("/", fields, expected);
        }
    }

    #[test]
    fn a_route_by_query_wants_all_of_its_parameters_as_they_are_sent() {
        for (target, expected) in [
            ("/?try=a%20b&flag", Some(14)),
            ("/?flag=&x=1&try=a%20b", Some(14)),
            ("/?try=a%20b", None),
            ("/?try=a+b&flag", None),
            ("/?try=a%2520b&flag", None),
            ("/?TRY=a%20b&flag", None),
            ("/?try=x&try=a%20b&flag", None),
            ("/?try=a%20b&flag=1", None),
            ("/?xtry=a%20b&flag", None),
            ("/", None),
        ] {
            check_head(target, "", expected);
        }
    }

    #[test]
    fn a_draw_holds_the_weights() {
        let weights =
            [(0, 0), (1, 9), (2, 1), (3, 0)].map(|(it, weight)| (ServiceIndex(it), weight));
        let weights = Weights::new(weights);
        let listed: Vec<_> = weights.services().collect();
        assert_eq!(listed, [(ServiceIndex(1), 9), (ServiceIndex(2), 1)]);
        let mut generator = Xorshift::seed_from_u64(7);
        let mut counts = [0; 4];
        for _ in 0..10_000 {
            counts[weights.draw(&mut generator).0 as usize] += 1;
        }
        // Ten standard deviations of the 1,000 that are expected are 300.
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert!((700..1_300).contains(&counts[2]), "{counts:?}");
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
