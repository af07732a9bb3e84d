//! Finds where a head ends, however the bytes come in.
//!
//! Lines end with CRLF and nothing else. RFC 9112 section 2.2 lets a recipient take a bare LF for a
//! line's end; two readers of which one does and one does not see two different messages, so we
//! refuse it. No byte is searched more than four times, however many reads bring them: three times
//! as part of the first read, where a whole head is hoped for, and once line by line.

use super::field::invalid;
use super::head::{HeadError, HeadLimits};

/// A search for the end of one head, to be asked again with every read until it is found.
///
/// Starts over with the next message: make a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    message: Message,
    /// `line <= scanned`: everything before was searched for line ends.
    scanned: usize,
    /// Where the line that is being read begins.
    line: usize,
    /// Where the message begins: 0, or 2 behind an empty line that was tolerated.
    start: usize,
    /// How many bytes were searched, each as often as it was.
    #[cfg(test)]
    searched: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Message {
    #[default]
    Request,
    Response,
}

impl HeadScan {
    /// A search in what a client sends.
    pub const fn request() -> Self {
        Self::of(Message::Request)
    }

    /// A search in what an endpoint sends.
    pub const fn response() -> Self {
        Self::of(Message::Response)
    }

    const fn of(message: Message) -> Self {
        Self {
            message,
            scanned: 0,
            line: 0,
            start: 0,
            #[cfg(test)]
            searched: 0,
        }
    }

    /// The length of the head at the front of `bytes`, its last empty line included; `None` where
    /// more bytes are needed.
    ///
    /// `bytes` is everything read so far of this message, from its first byte on. The length
    /// includes the one empty line that is tolerated before a request;
    /// [`super::head::Request::parse`] expects it there.
    ///
    /// # Errors
    ///
    /// What can be refused before the head is whole: a first byte that begins no message, a line
    /// that does not end with CRLF, a head over `limits.bytes_max`.
    #[inline]
    pub fn find_end(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, HeadError> {
        // What lies behind the limit decides nothing, or a split could change the decision.
        let window = &bytes[..bytes.len().min(limits.bytes_max)];
        self.check_start(window)?;
        if self.scanned == 0 && window.first() != Some(&b'\r') {
            #[cfg(test)]
            {
                self.searched += 3 * window.len();
            }
            if let Some(end) = find_empty_line(window) {
                return Ok(Some(end));
            }
        }
        while let Some(found) = memchr::memchr(b'\n', &window[self.scanned..]) {
            let feed = self.scanned + found;
            #[cfg(test)]
            {
                self.searched += found + 1;
            }
            if feed == self.line || window[feed - 1] != b'\r' {
                return Err(invalid("a line that ends without CR"));
            }
            self.check_start(window)?;
            let empty = feed == self.line + 1;
            let first = self.line == self.start;
            self.scanned = feed + 1;
            self.line = feed + 1;
            if empty && first {
                self.tolerate_empty_line()?;
            } else if empty {
                return Ok(Some(feed + 1));
            }
        }
        #[cfg(test)]
        {
            self.searched += window.len() - self.scanned;
        }
        self.scanned = window.len();
        self.check_start(window)?;
        if bytes.len() < limits.bytes_max {
            Ok(None)
        } else if self.line == self.start {
            Err(HeadError::TargetTooLong)
        } else {
            Err(HeadError::TooLong)
        }
    }

    /// RFC 9112 section 2.2: at least one empty line before a request is ignored. We ignore one and
    /// no more; a flood of them is an attack that costs its sender nothing.
    fn tolerate_empty_line(&mut self) -> Result<(), HeadError> {
        if self.start != 0 {
            return Err(invalid("empty lines before the request"));
        }
        self.start = self.line;
        Ok(())
    }

    /// Refuses at its first byte what can't become a message, such as a TLS hello.
    #[inline]
    fn check_start(&self, window: &[u8]) -> Result<(), HeadError> {
        let Some(&first) = window.get(self.start) else {
            return Ok(());
        };
        match self.message {
            Message::Request if first == b'\r' => match window.get(self.start + 1) {
                None | Some(b'\n') => Ok(()),
                Some(_) => Err(invalid("a CR without LF before the request")),
            },
            Message::Request if is_token_byte(first) => Ok(()),
            Message::Request => Err(invalid("a first byte that begins no method")),
            Message::Response if first == b'H' => Ok(()),
            Message::Response => Err(invalid("a first byte that begins no status line")),
        }
    }
}

/// Where the first CRLFCRLF ends, looked for in blocks that the compiler turns into vectors: a head
/// that came whole, as nearly all do, costs a quarter of what a search line by line does.
///
/// A line that ends without CR before that place is left to the parser, which looks at every line.
#[inline]
fn find_empty_line(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(block) = bytes[at..].first_chunk() {
        if has_feeds(block) {
            break;
        }
        at += 2 * HALF;
    }
    // Nearly always nothing follows the head: then its last byte alone makes a pair.
    if let Some((_, before)) = bytes.split_last()
        && let Some(block) = before.last_chunk()
        && before.len() <= at + 2 * HALF + 2
        && !has_feeds(block)
    {
        return bytes.ends_with(b"\r\n\r\n").then_some(bytes.len());
    }
    while let Some(found) = memchr::memchr(b'\n', &bytes[at..]) {
        at += found + 1;
        if bytes[..at].ends_with(b"\r\n") && bytes[at..].starts_with(b"\r\n") {
            return Some(at + 2);
        }
    }
    None
}

const HALF: usize = 32;

/// True exactly when a LF stands in the block that another one follows two bytes later.
#[inline]
fn has_feeds(block: &[u8; 2 * HALF + 2]) -> bool {
    let feed = |place: usize| u8::from(block[place] == b'\n');
    let mut hits = [0; HALF];
    for (place, hit) in hits.iter_mut().enumerate() {
        let further = place + HALF;
        *hit = feed(place) & feed(place + 2) | feed(further) & feed(further + 2);
    }
    hits != [0; HALF]
}

/// RFC 9110 section 5.6.2: tchar.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
            | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
    )
}

