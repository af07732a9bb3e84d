//! One request's head: what it asks for, of whom, and how its body is framed.

use std::net::Ipv6Addr;

use httparse::{Header, Status};

use super::exchange::RequestFacts;
use super::field::{Field, Learned, check_line_ends, elements, invalid, nominations, refusal};
use super::framing::BodyLength;
use super::head::{FieldSpace, HeadError, HeadLimits};
use super::scan::is_token_byte;
use super::upgrade;

/// A request's head, borrowed from the read buffer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in the client's case (RFC 9110 section 9.1: it is case-sensitive).
    pub method: &'a [u8],
    /// The target as it is sent upstream: the origin form, or `*`. Begins with `?` where an
    /// absolute form had a query behind an empty path; the `/` is written before it.
    pub target: &'a [u8],
    /// The target up to its query; at least one byte.
    pub path: &'a [u8],
    /// What follows the `?`.
    pub query: Option<&'a [u8]>,
    /// The authority asked for, port included; empty where there is none.
    pub host: &'a [u8],
    /// True exactly when the Host that is sent upstream is not the field that came.
    pub host_rewritten: bool,
    /// 0 or 1: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    /// Every field, in order.
    pub fields: &'a [Header<'a>],
    /// How the body is framed.
    pub body: BodyLength,
    /// The client means to send another request on this connection.
    pub keep_alive: bool,
    /// The method is HEAD.
    pub head_method: bool,
    /// The method is idempotent.
    pub idempotent: bool,
    /// The client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// How many more times an OPTIONS or a TRACE may be forwarded; at 0 the answer is ours to give.
    /// `None` where that is not limited, and for every other method.
    pub max_forwards: Option<u32>,
    /// The client offers to go on in another protocol, and that is passed on.
    pub upgrade: bool,
    pub(super) head: &'a [u8],
    pub(super) learned: Learned<'a>,
}

/// The request line, as httparse or the slow way round it read it.
struct Line<'a> {
    method: &'a str,
    target: &'a str,
    minor: u8,
    fields: &'a [Header<'a>],
}

impl<'a> Request<'a> {
    /// Reads the head that [`super::head::HeadScan`] delimited.
    ///
    /// # Errors
    ///
    /// Everything that [`HeadError`] names but `TooLong` and `TargetTooLong`.
    pub fn parse<'b: 'a>(
        head: &'b [u8],
        limits: &HeadLimits,
        space: &'a mut FieldSpace<'b>,
    ) -> Result<Self, HeadError> {
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        let line = Line::parse(head, limits, space)?;
        if line.method == "CONNECT" {
            return Err(HeadError::Unsupported);
        }
        let learned = Learned::from_fields(line.fields)?;
        let target = Target::parse(line.target, line.method)?;
        let host = host(&target, &learned, line.minor)?;
        let body = BodyLength::of_request(learned.length, learned.chunked, line.minor)?;
        // RFC 9110 section 10.1.1: any other expectation may be answered with 417. Stricter: it is,
        // and so is what only looks like 100-continue (`y 100-continue`, or a list): an endpoint
        // that takes it for one may answer without reading the body, and read that as a request.
        if learned.seen.has(Field::Expect) && !learned.expects_continue && line.minor == 1 {
            return Err(HeadError::Expectation);
        }
        let upgrade = learned.upgrade && line.minor == 1 && !body.may_have_bytes();
        let waits = learned.expects_continue && body.may_have_bytes();
        Ok(Self {
            method: line.method.as_bytes(),
            target: target.whole,
            path: target.path,
            query: target.query,
            host,
            host_rewritten: target.authority.is_some() || learned.host.is_none(),
            minor: line.minor,
            fields: line.fields,
            body,
            keep_alive: learned.persists(line.minor),
            head_method: line.method == "HEAD",
            idempotent: is_idempotent(line.method),
            // RFC 9110 section 10.1.1: the expectation of a HTTP/1.0 client is ignored.
            expects_continue: waits && line.minor == 1,
            max_forwards: max_forwards(&line, &learned)?,
            // RFC 9110 section 7.8: Connection has to list it, and the Upgrade of a HTTP/1.0 client
            // is ignored. Stricter: so is that of a request with a body, for where an endpoint
            // switches before it has read that, two readers see different begins of the tunnel.
            upgrade: upgrade && upgrade::is_offer(line.fields),
            head,
            learned,
        })
    }

    /// What outlives the head.
    pub const fn facts(&self) -> RequestFacts {
        RequestFacts {
            minor: self.minor,
            keep_alive: self.keep_alive,
            head_method: self.head_method,
            idempotent: self.idempotent,
            body: self.body,
            expects_continue: self.expects_continue,
        }
    }

