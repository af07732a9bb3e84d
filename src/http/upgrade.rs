//! Which protocols a connection may go on in: what a request offers, and what a 101 may answer to
//! that (RFC 9110 section 7.8).
//!
//! Upgrade belongs to one connection; a proxy that passes it on answers for both. What follows a
//! 101 is unframed, and nothing here or behind reads it.

use httparse::Header;

use super::field::{Field, elements};
use super::scan::is_token_byte;

/// Protocols that carry requests, which a tunnel would take past every rule of ours: what routes
/// them, counts them, says who asks. An endpoint that switches to h2c serves a whole HTTP/2
/// connection of the client's (h2c smuggling, shown by Bishop Fox in 2020); RFC 9113 section 3.1
/// has withdrawn that upgrade. TLS is that of RFC 2817, with HTTP in it.
const OF_REQUESTS: [&str; 4] = ["h2c", "h2", "http", "tls"];

/// True exactly when the Upgrade fields among `fields` name a protocol, none that carries requests
/// and nothing else: they may be passed on. Any other list is dropped whole, for the endpoint may
/// take any of it.
pub(super) fn is_offer(fields: &[Header<'_>]) -> bool {
    protocols(fields).next().is_some()
        && protocols(fields).all(|protocol| is_protocol(protocol) && !carries_requests(protocol))
}

/// What the Upgrade fields among `fields` list, as one list. Allocates.
pub(super) fn list(fields: &[Header<'_>]) -> Box<[u8]> {
    protocols(fields)
        .collect::<Vec<_>>()
        .join(&b", "[..])
        .into()
}

/// True exactly when the Upgrade fields among `fields` name a protocol and none that is not in
/// `offered`, a list.
pub(super) fn is_answer(fields: &[Header<'_>], offered: &[u8]) -> bool {
    let is_offered = |protocol: &[u8]| {
        let mut offered = elements(offered);
        offered.any(|offered| offered.eq_ignore_ascii_case(protocol))
    };
    protocols(fields).next().is_some() && protocols(fields).all(is_offered)
}

/// Appends the Upgrade fields among `fields`, as they came.
pub(super) fn write(out: &mut Vec<u8>, fields: &[Header<'_>]) {
    for value in values(fields) {
        out.extend_from_slice(b"Upgrade: ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn values<'a>(fields: &'a [Header<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let upgrades = |header: &&Header<'_>| Field::of(header.name) == Field::Upgrade;
    fields.iter().filter(upgrades).map(|header| header.value)
}

fn protocols<'a>(fields: &'a [Header<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let listed = values(fields).flat_map(elements);
    listed.filter(|protocol| !protocol.is_empty())
}

/// RFC 9110 section 7.8: `token [ "/" token ]`. Stricter: a list with anything else is not passed
/// on, for a lenient reader may find h2c in `websocket h2c`, `h2c;q=1` or `"h2c"`.
fn is_protocol(protocol: &[u8]) -> bool {
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| is_token_byte(*byte));
    protocol.splitn(2, |byte| *byte == b'/').all(is_token)
}

/// RFC 9110 section 7.8: a protocol is a name and perhaps a version, and names ignore case.
fn carries_requests(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next();
    let name = name.unwrap_or_default().trim_ascii();
    let mut known = OF_REQUESTS.iter();
    known.any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>(values: &[&'a str]) -> Vec<Header<'a>> {
        let field = |value: &&'a str| Header {
            name: "uPGRADE",
            value: value.as_bytes(),
        };
        values.iter().map(field).collect()
    }

    #[test]
    fn a_protocol_that_carries_requests_is_not_offered_nor_what_stands_beside_it() {
        for (values, offer) in [
            (&["websocket"][..], Some("websocket")),
            (
                &["websocket", "chat/2, ,irc"],
                Some("websocket, chat/2, irc"),
            ),
            (&["h2cc"], Some("h2cc")),
            (&[], None),
            (&["", " , "], None),
            (&["h2c"], None),
            (&["H2C"], None),
            (&["websocket, h2c"], None),
            (&["websocket", "h2c"], None),
            (&["h2"], None),
            (&["HTTP/2.0, IRC/6.9"], None),
            (&["http /3"], None),
            (&["TLS/1.0, HTTP/1.1"], None),
            (&["tls"], None),
            (&["websocket h2c"], None),
            (&["h2c;q=1"], None),
            (&["\"h2c\""], None),
            (&["websocket, chat/"], None),
            (&["/1"], None),
            (&["a/b/c"], None),
        ] {
            let fields = fields(values);
            assert_eq!(is_offer(&fields), offer.is_some(), "{values:?}");
            if let Some(offer) = offer {
                assert_eq!(*list(&fields), *offer.as_bytes(), "{values:?}");
            }
        }
    }

    #[test]
    fn an_answer_names_what_was_offered_and_nothing_else() {
        for (values, offered, answers) in [
            (&["websocket"][..], "websocket", true),
            (&["WebSocket"], "websocket", true),
            (&["b, c/1"], "a, b, C/1", true),
            (&["b", "c/1"], "a, b, c/1", true),
            (&["c/2"], "c/1", false),
            (&["c"], "c/1", false),
            (&["web"], "websocket", false),
            (&["a", "x"], "a", false),
            (&[], "a", false),
            (&[","], "a", false),
        ] {
            let answer = is_answer(&fields(values), offered.as_bytes());
            assert_eq!(answer, answers, "{values:?} to {offered}");
        }
    }
}
