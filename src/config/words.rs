//! Which texts a configuration may hold: names, domains, paths, methods, fields, log filters.
//!
//! Each function takes what the operator wrote, gives back what is kept (folded where case does not
//! matter), or says what is allowed. Pure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::findings::nearest;
use super::service::BackendAddress;
use crate::plan::HashKey;

/// Fields that say how a message is framed or that belong to one connection (RFC 9110 section
/// 7.6.1): ringmain writes them itself. To set one of them would let two readers frame a message
/// differently.
const FRAMING_FIELDS: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// The methods of RFC 9110 section 9.3 and RFC 5789.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The name of a listener or a service; it appears in logs, metrics and the admin API's paths.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len());
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if fits && text.bytes().all(known) {
        return Ok(text.into());
    }
    Err(format!(
        "{text:?} is not a name; allowed: 1 to 64 of A-Z a-z 0-9 . _ -"
    ))
}

/// A [`name`], or nothing.
pub(super) fn name_or_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        name(text)
    }
}

/// An address to listen on. Port 0 has the kernel choose one.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not an address; allowed: IP:PORT, as in \"0.0.0.0:8080\" or \"[::]:8080\""
        )
    })
}

/// Where a backend is: an address to connect to, or a host and a port. A host that ends with a dot
/// is not looked for in the search domains of resolv.conf.
pub(super) fn backend_address(text: &str) -> Result<BackendAddress, String> {
    const ALLOWED: &str =
        "allowed: IP:PORT or HOST:PORT, as in \"127.0.0.1:9090\" or \"[::1]:9090\"";
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(format!("{text:?} has port 0; allowed: 1 to 65535")),
            _ => Ok(BackendAddress::Socket(address)),
        };
    }
    if text.contains("://") {
        return Err(format!("{text:?} is a URL; {ALLOWED}"));
    }
    if text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("{text:?} has no port; {ALLOWED}"));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if !is_resolvable(host) {
        return Err(format!("{text:?} is not an address; {ALLOWED}"));
    }
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} has no port; {ALLOWED}"));
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok(BackendAddress::Host(host.to_ascii_lowercase(), port)),
        _ => Err(format!("{text:?} has port {port}; allowed: 1 to 65535")),
    }
}

/// The name of a service's SRV records (RFC 2782).
pub(super) fn srv_name(text: &str) -> Result<BackendAddress, String> {
    if is_resolvable(text) {
        return Ok(BackendAddress::Srv(text.to_ascii_lowercase()));
    }
    Err(format!(
        "{text:?} is not the name of SRV records; allowed: one without a port, as in \
         \"_http._tcp.example.com\""
    ))
}

/// A host name that may be looked up. One whose last label is a number is an address with a typing
/// error in it: no such top-level domain will ever be (RFC 1123 section 2.1).
fn is_resolvable(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    host_name(host) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A DNS server: an address, at port 53 where none is written.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    /// RFC 1035 section 4.2.
    const PORT: u16 = 53;
    let address = text.parse::<SocketAddr>().ok();
    let bare = || Some(SocketAddr::new(text.parse().ok()?, PORT));
    let found = address.filter(|address| address.port() != 0).or_else(bare);
    found.ok_or_else(|| {
        format!("{text:?} is not a server; allowed: IP or IP:PORT, as in \"127.0.0.53\"")
    })
}

/// A domain in lower case: a host name, a wildcard for all names below one, or an IP address as it
/// stands in a Host field.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let folded = text.to_ascii_lowercase();
    let address = folded
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address {
        let address: Ipv6Addr = address.parse().map_err(|_| not_a_domain(text))?;
        return Ok(format!("[{address}]"));
    }
    if host_name(folded.strip_prefix("*.").unwrap_or(&folded)) {
        return Ok(folded);
    }
    Err(not_a_domain(text))
}

fn not_a_domain(text: &str) -> String {
    format!(
        "{text:?} is not a domain; allowed: a host name without a port, in ASCII, as in \
         \"example.com\" or \"*.example.com\", or an IP address, as in \"127.0.0.1\" or \"[::1]\""
    )
}

