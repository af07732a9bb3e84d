//! Answers of ringmain's own, where no endpoint gave one.
//!
//! All but one tell of a fault. The time that their Date has (RFC 9110 section 6.6.1) is given:
//! nothing here has a clock.

use std::io::Write;
use std::num::NonZeroU32;

use super::exchange::RequestFacts;
use super::hop::{ClientConnection, HttpDate, write_connection, write_status_line};
use crate::fault::Fault;

/// Whom an answer is for, and what it tells beside its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// We close the connection behind it.
    pub close: bool,
    /// The request's method was HEAD.
    pub head_method: bool,
    /// The minor version of the request; 1 where it was not understood.
    pub minor: u8,
    /// After how many seconds another try may succeed, where that is known.
    pub retry_after: Option<NonZeroU32>,
}

impl Reply {
    /// As the request with these facts wants it.
    pub const fn to(request: &RequestFacts) -> Self {
        Self {
            close: !request.keep_alive,
            head_method: request.head_method,
            minor: request.minor,
            retry_after: None,
        }
    }

    /// As one wants it that begins with `bytes` and was not understood. RFC 9110 section 9.3.2 has
    /// a HEAD answered without content whatever else is wrong with it.
    pub fn to_head(bytes: &[u8]) -> Self {
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        Self {
            close: true,
            head_method: line.starts_with(b"HEAD "),
            minor: 1,
            retry_after: None,
        }
    }
}

/// Appends the answer that tells of `fault` at `date`: head and, but for HEAD, its line of text.
pub fn write_reply(out: &mut Vec<u8>, fault: Fault, reply: &Reply, date: &HttpDate) {
    let (status, reason) = (fault.status(), reason(fault.status()));
    let text_length = 3 + 1 + reason.len() + 2 + fault.label().len() + 1;
    write_status_line(out, status, reason.as_bytes());
    write(
        out,
        format_args!(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {text_length}\r\n"
        ),
    );
    // RFC 9209 section 2.
    write(
        out,
        format_args!("Proxy-Status: ringmain; error={}\r\n", fault.word()),
    );
    if let Some(seconds) = reply.retry_after {
        // RFC 9110 section 10.2.3; RFC 6585 section 4 has it in a 429.
        write(out, format_args!("Retry-After: {seconds}\r\n"));
    }
    write_end(out, reply, date);
    // RFC 9110 section 9.3.2: HEAD has the fields and no content.
    if !reply.head_method {
        write(out, format_args!("{status} {reason}: {}\n", fault.label()));
    }
}

/// Appends an answer of `content` in JSON with `status`, which tells of `fault` where it does.
pub fn write_json(
    out: &mut Vec<u8>,
    (status, fault): (u16, Option<Fault>),
    content: &[u8],
    reply: &Reply,
    date: &HttpDate,
) {
    write_status_line(out, status, reason(status).as_bytes());
    // RFC 9110 section 8.6: no Content-Length in a 204, and section 15.3.6: a 205 has no content.
    let has_content = !matches!(status, 204 | 205);
    if has_content {
        out.extend_from_slice(b"Content-Type: application/json\r\n");
    }
    if status != 204 {
        let length = if has_content { content.len() } else { 0 };
        write(out, format_args!("Content-Length: {length}\r\n"));
    }
    match fault {
        Some(fault) => write(
            out,
            format_args!("Proxy-Status: ringmain; error={}\r\n", fault.word()),
        ),
        None => out.extend_from_slice(b"Proxy-Status: ringmain\r\n"),
    }
    write_end(out, reply, date);
    if has_content && !reply.head_method {
        out.extend_from_slice(content);
    }
}

/// Appends the answer to an OPTIONS that is to be forwarded no further (RFC 9110 section 7.6.2).
///
/// It says who answers and no more: whatever else could be asked (section 9.3.7), such as the
/// methods for an Allow, is for the endpoints to say.
pub fn write_options(out: &mut Vec<u8>, reply: &Reply, date: &HttpDate) {
    write_status_line(out, 200, b"OK");
    out.extend_from_slice(b"Content-Length: 0\r\nProxy-Status: ringmain\r\n");
    write_end(out, reply, date);
}

/// The date, what becomes of the connection, and the empty line.
fn write_end(out: &mut Vec<u8>, reply: &Reply, date: &HttpDate) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
    let connection = if reply.close {
        ClientConnection::Close
    } else {
        ClientConnection::KeepAlive
    };
    write_connection(out, connection, reply.minor);
    out.extend_from_slice(b"\r\n");
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
}

