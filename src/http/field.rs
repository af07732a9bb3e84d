//! The fields that ringmain itself reads or writes, and what one pass over a head learns from them.

use httparse::Header;

use super::framing::{content_length, transfer_coding};
use super::head::HeadError;

/// A field by its name; everything that is passed unread is `Other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    Upgrade,
    Http2Settings,
    Expect,
    Via,
    ForwardedFor,
    ForwardedProto,
    ForwardedHost,
    RequestId,
    MaxForwards,
    Date,
    Forwarded,
    /// The name of a field that frames, but for a `_` where a `-` is.
    DisguisedFraming,
    /// The same of a field that says who asked.
    Disguised,
    #[default]
    Other,
}

impl Field {
    /// The field that `name` spells, in any case (RFC 9110 section 5.1).
    #[inline(always)]
    pub(super) fn of(name: &str) -> Self {
        let name = name.as_bytes();
        match (name.first(), FIRST_LETTERS.get(name.len())) {
            // Nearly every field that is passed unread ends here, which saves 200 instructions a
            // head.
            (Some(first), Some(letters)) if letters >> (first & 31) & 1 == 1 => Self::spelt(name),
            _ => Self::Other,
        }
    }

    /// The length leaves at most two candidates, and their length is known to the compiler: each
    /// comparison is one or two of words.
    #[inline(never)]
    fn spelt(name: &[u8]) -> Self {
        match name.len() {
            2 if spells(name, b"te") => Self::Te,
            3 if spells(name, b"via") => Self::Via,
            4 if spells(name, b"host") => Self::Host,
            4 if spells(name, b"date") => Self::Date,
            9 if spells(name, b"forwarded") => Self::Forwarded,
            6 if spells(name, b"expect") => Self::Expect,
            7 if spells(name, b"upgrade") => Self::Upgrade,
            10 if spells(name, b"connection") => Self::Connection,
            10 if spells(name, b"keep-alive") => Self::KeepAlive,
            12 if spells(name, b"x-request-id") => Self::RequestId,
            12 if spells(name, b"max-forwards") => Self::MaxForwards,
            14 if spells(name, b"content-length") => Self::ContentLength,
            14 if spells(name, b"http2-settings") => Self::Http2Settings,
            15 if spells(name, b"x-forwarded-for") => Self::ForwardedFor,
            16 if spells(name, b"proxy-connection") => Self::ProxyConnection,
            16 if spells(name, b"x-forwarded-host") => Self::ForwardedHost,
            17 if spells(name, b"transfer-encoding") => Self::TransferEncoding,
            17 if spells(name, b"x-forwarded-proto") => Self::ForwardedProto,
            _ => Self::disguised(name),
        }
    }

    /// RFC 9110 section 5.1 knows no such field. What hands fields on in variables, as CGI does
    /// (RFC 3875 section 4.1.18), reads `_` as `-`: it would frame by it, or believe a client that
    /// says who asked.
    fn disguised(name: &[u8]) -> Self {
        let is = |known: &&str| alike(name, known.as_bytes());
        if ["content-length", "transfer-encoding"].iter().any(is) {
            Self::DisguisedFraming
        } else if WHO_ASKED.iter().any(is) {
            Self::Disguised
        } else {
            Self::Other
        }
    }

    /// True exactly when the field frames the message or belongs to one connection; the operator's
    /// edits never touch these.
    pub(super) const fn is_framing(self) -> bool {
        matches!(
            self,
            Self::ContentLength
                | Self::TransferEncoding
                | Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::Upgrade
                | Self::Http2Settings
        )
    }
}

/// What ringmain tells an endpoint, and clients must not.
const WHO_ASKED: [&str; 4] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
];

/// True exactly when the names are one to a reader that ignores case and for which `_` is `-`.
pub(super) fn alike(name: &[u8], other: &[u8]) -> bool {
    let folded = |byte: &u8| match byte {
        b'_' => b'-',
        letter => letter.to_ascii_lowercase(),
    };
    name.len() == other.len() && name.iter().map(folded).eq(other.iter().map(folded))
}

/// By length, the first letters of the names that [`Field::spelt`] knows: bit 1 is `a` and `A`.
const FIRST_LETTERS: [u32; 18] = {
    const KNOWN: [(usize, u8); 18] = [
        (2, b't'),
        (3, b'v'),
        (4, b'h'),
        (4, b'd'),
        (6, b'e'),
        (7, b'u'),
        (9, b'f'),
        (10, b'c'),
        (10, b'k'),
        (12, b'x'),
        (12, b'm'),
        (14, b'c'),
        (14, b'h'),
        (15, b'x'),
        (16, b'p'),
        (16, b'x'),
        (17, b't'),
        (17, b'x'),
    ];
    let mut letters = [0; 18];
    let mut place = 0;
    while place < KNOWN.len() {
        let (length, first) = KNOWN[place];
        letters[length] |= 1 << (first & 31);
        place += 1;
    }
    letters
};

