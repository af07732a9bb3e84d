//! Finds where a head ends, however the bytes come in.
//!
//! Lines end with CRLF and nothing else. RFC 9112 section 2.2 lets a recipient take a bare LF for a
//! line's end; two readers of which one does and one does not see two different messages, so we refuse
//! it. Each byte is looked at once.

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
        }
    }

    /// The length of the head at the front of `bytes`, its last empty line included; `None` where
    /// more bytes are needed.
    ///
    /// `bytes` is everything read so far of this message, from its first byte on. The length
    /// includes the one empty line that is tolerated before a request; [`super::head::Request::parse`]
    /// expects it there.
    ///
    /// # Errors
    ///
    /// What can be refused before the head is whole: a first byte that begins no message, a line that
    /// does not end with CRLF, a head over `limits.bytes_max`.
    #[inline]
    pub fn find_end(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, HeadError> {
        // What lies behind the limit decides nothing, or a split could change the decision.
        let window = &bytes[..bytes.len().min(limits.bytes_max)];
        while let Some(found) = memchr::memchr(b'\n', &window[self.scanned..]) {
            let feed = self.scanned + found;
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

/// RFC 9110 section 5.6.2: tchar.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
            | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
    )
}
