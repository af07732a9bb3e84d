//! A strict reader of HTTP/1.1, written from RFC 9112 alone: it shares no code with ringmain.
//!
//! It reads what clients send, what reaches the backend, and what comes back. What the RFC lets a
//! recipient repair it refuses; it is as slow as it is simple.

use std::fmt;

/// What a message is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request.
    Request,
    /// A response, to a HEAD or not: that decides whether it has a body.
    Response { to_head: bool },
}

/// A message, or what there is of one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The three words of the start line.
    pub(crate) start: [Vec<u8>; 3],
    /// Names in lower case, and values.
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The content, decoded.
    pub(crate) body: Vec<u8>,
    /// The body has come to its end.
    pub(crate) whole: bool,
    /// Only the end of the connection ends the body.
    pub(crate) until_close: bool,
}

/// What stands at the front of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A whole message of so many bytes.
    Whole(Message, usize),
    /// The begin of a message; `None` as long as its head is not whole.
    Partial(Option<Message>),
    /// Something that breaks a rule; the message, where it is the body that does.
    Invalid(&'static str, Option<Message>),
}

/// A reader: what stands at the front of the bytes.
pub(crate) type Reader<'a> = &'a dyn Fn(Kind, &[u8]) -> Read;

/// The messages of one direction of a connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// In their order; only the last one may be in part.
    pub(crate) messages: Vec<Message>,
    /// What stands behind them that is no message, in a few words.
    pub(crate) rest: Option<&'static str>,
}

impl Message {
    /// The one value of a field; the first of several.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut values = self
            .fields
            .iter()
            .filter(|field| field.0 == name.as_bytes());
        values.next().map(|field| field.1.as_slice())
    }

    /// The elements of every field of this name.
    pub(crate) fn elements(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        let fields = self
            .fields
            .iter()
            .filter(move |field| field.0 == name.as_bytes());
        let lists = fields.flat_map(|field| field.1.split(|byte| *byte == b','));
        lists.map(<[u8]>::trim_ascii)
    }

    /// The status of a response; 0 of anything else.
    pub(crate) fn status(&self) -> u16 {
        let status = std::str::from_utf8(&self.start[1]);
        status
            .ok()
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }

    /// Method, target, length of the body, and whether that is all of it: what two readers must
    /// agree on.
    pub(crate) fn framed(&self) -> (&[u8], &[u8], &[u8], bool) {
        (&self.start[0], &self.start[1], &self.body, self.whole)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}", self.start.join(&b' ').escape_ascii())?;
        for (name, value) in &self.fields {
            write!(f, " | {}: {}", name.escape_ascii(), value.escape_ascii())?;
        }
        let end = if self.whole { "" } else { "..." };
        write!(f, " | {}{end})", self.body.escape_ascii())
    }
}

impl Reading {
    /// Reads all of `bytes`, which end by a FIN, by `reader`; interim responses are left out. The
    /// kind of each message is asked for by its place.
    pub(crate) fn of(bytes: &[u8], reader: Reader<'_>, kind: impl Fn(usize) -> Kind) -> Self {
        let mut reading = Self {
            messages: Vec::new(),
            rest: None,
        };
        let mut at = 0;
        while at < bytes.len() {
            let kind = kind(reading.messages.len());
            match reader(kind, &bytes[at..]) {
                Read::Whole(message, length) => {
                    at += length;
                    // RFC 9110 section 15.2.
                    if kind == Kind::Request || 200 <= message.status() {
                        reading.messages.push(message);
                    }
                }
                Read::Partial(Some(mut message)) if message.until_close => {
                    message.whole = true;
                    reading.messages.push(message);
                    break;
                }
                Read::Partial(message) => {
                    reading.rest = Some("a message in part");
                    reading.messages.extend(message);
                    break;
                }
                Read::Invalid(why, message) => {
                    reading.rest = Some(why);
                    reading.messages.extend(message);
                    break;
                }
            }
        }
        reading
    }

    /// Reads the requests in `bytes`, strictly.
    pub(crate) fn requests(bytes: &[u8]) -> Self {
        Self::of(bytes, &read, |_| Kind::Request)
    }
}