/// A [`domain`], or nothing.
pub(super) fn domain_or_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        domain(text)
    }
}

/// RFC 1123 section 2.1, and the underscore, which container networks use; at most 253 bytes (RFC
/// 1035 section 2.3.4).
fn host_name(text: &str) -> bool {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let edged = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && label.bytes().all(known) && !edged
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A route's path: exact, a prefix with `/*` at its end, or nothing.
pub(super) fn path(text: &str) -> Result<String, String> {
    let exact = text.strip_suffix("/*").unwrap_or(text);
    // RFC 3986 section 3.3: what a path is made of, `?` and `#` not.
    let known = |byte: u8| byte.is_ascii_graphic() && !b"?#*\"<>\\^`{|}".contains(&byte);
    let rooted = text.is_empty() || text.starts_with('/');
    if rooted && exact.bytes().all(known) {
        return Ok(text.into());
    }
    Err(format!(
        "{text:?} is not a path; allowed: \"\" for any, one that begins with \"/\", or a prefix \
         that ends in \"/*\""
    ))
}

/// A path to send a request to.
pub(super) fn target(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.into());
    }
    Err(format!(
        "{text:?} is not a path; allowed: one that begins with \"/\""
    ))
}

/// A [`target`], or nothing.
pub(super) fn target_or_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        target(text)
    }
}

/// A method, in its exact spelling (RFC 9110 section 9.1).
pub(super) fn method(text: &str) -> Result<String, String> {
    if !token(text) {
        return Err(format!(
            "{text:?} is not a method; allowed: a token, as in \"POST\""
        ));
    }
    let upper = text.to_ascii_uppercase();
    if upper != text && METHODS.contains(&upper.as_str()) {
        return Err(format!(
            "{text:?} would match nothing: methods keep their case; use {upper:?}"
        ));
    }
    Ok(text.into())
}

/// The name of a field that an operator may set or remove.
pub(super) fn field_name(text: &str) -> Result<String, String> {
    if !token(text) {
        return Err(format!(
            "{text:?} is not a field name; allowed: a token (RFC 9110), as in \"X-Served-By\""
        ));
    }
    if FRAMING_FIELDS.iter().any(|field| same_field(text, field)) {
        return Err(format!(
            "{text:?} frames the message or belongs to one connection; ringmain alone writes it"
        ));
    }
    Ok(text.into())
}

/// A [`field_name`] that requests may be given: who set Via would blind us to loops, who set
/// Max-Forwards would keep it from counting down (RFC 9110 sections 7.6.2, 7.6.3), and who set
/// Expect would speak for clients that do not wait (section 10.1.1).
pub(super) fn request_field_name(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("expect") {
        return Err(format!(
            "{text:?} is the client's to say; it may be removed, but not set"
        ));
    }
    if ["via", "max-forwards"]
        .iter()
        .any(|field| same_field(text, field))
    {
        return Err(format!(
            "{text:?} counts or names the hops; ringmain alone writes it"
        ));
    }
    field_name(text)
}

/// True exactly when both name one field, in any case; who hands fields on in variables takes `_`
/// for `-` (RFC 3875 section 4.1.18).
pub(super) fn same_field(name: &str, other: &str) -> bool {
    let hyphened = |name: &str| name.replace('_', "-");
    hyphened(name).eq_ignore_ascii_case(&hyphened(other))
}

/// The name of a field that may be removed: a request without Host is no request (RFC 9112 section
/// 3.2).
pub(super) fn removable_field_name(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("host") {
        return Err(format!("{text:?} may be set, but not removed"));
    }
    field_name(text)
}

/// A [`field_name`], or nothing.
pub(super) fn field_name_or_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        field_name(text)
    }
}