#[cfg(test)]
mod tests {
    use super::super::head::{FieldSpace, Request};
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes_max: 64,
        fields_max: 10,
    };

    /// Feeds the bytes whole and byte by byte.
    #[track_caller]
    fn check(scan: HeadScan, bytes: &str, expected: Result<Option<usize>, HeadError>) {
        let whole = { scan }.find_end(bytes.as_bytes(), &LIMITS);
        let mut resumed = scan;
        let split = (0..=bytes.len())
            .map(|end| resumed.find_end(&bytes.as_bytes()[..end], &LIMITS))
            .find(|found| *found != Ok(None));
        assert_eq!(whole, expected, "whole: {bytes:?}");
        assert_eq!(split.unwrap_or(Ok(None)), expected, "split: {bytes:?}");
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        for (bytes, end) in [
            ("GET / HTTP/1.1\r\n\r\n", Some(18)),
            ("GET / HTTP/1.1\r\nA: b\r\n\r\nGET /", Some(24)),
            (
                "GET / HTTP/1.1\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n\r\n",
                Some(50),
            ),
            ("\r\nGET / HTTP/1.1\r\n\r\n", Some(20)),
            ("\r\nGET / HTTP/1.1\r\n\r", None),
            ("GET / HTTP/1.1\r\n", None),
            ("\r", None),
            ("", None),
        ] {
            check(HeadScan::request(), bytes, Ok(end));
        }
        check(
            HeadScan::response(),
            "HTTP/1.1 200 OK\r\n\r\n",
            Ok(Some(19)),
        );
    }

    #[test]
    fn what_begins_no_message_is_refused_at_its_first_byte() {
        for bytes in ["\u{16}\u{3}\u{1}", " GET", "\0", "\u{e9}"] {
            let error = HeadScan::request().find_end(&bytes.as_bytes()[..1], &LIMITS);
            assert!(matches!(error, Err(HeadError::Invalid { .. })), "{bytes:?}");
        }
        for bytes in ["\r\nHTTP/1.1 200 OK\r\n\r\n", "SSH-2.0", "h"] {
            let error = HeadScan::response().find_end(&bytes.as_bytes()[..1], &LIMITS);
            assert!(matches!(error, Err(HeadError::Invalid { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn lines_end_with_crlf_and_one_empty_line_may_precede_a_request() {
        for (bytes, why) in [
            ("GET / HTTP/1.1\nA: b\n\n", "a line that ends without CR"),
            ("GET / HTTP/1.1\r\n\n", "a line that ends without CR"),
            (
                "\nGET / HTTP/1.1\r\n\r\n",
                "a first byte that begins no method",
            ),
            (
                "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                "empty lines before the request",
            ),
            (
                "\rGET / HTTP/1.1\r\n\r\n",
                "a CR without LF before the request",
            ),
        ] {
            check(HeadScan::request(), bytes, Err(invalid(why)));
        }
    }

    #[test]
    fn a_head_of_any_length_ends_alike_with_and_without_what_follows() {
        let limits = HeadLimits {
            bytes_max: 1024,
            fields_max: 10,
        };
        for length in 0..200 {
            let head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(length));
            let follows = [
                "",
                "\r",
                "\n",
                "\r\n",
                "abc\r\n\r\n",
                &head,
                "0\r\n\r\n",
                "\n\n\n",
            ];
            for rest in follows
                .map(str::to_owned)
                .into_iter()
                .chain(["b".repeat(100)])
            {
                let bytes = [head.as_bytes(), rest.as_bytes()].concat();
                let found = HeadScan::request().find_end(&bytes, &limits);
                assert_eq!(found, Ok(Some(head.len())), "{length} before {rest:?}");
            }
            for bare in ["A: a\nB", "A: a\r\n\nB", "A: a\n\r\nB", "A: a\n\nB"] {
                let bytes = head.replacen('A', bare, 1);
                let found = HeadScan::request().find_end(bytes.as_bytes(), &limits);
                // Where it is not refused here, the parser does, for it sees the line.
                let refused = found.and_then(|end| {
                    let mut space = FieldSpace::new();
                    let head = &bytes.as_bytes()[..end.unwrap_or_default()];
                    Request::parse(head, &limits, &mut space).map(|_| ())
                });
                let invalid = matches!(refused, Err(HeadError::Invalid { .. }));
                assert!(invalid, "{length} {bare:?}: {refused:?}");
            }
        }
    }

    #[test]
    fn a_head_costs_what_its_bytes_cost_however_many_reads_bring_them() {
        let limits = HeadLimits {
            bytes_max: 1 << 20,
            fields_max: 10,
        };
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(100_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A:\r\n".repeat(20_000));
        let empty = format!("\r\nGET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
        for head in [long, many, empty] {
            let bytes = head.as_bytes();
            for piece in [bytes.len(), 1, 7, 1000] {
                let mut scan = HeadScan::request();
                let mut found = None;
                for end in (piece..bytes.len() + piece).step_by(piece) {
                    let read = &bytes[..end.min(bytes.len())];
                    found = scan.find_end(read, &limits).unwrap();
                }
                assert_eq!(found, Some(bytes.len()), "in pieces of {piece}");
                let searched_max = bytes.len() + 3 * piece;
                assert!(scan.searched <= searched_max, "{}", scan.searched);
            }
        }
    }

    #[test]
    fn a_head_over_the_limit_is_refused_when_the_limit_is_reached() {
        let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(60));
        check(HeadScan::request(), &target, Err(HeadError::TargetTooLong));
        let field = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(60));
        check(HeadScan::request(), &field, Err(HeadError::TooLong));
        let exact = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(41));
        check(HeadScan::request(), &exact, Ok(Some(64)));
        let over = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(42));
        check(HeadScan::request(), &over, Err(HeadError::TooLong));
    }
}
