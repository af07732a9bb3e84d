//! Which fields of a trailer section go on (RFC 9110 section 6.5.1).
//!
//! Trailers are read when the message has long been framed, routed and judged by its head. A reader
//! that merges them into the head would frame, route and judge once more, by fields that nobody
//! before it has looked at. So what the head alone may say is dropped, in both directions, and with
//! it every field that we or the operator set or remove: what was taken out of the head must not
//! come in by the back.
//!
//! Pure: the section has come whole, and `chunk` has checked its syntax.

use super::field::{alike, elements};
use super::hop::FieldEdits;

/// The trailer section of one message as it came, its last empty line included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers {
    section: Vec<u8>,
    /// The options of the head's Connection, as a list.
    nominated: Box<[u8]>,
}

impl Trailers {
    /// A section of which nothing has come; `nominated` lists what the head's Connection does.
    pub(super) fn new(nominated: Option<Box<[u8]>>) -> Self {
        Self {
            section: Vec::new(),
            nominated: nominated.unwrap_or_default(),
        }
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.section.push(byte);
    }

    /// Appends what goes on of the section, its last empty line included: all fields but those that
    /// RFC 9110 section 6.5.1 forbids, those that Connection names (section 7.6.1), those that
    /// `edits` set or remove, and the one of the name `replaced`.
    pub fn write(&self, out: &mut Vec<u8>, edits: &FieldEdits, replaced: Option<&str>) {
        for line in self.section.split_inclusive(|byte| *byte == b'\n') {
            if !is_dropped(name(line), edits, replaced) && !self.is_nominated(name(line)) {
                out.extend_from_slice(line);
            }
        }
    }

    fn is_nominated(&self, name: &[u8]) -> bool {
        !name.is_empty()
            && elements(&self.nominated).any(|option| option.eq_ignore_ascii_case(name))
    }
}

fn is_dropped(name: &[u8], edits: &FieldEdits, replaced: Option<&str>) -> bool {
    // A name is a token, and so ASCII.
    let name = std::str::from_utf8(name).unwrap_or_default();
    is_forbidden(name)
        || edits.touch(name)
        || replaced.is_some_and(|replaced| alike(replaced.as_bytes(), name.as_bytes()))
}

/// What stands before the colon; empty in the last line, which is.
fn name(line: &[u8]) -> &[u8] {
    let colon = memchr::memchr(b':', line).unwrap_or_default();
    &line[..colon]
}

/// True exactly when the field may not stand in trailers; a `_` is a `-`, as in
/// [`FieldEdits::touch`].
fn is_forbidden(name: &str) -> bool {
    let begins = |prefix: &str| {
        let begin = name.as_bytes().get(..prefix.len());
        begin.is_some_and(|begin| alike(begin, prefix.as_bytes()))
    };
    // RFC 9110 section 13.1: conditions. Section 8: what the content is; RFC 9530 section 2 has its
    // digest come behind it.
    let by_prefix = begins("if-")
        || begins("x-forwarded-")
        || (begins("content-") && !alike(name.as_bytes(), b"content-digest"));
    by_prefix
        || FORBIDDEN
            .iter()
            .any(|forbidden| alike(forbidden.as_bytes(), name.as_bytes()))
}

/// What RFC 9110 section 6.5.1 speaks of, by its kinds. It names no fields; these are the ones that
/// RFC 7230 section 4.1.2 pointed to, and what this hop writes itself.
const FORBIDDEN: &[&str] = &[
    // Framing, and what belongs to one connection.
    "Transfer-Encoding",
    "Trailer",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Upgrade",
    "HTTP2-Settings",
    // Routing, and who asked.
    "Host",
    "Via",
    "Forwarded",
    "X-Request-Id",
    // Request modifiers.
    "Cache-Control",
    "Expect",
    "Max-Forwards",
    "Pragma",
    "Range",
    // Authentication.
    "Authorization",
    "Cookie",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Set-Cookie",
    "WWW-Authenticate",
    // Response control.
    "Age",
    "Date",
    "Expires",
    "Location",
    "Retry-After",
    "Vary",
    "Warning",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(set: &str, remove: &str) -> FieldEdits {
        FieldEdits {
            set: Box::new([(set.into(), "1".into())]),
            remove: Box::new([remove.into()]),
        }
    }

    /// What goes on of `section`; its lines end with `|`.
    #[track_caller]
    fn check(section: &str, edits: &FieldEdits, replaced: Option<&str>, expected: &str) {
        let mut trailers = Trailers::default();
        for byte in section.replace('|', "\r\n").bytes() {
            trailers.push(byte);
        }
        let mut out = Vec::new();
        trailers.write(&mut out, edits, replaced);
        let out = String::from_utf8(out).unwrap().replace("\r\n", "|");
        assert_eq!(out, expected, "{section}");
    }

    #[test]
    fn what_may_stand_in_trailers_goes_on_as_it_came() {
        for section in [
            "|",
            "A: b|c:  d e |A:||",
            "ETag: \"x\"|Server-Timing: db;dur=5|Accept-Ranges: none||",
            // RFC 9530 section 2, RFC 9209 section 2, RFC 9110 section 11.6.3.
            "Content-Digest: sha-256=:x:|Proxy-Status: a; error=b|Authentication-Info: c||",
            "grpc-status: 0|If: x|Forwarded-For: y||",
        ] {
            check(section, &FieldEdits::default(), None, section);
        }
    }

    #[test]
    fn what_frames_routes_modifies_or_judges_is_dropped() {
        let by_prefix = [
            "Content-Length",
            "content-type",
            "Content-Encoding",
            "If-Match",
            "if-modified-since",
            "X-Forwarded-For",
            "x-forwarded-anything",
        ];
        for name in FORBIDDEN.iter().copied().chain(by_prefix) {
            for name in [name.to_lowercase(), name.to_uppercase().replace('-', "_")] {
                let section = format!("A: 1|{name}: 2|{name}:|B: 3||");
                check(&section, &FieldEdits::default(), None, "A: 1|B: 3||");
                check(&format!("{name}: 1||"), &FieldEdits::default(), None, "|");
            }
        }
    }

    #[test]
    fn what_the_operator_or_we_set_or_remove_does_not_come_in_by_the_back() {
        let edits = edits("X-User", "X-Secret");
        let section = "x-user: root|A: 1|X-SECRET: 2|X_User: root|X-Backend: forged|x_backend: 1|\
                       X-Users: 3||";
        check(section, &edits, Some("x-backend"), "A: 1|X-Users: 3||");
    }
}