/// Why bytes are refused, or that more are needed.
enum Stop {
    More,
    Invalid(&'static str),
}

/// How a body is framed.
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads strictly what stands at the front of `bytes`.
pub(crate) fn read(kind: Kind, bytes: &[u8]) -> Read {
    // RFC 9112 section 2.2: an empty line before a request is ignored.
    let skipped = if kind == Kind::Request && bytes.starts_with(b"\r\n") {
        2
    } else {
        0
    };
    let (mut message, head) = match head(kind, &bytes[skipped..]) {
        Ok(head) => head,
        Err(Stop::More) => return Read::Partial(None),
        Err(Stop::Invalid(why)) => return Read::Invalid(why, None),
    };
    let framing = match framing(kind, &message) {
        Ok(framing) => framing,
        Err(why) => return Read::Invalid(why, None),
    };
    let rest = &bytes[skipped + head..];
    let taken = match framing {
        Framing::Length(length) => {
            message.body = rest[..length.min(rest.len())].to_vec();
            if length <= rest.len() {
                Ok(length)
            } else {
                Err(Stop::More)
            }
        }
        Framing::Chunked => chunks(rest, &mut message.body),
        Framing::UntilClose => {
            message.until_close = true;
            message.body = rest.to_vec();
            Err(Stop::More)
        }
    };
    match taken {
        Ok(taken) => {
            message.whole = true;
            Read::Whole(message, skipped + head + taken)
        }
        Err(Stop::More) => Read::Partial(Some(message)),
        Err(Stop::Invalid(why)) => Read::Invalid(why, Some(message)),
    }
}

/// The line at the front, without its end.
fn line(bytes: &[u8]) -> Result<&[u8], Stop> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Err(Stop::More);
    };
    match &bytes[end..] {
        [b'\r', b'\n', ..] => Ok(&bytes[..end]),
        [b'\r'] => Err(Stop::More),
        _ => Err(Stop::Invalid("a line that does not end with CRLF")),
    }
}

/// A message without its body, and the length of its head.
fn head(kind: Kind, bytes: &[u8]) -> Result<(Message, usize), Stop> {
    let first = line(bytes)?;
    let start = match kind {
        Kind::Request => request_line(first),
        Kind::Response { .. } => status_line(first),
    };
    let mut at = first.len() + 2;
    let mut fields = Vec::new();
    loop {
        let line = line(&bytes[at..])?;
        at += line.len() + 2;
        if line.is_empty() {
            break;
        }
        fields.push(field(line).ok_or(Stop::Invalid("no field"))?);
    }
    let message = Message {
        start: start.ok_or(Stop::Invalid("no start line"))?,
        fields,
        body: Vec::new(),
        whole: false,
        until_close: false,
    };
    if kind == Kind::Request {
        check_host(&message)?;
    }
    Ok((message, at))
}

/// RFC 9112 section 3: method SP request-target SP HTTP-version.
fn request_line(line: &[u8]) -> Option<[Vec<u8>; 3]> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let valid = is_token(method)
        && !target.is_empty()
        && target.iter().all(u8::is_ascii_graphic)
        && is_version(version)
        && words.next().is_none();
    valid.then(|| [method, target, version].map(<[u8]>::to_vec))
}

/// RFC 9112 section 4: HTTP-version SP status-code SP [ reason-phrase ]. That the second blank is
/// missing where the phrase is empty is so common that everybody reads it.
fn status_line(line: &[u8]) -> Option<[Vec<u8>; 3]> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (version, status) = (words.next()?, words.next()?);
    let phrase = words.next().unwrap_or_default();
    let valid = is_version(version)
        && status.len() == 3
        && status.iter().all(u8::is_ascii_digit)
        && b'1' <= status[0]
        && phrase.iter().all(|byte| is_text(*byte));
    valid.then(|| [version, status, phrase].map(<[u8]>::to_vec))
}

fn is_version(version: &[u8]) -> bool {
    matches!(version, b"HTTP/1.0" | b"HTTP/1.1")
}

/// RFC 9112 section 5: field-name ":" OWS field-value OWS.
fn field(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) || !value.iter().all(|byte| is_text(*byte)) {
        return None;
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = value
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(begin, |last| last + 1);
    Some((name.to_ascii_lowercase(), value[begin..end].to_vec()))
}

/// RFC 9112 section 3.2: exactly one in HTTP/1.1.
fn check_host(message: &Message) -> Result<(), Stop> {
    let hosts = message
        .fields
        .iter()
        .filter(|field| field.0 == b"host")
        .count();
    match (message.start[2].as_slice(), hosts) {
        (_, 1) | (b"HTTP/1.0", 0) => Ok(()),
        _ => Err(Stop::Invalid("not one Host")),
    }
}

