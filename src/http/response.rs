//! One response's head: its status, and how its body is framed.

use httparse::{Header, Status};

use super::field::{Learned, check_line_ends, invalid, nominations, refusal};
use super::framing::BodyLength;
use super::head::{FieldSpace, HeadError, HeadLimits};
use super::upgrade;

/// A response's head, borrowed from the read buffer.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// `100 <= status <= 999`; 101 only where the request has offered that.
    pub status: u16,
    /// The reason phrase, possibly empty.
    pub reason: &'a [u8],
    /// 0 or 1: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    /// Every field, in order.
    pub fields: &'a [Header<'a>],
    /// How the body is framed.
    pub body: BodyLength,
    /// The endpoint lets the connection be used again once the body is over.
    pub keep_alive: bool,
    /// The status is 1xx, but not 101: the response to this request is still to come.
    pub interim: bool,
    pub(super) head: &'a [u8],
    pub(super) learned: Learned<'a>,
}

impl<'a> Response<'a> {
    /// Reads the head that [`super::head::HeadScan`] delimited, which answers a HEAD or not, and
    /// whose request has `offered` these protocols, if any ([`super::head::Request::offer`]).
    ///
    /// # Errors
    ///
    /// `Invalid`, `Version`, `TooManyFields` and `TransferCoding` of [`HeadError`].
    pub fn parse<'b: 'a>(
        head: &'b [u8],
        limits: &HeadLimits,
        space: &'a mut FieldSpace<'b>,
        request_was_head: bool,
        offered: Option<&[u8]>,
    ) -> Result<Self, HeadError> {
        // httparse skips any number of empty lines.
        if head.first() != Some(&b'H') {
            return Err(invalid("a first byte that begins no status line"));
        }
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, head, space.within(limits))
            .map_err(|error| refusal(error, head))?;
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(invalid("a head that ends too early"));
        };
        if parsed != Status::Complete(head.len()) {
            return Err(invalid("a head that does not end where it must"));
        }
        let fields: &'a [Header<'a>] = response.headers;
        // RFC 9110 section 15: a status is at least 100.
        if status < 100 || (status == 101 && !switches(minor, fields, offered)) {
            return Err(invalid("a status that answers no request of ours"));
        }
        check_line_ends(head, fields)?;
        let learned = Learned::from_fields(fields)?;
        let framed = BodyLength::of_response(learned.length, learned.chunked, minor)?;
        let bodiless = request_was_head || is_bodiless(status);
        let body = if bodiless { BodyLength::None } else { framed };
        Ok(Self {
            status,
            reason: reason(head),
            minor,
            fields,
            body,
            keep_alive: learned.persists(minor)
                && body != BodyLength::UntilClose
                && !announces_stray_bytes(status, framed),
            interim: status < 200 && status != 101,
            head,
            learned,
        })
    }

    /// What its Connection lists, where that may name a trailer (RFC 9110 section 7.6.1).
    /// Allocates, for the one in many that does.
    pub fn nominations(&self) -> Option<Box<[u8]>> {
        let may_have_trailers = self.body == BodyLength::Chunked;
        (self.learned.nominates && may_have_trailers).then(|| nominations(self.fields))
    }
}

/// The phrase as it came; httparse leaves one out that is not ASCII.
fn reason(head: &[u8]) -> &[u8] {
    let line = &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())];
    line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()
}

/// RFC 9110 sections 7.8 and 15.2.2: a 101 says to what protocols it switches, and may do so only
/// to those that the request has `offered`. HTTP/1.0 has none.
#[cold]
fn switches(minor: u8, fields: &[Header<'_>], offered: Option<&[u8]>) -> bool {
    let is_answer = |offered| upgrade::is_answer(fields, offered);
    minor == 1 && offered.is_some_and(is_answer)
}

/// RFC 9112 section 6.3 rule 1: no body, whatever the fields say.
const fn is_bodiless(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

/// True exactly when a response that has no body says that it has one: the endpoint may well send
/// it, and the next exchange would take it for its answer.
fn announces_stray_bytes(status: u16, framed: BodyLength) -> bool {
    status == 204 && matches!(framed, BodyLength::Length(1..) | BodyLength::Chunked)
}

#[cfg(test)]
mod tests;