/// The phrases of RFC 9110 section 15 and of RFC 6585 sections 4 and 5.
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        400 => "Bad Request",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::framing::BodyLength;
    use super::super::head::{FieldSpace, HeadLimits, Response};
    use super::*;

    const DATE: &HttpDate = b"Sun, 06 Nov 1994 08:49:37 GMT";

    #[track_caller]
    fn check(fault: Fault, reply: Reply, expected: &str) {
        let mut out = Vec::new();
        write_reply(&mut out, fault, &reply, DATE);
        assert_eq!(
            String::from_utf8(out).unwrap().replace("\r\n", "|"),
            expected
        );
    }

    #[test]
    fn an_answer_names_its_cause_and_what_becomes_of_the_connection() {
        const HEAD: &str = "HTTP/1.1 404 Not Found|Content-Type: text/plain; charset=utf-8|\
                            Content-Length: 37|\
                            Proxy-Status: ringmain; error=destination_not_found|\
                            Date: Sun, 06 Nov 1994 08:49:37 GMT|";
        for (close, head_method, minor, end) in [
            (false, false, 1, "|404 Not Found: destination_not_found\n"),
            (false, true, 1, "|"),
            (true, true, 1, "Connection: close||"),
            (false, true, 0, "Connection: keep-alive||"),
        ] {
            let reply = Reply {
                close,
                head_method,
                minor,
                retry_after: None,
            };
            check(Fault::DestinationNotFound, reply, &(HEAD.to_owned() + end));
        }
    }

    #[test]
    fn an_answer_says_when_another_try_may_succeed_where_that_is_known() {
        let reply = Reply {
            close: false,
            head_method: true,
            minor: 1,
            retry_after: NonZeroU32::new(17),
        };
        let expected = "HTTP/1.1 429 Too Many Requests|Content-Type: text/plain; charset=utf-8|\
                        Content-Length: 44|Proxy-Status: ringmain; error=http_request_denied|\
                        Retry-After: 17|Date: Sun, 06 Nov 1994 08:49:37 GMT||";
        check(Fault::ClientRateExceeded, reply, expected);
    }

    #[test]
    fn the_last_hop_of_an_options_says_who_it_is() {
        for (close, minor, connection) in [
            (false, 1, ""),
            (true, 1, "Connection: close\r\n"),
            (false, 0, "Connection: keep-alive\r\n"),
        ] {
            let reply = Reply {
                close,
                head_method: false,
                minor,
                retry_after: None,
            };
            let mut out = Vec::new();
            write_options(&mut out, &reply, DATE);
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nProxy-Status: ringmain\r\n\
                        Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
            let expected = format!("{head}{connection}\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn content_in_json_is_framed_but_where_a_status_has_none() {
        let fault = Some(Fault::FanoutUnmet);
        for (status, fault, head_method, expected) in [
            (
                201,
                None,
                false,
                "HTTP/1.1 201 Created|Content-Type: application/json|Content-Length: 2|\
                 Proxy-Status: ringmain|Date: Sun, 06 Nov 1994 08:49:37 GMT||{}",
            ),
            (
                502,
                fault,
                true,
                "HTTP/1.1 502 Bad Gateway|Content-Type: application/json|Content-Length: 2|\
                 Proxy-Status: ringmain; error=destination_unavailable|\
                 Date: Sun, 06 Nov 1994 08:49:37 GMT||",
            ),
            (
                204,
                None,
                false,
                "HTTP/1.1 204 No Content|Proxy-Status: ringmain|\
                 Date: Sun, 06 Nov 1994 08:49:37 GMT||",
            ),
        ] {
            let reply = Reply {
                close: false,
                head_method,
                minor: 1,
                retry_after: None,
            };
            let mut out = Vec::new();
            write_json(&mut out, (status, fault), b"{}", &reply, DATE);
            let written = String::from_utf8(out).unwrap().replace("\r\n", "|");
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn every_answer_is_framed_by_its_length_and_has_a_reason() {
        let limits = HeadLimits {
            bytes_max: 4096,
            fields_max: 10,
        };
        for fault in Fault::ALL.into_iter().filter(|fault| fault.status() != 499) {
            let reply = Reply {
                close: true,
                head_method: false,
                minor: 1,
                retry_after: None,
            };
            let mut out = Vec::new();
            write_reply(&mut out, fault, &reply, DATE);
            let end = memchr::memmem::find(&out, b"\r\n\r\n").unwrap() + 4;
            let mut space = FieldSpace::new();
            let answer = Response::parse(&out[..end], &limits, &mut space, false, None).unwrap();
            assert_eq!(answer.status, fault.status());
            assert!(!answer.reason.is_empty(), "{fault:?}");
            assert_eq!(
                answer.body,
                BodyLength::Length((out.len() - end) as u64),
                "{fault:?}"
            );
        }
    }
}