/// RFC 9112 section 6.3. What it lets be repaired (equal lengths, a length beside a coding) is
/// refused.
fn framing(kind: Kind, message: &Message) -> Result<Framing, &'static str> {
    let values = |name: &[u8]| -> Vec<&[u8]> {
        let fields = message.fields.iter().filter(|field| field.0 == name);
        fields.map(|field| field.1.as_slice()).collect()
    };
    let version = match kind {
        Kind::Request => &message.start[2],
        Kind::Response { .. } => &message.start[0],
    };
    let framed = match (
        &values(b"content-length")[..],
        &values(b"transfer-encoding")[..],
    ) {
        ([], []) => None,
        ([length], []) => Some(Framing::Length(decimal(length).ok_or("a bad length")?)),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && version == b"HTTP/1.1" => {
            Some(Framing::Chunked)
        }
        _ => return Err("framed in two ways, or by a coding that nobody knows"),
    };
    Ok(match kind {
        Kind::Request => framed.unwrap_or(Framing::Length(0)),
        Kind::Response { to_head } => {
            let status = message.status();
            if to_head || status < 200 || matches!(status, 204 | 304) {
                Framing::Length(0)
            } else {
                framed.unwrap_or(Framing::UntilClose)
            }
        }
    })
}

/// RFC 9110 section 8.6: 1*DIGIT.
fn decimal(digits: &[u8]) -> Option<usize> {
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    valid.then(|| usize::try_from(number).ok()).flatten()
}

/// RFC 9112 section 7.1: appends the content to `body` and returns how many bytes it stood in.
fn chunks(bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Stop> {
    let mut at = 0;
    loop {
        let line = line(&bytes[at..])?;
        at += line.len() + 2;
        let size = chunk_size(line).ok_or(Stop::Invalid("no chunk size"))?;
        if size == 0 {
            break;
        }
        let data = &bytes[at..];
        body.extend_from_slice(&data[..size.min(data.len())]);
        match data.get(size..).unwrap_or_default() {
            [b'\r', b'\n', ..] => at += size + 2,
            [] | [b'\r'] => return Err(Stop::More),
            _ => return Err(Stop::Invalid("a chunk that does not end with CRLF")),
        }
    }
    loop {
        let line = line(&bytes[at..])?;
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(at);
        }
        field(line).ok_or(Stop::Invalid("no trailer"))?;
    }
}

/// chunk-size [ chunk-ext ]. Of digits there are at most as many as a number of 64 bits has, zeros
/// before it counted (docs/HTTP.md).
fn chunk_size(line: &[u8]) -> Option<usize> {
    let (size, extension) = match line.iter().position(|byte| *byte == b';') {
        Some(at) => line.split_at(at),
        None => (line, &[][..]),
    };
    let valid = (1..=16).contains(&size.len())
        && size.iter().all(u8::is_ascii_hexdigit)
        && is_extension(extension);
    let number = i64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    valid.then(|| usize::try_from(number).ok()).flatten()
}

/// RFC 9112 section 7.1.1: `; name`, or `; name = value`, as often as there are any. What the value
/// quotes has no backslash (docs/HTTP.md).
fn is_extension(mut extension: &[u8]) -> bool {
    while !extension.is_empty() {
        let Some(rest) = extension.strip_prefix(b";") else {
            return false;
        };
        let (name, rest) = word(blanks(rest));
        extension = blanks(rest);
        let mut valid = !name.is_empty();
        if let Some(rest) = extension.strip_prefix(b"=") {
            let value = blanks(rest);
            let (token, rest) = word(value);
            let (length, rest) = quoted(value).unwrap_or((token.len(), rest));
            valid &= 0 < length;
            extension = blanks(rest);
        }
        if !valid {
            return false;
        }
    }
    true
}

/// What follows the blanks.
fn blanks(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    &bytes[bytes.iter().take_while(blank).count()..]
}

/// The token at the front, which may be empty, and what follows it.
fn word(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = bytes.iter().take_while(|byte| is_token(&[**byte]));
    bytes.split_at(length.count())
}

/// The length of the quoted string at the front, and what follows it.
fn quoted(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let inside = bytes.strip_prefix(b"\"")?;
    let end = inside.iter().position(|byte| *byte == b'"')?;
    let valid = |byte: &u8| is_text(*byte) && *byte != b'\\';
    let valid = inside[..end].iter().all(valid);
    valid.then(|| (end + 2, &inside[end + 1..]))
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &[u8]) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || special.contains(byte);
    !name.is_empty() && name.iter().all(valid)
}

/// RFC 9110 section 5.5: VCHAR, obs-text, SP and HTAB.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (b' '..=b'~').contains(&byte) || 0x80 <= byte
}
