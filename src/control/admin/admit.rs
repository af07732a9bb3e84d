//! Who may ask the admin API for what.
//!
//! Whoever may open the socket's file may ask for all. On the loopback interface, whoever names it
//! so: a page in a browser can send requests there under a name of its own, but not under ours; and
//! it can't send the field that changes ask for without asking first, which nobody here answers. On
//! any other address nothing tells people apart, and only probes are answered: those of an
//! orchestrator come with a Host of its choosing.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, Uri, header};

use crate::config::AdminAddress;

/// From where the socket can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// From where the file system allows it.
    File,
    /// From this machine.
    Loopback,
    /// From other machines.
    Others,
}

impl Reach {
    pub(super) fn of(address: &AdminAddress) -> Self {
        match address {
            AdminAddress::Tcp(address) if is_loopback(address.ip()) => Self::Loopback,
            AdminAddress::Tcp(_) => Self::Others,
            AdminAddress::Unix(_) | AdminAddress::Off => Self::File,
        }
    }
}

/// What anybody may ask for.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// The field without which nothing is changed. A form of a page cannot have it.
const CHANGES: &str = "x-ringmain";

/// Why a request is refused; `None`: it is not.
pub(super) fn refusal(
    reach: Reach,
    method: &Method,
    target: &Uri,
    fields: &HeaderMap,
) -> Option<&'static str> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match reach {
        Reach::Others if reads && PROBES.contains(&target.path()) => return None,
        Reach::Others => {
            return Some(
                "refused: this address can be reached from other machines, and nothing is known \
                 here of who may ask; allowed: GET of /healthz and /readyz. For all else bind \
                 [admin] address to 127.0.0.1 or to unix:/path",
            );
        }
        Reach::Loopback if is_foreign(fields, target) => {
            return Some(
                "refused: Host is not a name of the loopback interface; \
                 allowed: localhost, 127.0.0.1, [::1]",
            );
        }
        Reach::Loopback | Reach::File => {}
    }
    if reads {
        return None;
    }
    if !is_own(fields, target) {
        return Some("refused: Origin is another site's; allowed: none, or http:// and the Host");
    }
    let mut marks = fields.get_all(CHANGES).iter();
    let is_meant = marks.next().is_some_and(|mark| mark == "1") && marks.next().is_none();
    (!is_meant).then_some("refused: what changes something needs the field X-Ringmain: 1")
}

/// True exactly when the request was not meant for the loopback interface by name, or does not say
/// for whom it is.
fn is_foreign(fields: &HeaderMap, target: &Uri) -> bool {
    let Some(host) = only(fields, header::HOST) else {
        return true;
    };
    !names_loopback(host) || !names_loopback(asked(host, target))
}

/// True exactly when the request does not come from a page of another site: it has no Origin, or
/// that of the site that it asks. What a browser keeps to itself, `null`, is nobody's.
fn is_own(fields: &HeaderMap, target: &Uri) -> bool {
    if !fields.contains_key(header::ORIGIN) {
        return true;
    }
    let origin = only(fields, header::ORIGIN);
    let site = origin.and_then(|origin| origin.split_once("://"));
    let (Some((scheme, authority)), Some(host)) = (site, only(fields, header::HOST)) else {
        return false;
    };
    let same = parts(authority).zip(parts(asked(host, target)));
    scheme.eq_ignore_ascii_case("http")
        && same.is_some_and(|(one, other)| one.1 == other.1 && one.0.eq_ignore_ascii_case(other.0))
}

/// The value of a field that is there once.
fn only(fields: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = fields.get_all(name).iter();
    let (value, second) = (values.next()?, values.next());
    value.to_str().ok().filter(|_| second.is_none())
}

/// RFC 9112 section 3.2.2: the authority of an absolute target is in Host's place.
fn asked<'a>(host: &'a str, target: &'a Uri) -> &'a str {
    let authority = target.authority();
    authority.map_or(host, |authority| authority.as_str())
}

/// The name and the port of an authority over HTTP.
fn parts(authority: &str) -> Option<(&str, u16)> {
    /// RFC 9110 section 4.2.1.
    const HTTP: u16 = 80;
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((_, port)) if port.ends_with(']') => Some((authority, HTTP)),
        Some((name, "")) => Some((name, HTTP)),
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((name, port.parse().ok()?))
        }
        Some(_) => None,
        None => Some((authority, HTTP)),
    }
}