/// True exactly when the token `name`, of `N` bytes, is `spelling`, which has nothing but
/// lower-case letters, digits and `-`: of all token bytes only those and their capitals become them
/// with bit 0x20 set.
#[inline]
fn spells<const N: usize>(name: &[u8], spelling: &[u8; N]) -> bool {
    let differ = |at: usize| word(name, at) ^ word(spelling, at);
    let differ_half = |at: usize| half_word(name, at) ^ half_word(spelling, at);
    match N {
        4..=7 => differ_half(0) | differ_half(N - 4) == 0,
        8..=16 => differ(0) | differ(N - 8) == 0,
        17..=24 => differ(0) | differ(8) | differ(N - 8) == 0,
        _ => name.eq_ignore_ascii_case(spelling),
    }
}

/// The eight bytes at `at`, bit 0x20 set in each.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    const LOWER_CASE: u64 = u64::from_ne_bytes([0x20; 8]);
    let eight = bytes[at..].first_chunk().copied().unwrap_or_default();
    u64::from_ne_bytes(eight) | LOWER_CASE
}

/// The four bytes at `at`, bit 0x20 set in each.
#[inline]
fn half_word(bytes: &[u8], at: usize) -> u32 {
    const LOWER_CASE: u32 = u32::from_ne_bytes([0x20; 4]);
    let four = bytes[at..].first_chunk().copied().unwrap_or_default();
    u32::from_ne_bytes(four) | LOWER_CASE
}

/// Which fields stand in a head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen(u32);

impl Seen {
    pub(super) const fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    /// Notes the field; true exactly when it was not there before.
    fn insert(&mut self, field: Field) -> bool {
        let first = !self.has(field);
        self.0 |= 1 << field as u8;
        first
    }
}

/// What one pass over the fields of a head learns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Learned<'a> {
    pub(super) seen: Seen,
    /// The first Host.
    pub(super) host: Option<&'a [u8]>,
    /// True exactly when a second Host follows.
    pub(super) host_repeated: bool,
    /// The one Content-Length.
    pub(super) length: Option<u64>,
    /// True exactly when `Transfer-Encoding: chunked` stands here, once and alone.
    pub(super) chunked: bool,
    /// Connection lists `close`.
    pub(super) close: bool,
    /// Connection lists `keep-alive`.
    pub(super) keep_alive: bool,
    /// Connection lists `upgrade`.
    pub(super) upgrade: bool,
    /// Connection lists something else that may be the name of a field to remove.
    pub(super) nominates: bool,
    /// `Expect: 100-continue`, once and alone.
    pub(super) expects_continue: bool,
    /// Where the fields stand that are not `Other`, the first `known` of it; so that rewriting a
    /// head looks at these alone.
    places: [(u16, Field); PLACES],
    /// How many fields are not `Other`; beyond `PLACES` their places are not noted.
    known: u16,
}

/// Most heads have at most half as many fields that are not passed unread.
const PLACES: usize = 12;