    /// The protocols that it offers to go on in, as a list; `None` where it offers none that is
    /// passed on. Allocates, for the one request in many that does.
    pub fn offer(&self) -> Option<Box<[u8]>> {
        self.upgrade.then(|| upgrade::list(self.fields))
    }

    /// What its Connection lists, where that may name a trailer (RFC 9110 section 7.6.1).
    /// Allocates, for the one in many that does.
    pub fn nominations(&self) -> Option<Box<[u8]>> {
        let may_have_trailers = self.body == BodyLength::Chunked;
        (self.learned.nominates && may_have_trailers).then(|| nominations(self.fields))
    }

    /// The value of the query parameter `name`, as it was sent; empty where there is no `=`.
    pub fn parameter(&self, name: &[u8]) -> Option<&'a [u8]> {
        let parameters = self.query?.split(|byte| *byte == b'&');
        parameters.into_iter().find_map(|parameter| {
            let rest = parameter.strip_prefix(name)?;
            match rest.split_first() {
                None => Some(rest),
                Some((b'=', value)) => Some(value),
                Some(_) => None,
            }
        })
    }

    /// The value of each line of the field `name`, in any case (RFC 9110 section 5.1), without the
    /// white space around it; a line that is a list stays one.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.fields.iter();
        let of_name = lines.filter(move |line| line.name.eq_ignore_ascii_case(name));
        of_name.map(|line| line.value)
    }

    /// The value of the first cookie `name`, which is case-sensitive, as it was sent (RFC 6265
    /// section 5.4: `Cookie: a=b; c=d`).
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let pairs = self.values("cookie");
        let mut pairs = pairs.flat_map(|value| value.split(|byte| *byte == b';'));
        pairs.find_map(|pair| {
            let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            rest.strip_prefix(b"=")
        })
    }

    /// True exactly when `via_name` has received this request before (RFC 9110 section 7.6.3).
    pub fn passed_through(&self, via_name: &str) -> bool {
        self.learned.seen.has(Field::Via)
            && self
                .fields
                .iter()
                .filter(|header| Field::of(header.name) == Field::Via)
                .flat_map(|header| elements(header.value))
                .filter_map(received_by)
                .any(|name| name.eq_ignore_ascii_case(via_name.as_bytes()))
    }
}

impl<'a> Line<'a> {
    fn parse<'b: 'a>(
        head: &'b [u8],
        limits: &HeadLimits,
        space: &'a mut FieldSpace<'b>,
    ) -> Result<Self, HeadError> {
        // httparse skips any number of empty lines, and takes a bare LF for one.
        if head.first().is_none_or(|first| !is_token_byte(*first)) {
            return Err(invalid("a first byte that begins no method"));
        }
        let mut request = httparse::Request::new(&mut []);
        let status = request
            .parse_with_uninit_headers(head, space.within(limits))
            .map_err(|error| line_refusal(error, head))?;
        let httparse::Request {
            method: Some(method),
            path: Some(target),
            version: Some(minor),
            headers,
        } = request
        else {
            return Err(invalid("a head that ends too early"));
        };
        if status != Status::Complete(head.len()) {
            return Err(invalid("a head that does not end where it must"));
        }
        check_line_ends(head, headers)?;
        Ok(Self {
            method,
            target,
            minor,
            fields: headers,
        })
    }
}

/// A version that is not ours is told apart from what is no version.
#[cold]
fn line_refusal(error: httparse::Error, head: &[u8]) -> HeadError {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or(head);
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    match (refusal(error, head), words.next(), words.next()) {
        // RFC 9112 section 2.3: HTTP-name "/" DIGIT "." DIGIT.
        (
            HeadError::Version,
            Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']),
            None,
        ) => HeadError::Version,
        (HeadError::Version, _, _) => invalid("a malformed version"),
        (refused, _, _) => refused,
    }
}