/// `host` with or without a port.
fn names_loopback(host: &str) -> bool {
    let Some((name, _port)) = parts(host) else {
        return false;
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_addresses_of_the_loopback_interface_are_known() {
        for host in [
            "localhost",
            "LOCALHOST:9901",
            "127.0.0.1",
            "127.0.0.1:9901",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:9901",
            "[::ffff:127.0.0.1]:9901",
        ] {
            assert!(names_loopback(host), "{host}");
        }
        for host in [
            "",
            ":9901",
            "localhost.evil.test",
            "evil.test:9901",
            "10.0.0.1:9901",
            "127.0.0.1.evil.test",
            "0.0.0.0:9901",
            "[::]:9901",
            "127.0.0.1:x",
        ] {
            assert!(!names_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_address_says_from_where_it_is_reached() {
        let cases = [
            ("127.0.0.1:9901", Reach::Loopback),
            ("[::1]:0", Reach::Loopback),
            ("0.0.0.0:9901", Reach::Others),
            ("10.0.0.1:9901", Reach::Others),
            ("unix:/run/ringmain.sock", Reach::File),
        ];
        for (address, reach) in cases {
            let address = address.parse().expect("it is an address");
            assert_eq!(Reach::of(&address), reach, "{address}");
        }
    }

    /// A request as `METHOD TARGET` and its fields; what its refusal says, empty where there is
    /// none.
    #[track_caller]
    fn check(reach: Reach, request: &str, fields: &[(&str, &str)], says: &str) {
        let (method, target) = request.split_once(' ').expect("both are there");
        let method = method.parse().expect("it is a method");
        let target = target.parse().expect("it is a target");
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name: header::HeaderName = name.parse().expect("it is a name");
            map.append(name, value.parse().expect("it is a value"));
        }
        let refusal = refusal(reach, &method, &target, &map).unwrap_or_default();
        assert_eq!(refusal.is_empty(), says.is_empty(), "{request}: {refusal}");
        assert!(refusal.contains(says), "{request}: {refusal}");
    }

    #[test]
    fn only_probes_are_answered_where_others_reach() {
        for host in ["10.1.2.3:9901", "localhost", "ringmain.example"] {
            let fields = [("Host", host), ("X-Ringmain", "1")];
            for probe in ["GET /healthz", "HEAD /readyz", "GET /readyz?service=a"] {
                check(Reach::Others, probe, &fields, "");
            }
            for other in ["GET /", "GET /plan", "GET /report", "GET /healthz/"] {
                check(Reach::Others, other, &fields, "bind [admin]");
            }
            for change in ["POST /drain", "POST /reload", "POST /healthz"] {
                check(Reach::Others, change, &fields, "bind [admin]");
            }
        }
    }

    #[test]
    fn what_changes_something_says_so_and_comes_from_no_other_site() {
        let own = [
            "http://localhost:9901",
            "http://LOCALHOST:9901",
            "HTTP://localhost:9901",
        ];
        let others = [
            "null",
            "",
            "localhost:9901",
            "https://localhost:9901",
            "http://localhost",
            "http://localhost:99010",
            "http://localhost:9902",
            "http://127.0.0.1:9901",
            "http://evil.test:9901",
            "http://localhost:9901.evil.test",
            "http://localhost:9901/",
            "http://user@localhost:9901",
            "http://localhost:+9901",
        ];
        let mark = ("X-Ringmain", "1");
        let host = ("Host", "localhost:9901");
        for reach in [Reach::File, Reach::Loopback] {
            let drain = "POST /drain";
            check(reach, drain, &[host, mark], "");
            for origin in own {
                check(reach, drain, &[host, mark, ("Origin", origin)], "");
            }
            for origin in others {
                let fields = [host, mark, ("Origin", origin)];
                check(reach, drain, &fields, "Origin");
                check(reach, "GET /plan", &fields, "");
            }
            let twice = ("Origin", own[0]);
            check(reach, drain, &[host, mark, twice, twice], "Origin");
            for without in [
                &[host][..],
                &[host, ("X-Ringmain", "0")],
                &[host, mark, mark],
            ] {
                check(reach, drain, without, "X-Ringmain: 1");
            }
        }
    }

    #[test]
    fn an_absolute_target_stands_for_the_host() {
        let drain = "POST http://localhost:1/drain";
        let mark = ("X-Ringmain", "1");
        let host = ("Host", "localhost:2");
        let origin = ("Origin", "http://localhost:1");
        check(Reach::Loopback, drain, &[host, mark, origin], "");
        let origin = ("Origin", "http://localhost:2");
        check(Reach::Loopback, drain, &[host, mark, origin], "Origin");
        let evil = "POST http://evil.test/drain";
        check(Reach::Loopback, evil, &[host, mark], "Host is not");
    }

    proptest! {
        /// The scheme's own port may be left out, on either side; nothing else may differ.
        #[test]
        fn an_origin_is_own_exactly_when_name_and_port_are_the_hosts(
            names in [0_usize..4, 0..4],
            ports in [0_usize..4, 0..4],
        ) {
            const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "[::1]", "127.0.0.2"];
            const PORTS: [(&str, u16); 4] = [("", 80), (":80", 80), (":81", 81), (":9901", 9901)];
            let written = |side: usize| format!("{}{}", NAMES[names[side]], PORTS[ports[side]].0);
            let same = names[0] == names[1] && PORTS[ports[0]].1 == PORTS[ports[1]].1;
            let (host, origin) = (written(0), format!("http://{}", written(1)));
            let fields = [("Host", &*host), ("Origin", &*origin), ("X-Ringmain", "1")];
            check(Reach::Loopback, "POST /reload", &fields, if same { "" } else { "Origin" });
        }
    }
}
