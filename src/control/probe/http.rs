//! One GET and the status of its answer, on a connection of its own.
//!
//! The answer is read by the rules for all answers (`http/`): a head that an exchange would fail on
//! is a failed probe. Its body is not read; `Connection: close` has the endpoint close first, which
//! leaves it to remember the connection (RFC 9293 section 3.6.1) and not us.

use std::io;
use std::net::SocketAddr;

use super::tcp::Connection;
use crate::config::Service;
use crate::fault::Fault;
use crate::http::head::{FIELDS_CEILING, FieldSpace, HeadError, HeadLimits, HeadScan, Response};

/// Of all heads of an answer, the interim ones included.
const LIMITS: HeadLimits = HeadLimits {
    bytes_max: 16 * 1024,
    fields_max: FIELDS_CEILING,
};

/// The request for `path` of an endpoint of `service`.
pub(super) fn request(service: &Service, path: &str, address: SocketAddr) -> Box<[u8]> {
    let host = host(service, address);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ringmain-probe\r\n\
         Connection: close\r\n\r\n"
    );
    request.into_bytes().into()
}

/// What is written, else the first domain that names one host, else the address.
fn host(service: &Service, address: SocketAddr) -> String {
    let written = service.probe.iter().map(|probe| &probe.host);
    let mut hosts = written
        .chain(&service.domains)
        .filter(|host| !host.is_empty() && !host.starts_with('*'));
    hosts
        .next()
        .map_or_else(|| address.to_string(), Clone::clone)
}

/// The status of the answer that comes on `connection`.
///
/// # Errors
/// The cause that an exchange would fail with.
pub(super) async fn status(mut connection: Connection) -> Result<u16, Fault> {
    let mut heads = Heads::default();
    loop {
        let read = connection.read(&mut heads.bytes).await;
        let (same, count) = read.map_err(|error| heads.ended(&error))?;
        if count == 0 {
            return Err(heads.ended(&io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(status) = heads.status().map_err(|error| error.response_fault())? {
            return Ok(status);
        }
        connection = same;
    }
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Heads {
    bytes: Vec<u8>,
    /// Bytes of interim heads; `begin <= bytes.len()`.
    begin: usize,
    /// In what is behind them; `None` where nothing of it was searched.
    scan: Option<HeadScan>,
}

impl Heads {
    /// The status, once its head is whole.
    fn status(&mut self) -> Result<Option<u16>, HeadError> {
        loop {
            let bytes = &self.bytes[self.begin..];
            if bytes.is_empty() {
                return Ok(None);
            }
            let limits = HeadLimits {
                bytes_max: LIMITS.bytes_max.saturating_sub(self.begin),
                ..LIMITS
            };
            let scan = self.scan.get_or_insert_with(HeadScan::response);
            let Some(end) = scan.find_end(bytes, &limits)? else {
                return Ok(None);
            };
            let mut space = FieldSpace::new();
            let head = Response::parse(&bytes[..end], &LIMITS, &mut space, false, None)?;
            if !head.interim {
                return Ok(Some(head.status));
            }
            self.begin += end;
            self.scan = None;
        }
    }

    /// The cause, where the connection has ended before the answer was whole.
    fn ended(&self, error: &io::Error) -> Fault {
        match error.kind() {
            _ if !self.bytes.is_empty() => Fault::ResponseIncomplete,
            io::ErrorKind::TimedOut => Fault::ResponseTimeout,
            _ => Fault::ConnectionTerminated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Feeds the bytes whole and byte by byte.
    #[track_caller]
    fn check(bytes: &str, expected: Result<Option<u16>, Fault>) {
        let fault = |error: HeadError| error.response_fault();
        let mut whole = Heads {
            bytes: bytes.into(),
            ..Heads::default()
        };
        assert_eq!(whole.status().map_err(fault), expected, "whole: {bytes:?}");
        let mut split = Heads::default();
        let found = bytes.bytes().map(|byte| {
            split.bytes.push(byte);
            split.status().map_err(fault)
        });
        let found = found.into_iter().find(|found| *found != Ok(None));
        assert_eq!(found.unwrap_or(Ok(None)), expected, "split: {bytes:?}");
    }

    #[test]
    fn the_status_is_known_once_the_head_is_whole() {
        check(OK, Ok(Some(200)));
        check("HTTP/1.0 503 x\r\n\r\n", Ok(Some(503)));
        check("HTTP/1.1 100 Continue\r\n\r\n", Ok(None));
        check(
            &format!("HTTP/1.1 103 x\r\nLink: a\r\n\r\n{OK}"),
            Ok(Some(200)),
        );
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Ok(None));
        check("", Ok(None));
    }

    #[test]
    fn a_head_that_an_exchange_would_fail_on_is_a_failure() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(16 * 1024));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
        for (bytes, fault) in [
            ("SSH-2.0-OpenSSH_9.6\r\n", Fault::ResponseInvalid),
            ("HTTP/1.1 200 OK\n\n", Fault::ResponseInvalid),
            ("HTTP/2.0 200 OK\r\n\r\n", Fault::ResponseInvalid),
            (
                "HTTP/1.1 101 x\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
                Fault::ResponseInvalid,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::ResponseInvalid,
            ),
            (&long, Fault::ResponseHeadTooLarge),
            (&interim, Fault::ResponseHeadTooLarge),
        ] {
            check(bytes, Err(fault));
        }
    }
}