impl<'a> Learned<'a> {
    /// Reads every field once.
    ///
    /// # Errors
    ///
    /// A repeated, malformed or disguised Content-Length or Transfer-Encoding.
    #[inline]
    pub(super) fn from_fields(fields: &[Header<'a>]) -> Result<Self, HeadError> {
        let mut learned = Self::default();
        for (place, header) in fields.iter().enumerate() {
            let field = Field::of(header.name);
            if field != Field::Other {
                learned.note(place, field);
                learned.read(field, header.value)?;
            }
        }
        Ok(learned)
    }

    /// `place < FIELDS_CEILING`, which fits.
    fn note(&mut self, place: usize, field: Field) {
        if let Some(noted) = self.places.get_mut(usize::from(self.known)) {
            *noted = (place as u16, field);
        }
        self.known += 1;
    }

    /// Where the fields stand that are not `Other`, in order; `None` where they are too many.
    pub(super) fn known_places(&self) -> Option<&[(u16, Field)]> {
        self.places.get(..usize::from(self.known))
    }

    fn read(&mut self, field: Field, value: &'a [u8]) -> Result<(), HeadError> {
        let first = self.seen.insert(field);
        match field {
            Field::Host if first => self.host = Some(value),
            Field::Host => self.host_repeated = true,
            // RFC 9110 section 8.6 lets equal ones be merged; a sender that repeats itself is
            // either broken or hopes that the next reader takes the other one.
            Field::ContentLength if !first => return Err(invalid("Content-Length twice")),
            Field::ContentLength => self.length = Some(content_length(value)?),
            // RFC 9112 section 6.3 rule 4: `chunked` must be last, and may not be repeated.
            Field::TransferEncoding if !first => return Err(invalid("Transfer-Encoding twice")),
            Field::TransferEncoding => {
                transfer_coding(value)?;
                self.chunked = true;
            }
            Field::DisguisedFraming => return Err(invalid("a framing field with _ in its name")),
            // What nearly every client and endpoint sends.
            Field::Connection if value == b"keep-alive" => self.keep_alive = true,
            Field::Connection => self.read_options(value),
            Field::Expect => {
                self.expects_continue = first && value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9110 section 7.6.1: the options of one Connection field.
    fn read_options(&mut self, value: &[u8]) {
        for option in elements(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !option.is_empty() {
                self.nominates = true;
            }
        }
    }

    /// RFC 9112 section 9.3: what the sender means to do with the connection after this message.
    pub(super) const fn persists(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep_alive)
    }
}

/// The elements of a list (RFC 9110 section 5.6.1), empty ones included.
pub(super) fn elements(list: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// What every Connection field among `fields` lists, as one list. Allocates.
pub(super) fn nominations(fields: &[Header<'_>]) -> Box<[u8]> {
    let connection = fields
        .iter()
        .filter(|header| Field::of(header.name) == Field::Connection);
    let values: Vec<_> = connection.map(|header| header.value).collect();
    values.join(&b',').into()
}

/// True exactly when a Connection field among `fields` lists `name`.
pub(super) fn nominated(fields: &[Header<'_>], name: &str) -> bool {
    fields
        .iter()
        .filter(|header| Field::of(header.name) == Field::Connection)
        .flat_map(|header| elements(header.value))
        .any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

/// Where the line of the field at `index` begins in `head`; behind the last one, where the empty
/// line does. A line lasts to the next one's begin: httparse takes nothing in between.
#[inline]
pub(super) fn line_begin(head: &[u8], fields: &[Header<'_>], index: usize) -> usize {
    match fields.get(index) {
        Some(header) => offset(head, header.name),
        None => head.len() - 2,
    }
}

/// Where `name`, which is borrowed from `head`, stands in it.
#[inline]
fn offset(head: &[u8], name: &str) -> usize {
    name.as_ptr().addr() - head.as_ptr().addr()
}

/// Refuses a line that ends without CR. RFC 9112 section 2.2 lets a recipient take a bare LF for a
/// line's end, and httparse does; a reader that does not would see other fields.
#[inline]
pub(super) fn check_line_ends(head: &[u8], fields: &[Header<'_>]) -> Result<(), HeadError> {
    // httparse has seen the LF before each of these places.
    let follows_cr = |begin: usize| head.get(begin.wrapping_sub(2)) == Some(&b'\r');
    let whole = fields
        .iter()
        .all(|header| follows_cr(offset(head, header.name)));
    if whole && head.ends_with(b"\r\n") && follows_cr(head.len() - 2) {
        Ok(())
    } else {
        Err(invalid("a line that ends without CR"))
    }
}

/// What httparse refuses. A bare LF comes first whatever else is wrong, as it does where the bytes
/// come one by one and [`super::head::HeadScan`] finds it before the head is whole.
#[cold]
pub(super) fn refusal(error: httparse::Error, head: &[u8]) -> HeadError {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    if lines.any(|line| !line.ends_with(b"\r\n")) {
        return invalid("a line that ends without CR");
    }
    error.into()
}

pub(super) const fn invalid(why: &'static str) -> HeadError {
    HeadError::Invalid { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_known_by_its_whole_name_in_any_case() {
        for (name, field) in [
            ("Host", Field::Host),
            ("Content-Length", Field::ContentLength),
            ("Transfer-Encoding", Field::TransferEncoding),
            ("Connection", Field::Connection),
            ("Keep-Alive", Field::KeepAlive),
            ("Proxy-Connection", Field::ProxyConnection),
            ("TE", Field::Te),
            ("Upgrade", Field::Upgrade),
            ("Expect", Field::Expect),
            ("Via", Field::Via),
            ("X-Forwarded-For", Field::ForwardedFor),
            ("X-Forwarded-Proto", Field::ForwardedProto),
            ("X-Forwarded-Host", Field::ForwardedHost),
            ("X-Request-Id", Field::RequestId),
            ("Max-Forwards", Field::MaxForwards),
            ("Date", Field::Date),
            ("Forwarded", Field::Forwarded),
        ] {
            for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(Field::of(&name), field, "{name}");
                // Any other byte in any place is another name, and so is a byte more or less.
                for at in 0..name.len() {
                    let other = [&name[..at], "~", &name[at + 1..]].concat();
                    assert_eq!(Field::of(&other), Field::Other, "{other}");
                }
                assert_eq!(
                    Field::of(&name.replace('-', "_")) == field,
                    !name.contains('-')
                );
                for other in [format!("{name}s"), format!("x{name}"), name[1..].to_owned()] {
                    assert_eq!(Field::of(&other), Field::Other, "{other}");
                }
            }
        }
        assert_eq!(Field::of(""), Field::Other);
    }

    #[test]
    fn a_name_with_an_underscore_for_a_hyphen_is_a_disguise() {
        for (name, field) in [
            ("Content_Length", Field::DisguisedFraming),
            ("transfer_ENCODING", Field::DisguisedFraming),
            ("X_Forwarded_For", Field::Disguised),
            ("x-forwarded_for", Field::Disguised),
            ("X_FORWARDED-PROTO", Field::Disguised),
            ("x_forwarded_host", Field::Disguised),
            ("X-Request_Id", Field::Disguised),
            ("X_Forwarded_Fox", Field::Other),
            ("X_Forwarded_For_", Field::Other),
            ("Keep_Alive", Field::Other),
        ] {
            assert_eq!(Field::of(name), field, "{name}");
        }
    }
}