/// A request target in its parts (RFC 9112 section 3.2).
struct Target<'a> {
    whole: &'a [u8],
    path: &'a [u8],
    query: Option<&'a [u8]>,
    /// The authority of an absolute form.
    authority: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    #[inline]
    fn parse(target: &'a str, method: &str) -> Result<Self, HeadError> {
        // RFC 3986 section 2 knows ASCII only; readers disagree on what other bytes stand for.
        if !target.is_ascii() {
            return Err(invalid("a target with bytes outside ASCII"));
        }
        match target.as_bytes() {
            whole @ [b'/', ..] => Self::split(whole, None),
            b"*" if method == "OPTIONS" => Self::split(b"*", None),
            b"*" => Err(invalid("a target of * in a request other than OPTIONS")),
            absolute => Self::absolute(absolute, method),
        }
    }

    fn split(whole: &'a [u8], authority: Option<&'a [u8]>) -> Result<Self, HeadError> {
        let (path, query) = match memchr::memchr2(b'?', b'#', whole) {
            None => (whole, None),
            Some(at) => (&whole[..at], Some(&whole[at..])),
        };
        // RFC 9112 section 3.2: a fragment is never sent; who cuts it off routes differently.
        if query.is_some_and(|query| memchr::memchr(b'#', query).is_some()) {
            return Err(invalid("a target with a fragment"));
        }
        Ok(Self {
            whole,
            path: if path.is_empty() { b"/" } else { path },
            query: query.map(|query| &query[1..]),
            authority,
        })
    }

    /// RFC 9112 section 3.2.2. The scheme is http: we hold no certificate, so that no request for
    /// https can have been meant for this connection (RFC 9110 section 7.4).
    fn absolute(target: &'a [u8], method: &str) -> Result<Self, HeadError> {
        let rest = match target.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http://") => rest,
            _ => return Err(invalid("a target that is neither a path nor a http URI")),
        };
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
        let (authority, whole) = rest.split_at(end.unwrap_or(rest.len()));
        // RFC 9110 section 4.2.1: an empty host is invalid; section 4.2.4: so is userinfo.
        if authority.is_empty() || authority[0] == b':' || !is_authority(authority) {
            return Err(invalid("a malformed authority in the target"));
        }
        match (whole, method) {
            // RFC 9112 section 3.2.4: OPTIONS for the server as a whole.
            (b"", "OPTIONS") => Self::split(b"*", Some(authority)),
            (b"", _) => Self::split(b"/", Some(authority)),
            _ => Self::split(whole, Some(authority)),
        }
    }
}

/// The authority that is asked for: RFC 9112 sections 3.2 and 3.2.2.
#[inline]
fn host<'a>(target: &Target<'a>, learned: &Learned<'a>, minor: u8) -> Result<&'a [u8], HeadError> {
    if learned.host_repeated {
        return Err(invalid("Host twice"));
    }
    if learned.host.is_none() && minor == 1 {
        return Err(invalid("no Host"));
    }
    let host = learned.host.unwrap_or_default();
    if !is_authority(host) {
        return Err(invalid("a malformed Host"));
    }
    // RFC 9112 section 3.2.2: the authority of an absolute form replaces the Host.
    Ok(target.authority.unwrap_or(host))
}

/// RFC 9110 section 7.2: uri-host [ ":" port ], possibly empty; no userinfo.
#[inline]
fn is_authority(authority: &[u8]) -> bool {
    let port = match authority {
        [b'[', literal @ ..] => {
            let Some(close) = literal.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let (address, port) = literal.split_at(close);
            // RFC 6874 section 2: a zone means something to its own host alone; it is refused.
            let address = std::str::from_utf8(address).unwrap_or_default();
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            &port[1..]
        }
        _ => {
            let end = authority.iter().position(|byte| !is_name_byte(*byte));
            &authority[end.unwrap_or(authority.len())..]
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    }
}

/// RFC 3986 section 3.2.3: *DIGIT. Stricter: in 16 bits, for a reader that cuts it to those sees
/// another port.
fn is_port(digits: &[u8]) -> bool {
    let value = digits.iter().try_fold(0_u16, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    });
    value.is_some() && digits.len() <= 5
}

/// RFC 3986 section 3.2.2: the bytes of reg-name, but for the comma, which some readers take for a
/// list of two hosts.
const fn is_name_byte(byte: u8) -> bool {
    const NAME: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = (byte as u8).is_ascii_alphanumeric()
                || matches!(byte as u8, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$')
                || matches!(
                    byte as u8,
                    b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
                );
            byte += 1;
        }
        table
    };
    NAME[byte as usize]
}

/// RFC 9110 section 7.6.2: the Max-Forwards of an OPTIONS or a TRACE. In other methods it is passed
/// unread.
#[inline]
fn max_forwards(line: &Line<'_>, learned: &Learned<'_>) -> Result<Option<u32>, HeadError> {
    if !learned.seen.has(Field::MaxForwards) || !matches!(line.method, "OPTIONS" | "TRACE") {
        return Ok(None);
    }
    let mut values = line
        .fields
        .iter()
        .filter(|header| Field::of(header.name) == Field::MaxForwards)
        .map(|header| header.value);
    match (values.next().and_then(hops), values.next()) {
        (Some(hops), None) => Ok(Some(hops)),
        // Stricter: a number over 32 bits could be lowered to one within; to a reader that wraps
        // around it is another one.
        _ => Err(invalid("a malformed Max-Forwards")),
    }
}

/// RFC 9110 section 7.6.2: 1*DIGIT.
fn hops(value: &[u8]) -> Option<u32> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    )
}

/// RFC 9110 section 7.6.3: received-protocol RWS received-by [ RWS comment ].
fn received_by(element: &[u8]) -> Option<&[u8]> {
    let mut words = element
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    words.nth(1)
}

#[cfg(test)]
mod tests;