/// A field's value: RFC 9110 section 5.5, without what could end the field. What is wrong with
/// it is said without it: it may be a secret, and a refused reload is told in the log.
pub(super) fn field_value(text: &str) -> Result<String, String> {
    let mut letters = (1..).zip(text.chars());
    let wrong = letters.find(|(_, letter)| letter.is_control() && *letter != '\t');
    if let Some((place, letter)) = wrong {
        return Err(format!(
            "a field's value takes no control character; letter {place} is {letter:?}"
        ));
    }
    if text.trim_matches([' ', '\t']) != text {
        return Err("a field's value does not begin or end with blanks, as this one does".into());
    }
    Ok(text.into())
}

/// A query parameter's name, or nothing.
pub(super) fn parameter(text: &str) -> Result<String, String> {
    // RFC 3986 section 2.3: unreserved, so that it is spelled in one way only.
    let known =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
    if text.len() <= 64 && text.bytes().all(known) {
        return Ok(text.into());
    }
    Err(format!(
        "{text:?} is not a parameter; allowed: up to 64 of A-Z a-z 0-9 . _ ~ -"
    ))
}

/// The name of a query parameter that a route looks at, as it is sent.
pub(super) fn query_name(text: &str) -> Result<String, String> {
    if text.contains('=') {
        return Err(format!(
            "{text:?} is not a parameter's name: it has a \"=\""
        ));
    }
    match query_value(text)?.as_str() {
        "" => Err("\"\" is not a parameter's name".into()),
        name => Ok(name.into()),
    }
}

/// The value of a query parameter, as it is sent: nothing decodes `%20` or `+` before it is
/// compared.
pub(super) fn query_value(text: &str) -> Result<String, String> {
    // RFC 3986 section 3.4: what a query is made of, without what ends a parameter.
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$'()*+,;=:@/?%".contains(&byte);
    if text.bytes().all(known) {
        return Ok(text.into());
    }
    Err(format!(
        "{text:?} cannot stand in a query; allowed: A-Z a-z 0-9 and - . _ ~ ! $ ' ( ) * + , ; = : \
         @ / ?, others as they are sent, in percent, as in \"%20\""
    ))
}

/// Our name in Via (RFC 9110 section 7.6.3: a pseudonym is a token), or nothing.
pub(super) fn via(text: &str) -> Result<String, String> {
    if text.is_empty() || (token(text) && text.len() <= 64) {
        return Ok(text.into());
    }
    Err(format!(
        "{text:?} is not a name for Via; allowed: a token (RFC 9110) of up to 64"
    ))
}

/// Which log records are written: a level, or levels by module, as in `warn,ringmain=debug`.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    for part in text.split(',') {
        let (target, level) = part.split_once('=').unwrap_or(("", part));
        let level = level.trim().to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) || target.contains(['/', '=']) {
            let near = nearest(&level, LEVELS).expect("there are levels");
            return Err(format!(
                "{part:?} is not a level; the nearest is {near:?}; allowed: {}, or levels by \
                 module, as in \"warn,ringmain=debug\"",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(text.into())
}

/// Where log records go: `stderr`, `stdout`, or a file's path.
pub(super) fn log_target(text: &str) -> Result<String, String> {
    file_path(text)?;
    if text.is_empty() {
        return Err("\"\" is no place for a log; allowed: stderr, stdout, or a path".into());
    }
    Ok(text.into())
}

/// A path in the file system, or nothing.
pub(super) fn file_path(text: &str) -> Result<String, String> {
    match text.contains('\0') {
        true => Err(format!("{text:?} is not a path: it has a zero byte")),
        false => Ok(text.into()),
    }
}

/// What a hash policy hashes.
pub(super) fn hash_key(text: &str) -> Result<HashKey, String> {
    let of = |prefix| text.strip_prefix(prefix).filter(|name| token(name));
    match (text, of("field:"), of("cookie:")) {
        ("client", ..) => Ok(HashKey::Client),
        ("path", ..) => Ok(HashKey::Path),
        (_, Some(name), _) => Ok(HashKey::Field(name.into())),
        (_, _, Some(name)) => Ok(HashKey::Cookie(name.into())),
        _ => Err(format!(
            "{text:?} is not known; allowed: client, path, field:NAME, cookie:NAME"
        )),
    }
}

/// RFC 9110 section 5.6.2.
fn token(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(known)
}
