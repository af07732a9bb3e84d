//! How long a body is, and where it ends (RFC 9112 section 6.3).
//!
//! Whatever two readers could frame differently is refused, in both directions: that is all that
//! request smuggling lives on.

use super::chunk::{Chunks, Run};
use super::field::{elements, invalid};
use super::head::HeadError;
use super::trailer::Trailers;
use crate::fault::Fault;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// So many bytes; 0 where the sender said so.
    Length(u64),
    /// Chunks up to the last one.
    Chunked,
    /// Whatever comes until the endpoint closes; responses only.
    UntilClose,
}

impl BodyLength {
    /// The rules of RFC 9112 section 6.3 for a request.
    #[inline]
    pub(super) fn of_request(
        length: Option<u64>,
        chunked: bool,
        minor: u8,
    ) -> Result<Self, HeadError> {
        // Rule 7: a request without either has no body.
        Self::of_message(length, chunked, minor, Self::None)
    }

    /// The rules of RFC 9112 section 6.3 for a response whose status and request allow a body.
    #[inline]
    pub(super) fn of_response(
        length: Option<u64>,
        chunked: bool,
        minor: u8,
    ) -> Result<Self, HeadError> {
        // Rule 8: a response without either lasts until the connection is closed.
        Self::of_message(length, chunked, minor, Self::UntilClose)
    }

    fn of_message(
        length: Option<u64>,
        chunked: bool,
        minor: u8,
        neither: Self,
    ) -> Result<Self, HeadError> {
        match (length, chunked) {
            // Rule 3 lets the coding win; whoever lets the length win sees another message.
            (Some(_), true) => Err(invalid("Content-Length beside Transfer-Encoding")),
            // Section 6.1: faulty framing in HTTP/1.0.
            (None, true) if minor == 0 => Err(invalid("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Ok(Self::Chunked),
            (Some(length), false) => Ok(Self::Length(length)),
            (None, false) => Ok(neither),
        }
    }

    /// True unless it is known that no byte follows.
    pub(super) const fn may_have_bytes(self) -> bool {
        !matches!(self, Self::None | Self::Length(0))
    }
}

/// RFC 9110 section 8.6: 1*DIGIT. A list, even of equal values, is refused, as is what does not fit
/// a signed 64-bit reader.
pub(super) fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    let mut length: i64 = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(invalid("a Content-Length that is not a number"));
        }
        length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(i64::from(byte - b'0')))
            .ok_or(invalid("a Content-Length that no body has"))?;
    }
    match u64::try_from(length) {
        Ok(length) if !value.is_empty() => Ok(length),
        _ => Err(invalid("a Content-Length that is not a number")),
    }
}

/// RFC 9112 section 6.1: `chunked` alone is understood.
pub(super) fn transfer_coding(value: &[u8]) -> Result<(), HeadError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = elements(value).rev();
    let last = codings.next();
    if codings.any(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        // Section 6.3 rule 4.
        return Err(invalid(
            "chunked is not the last coding, or stands there twice",
        ));
    }
    match last {
        Some(b"") | None => Err(invalid("an empty transfer coding")),
        Some(_) => Err(HeadError::TransferCoding),
    }
}

/// Bounds on a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of content; `u64::MAX` where there is no limit.
    pub bytes_max: u64,
    /// Bytes of the trailer section behind a chunked body, its last empty line not counted.
    pub trailer_bytes_max: usize,
}

/// Why a body can't be relayed any further; the connection that it came on is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// It breaks a rule of RFC 9112 section 7.1.
    #[error("invalid body: {why}")]
    Invalid {
        /// The rule, in a few words.
        why: &'static str,
    },
    /// More content than allowed.
    #[error("the body is over its limit in bytes")]
    TooLarge,
    /// More trailers than allowed.
    #[error("the trailers are over their limit in bytes")]
    TrailersTooLarge,
    /// The sender closed before the end.
    #[error("the connection was closed inside the body")]
    Incomplete,
}

impl FramingError {
    /// The cause, where the body is a client's.
    pub const fn request_fault(&self) -> Fault {
        match self {
            Self::Invalid { .. } => Fault::RequestInvalid,
            Self::TooLarge => Fault::RequestBodyTooLarge,
            Self::TrailersTooLarge => Fault::RequestHeadTooLarge,
            Self::Incomplete => Fault::RequestIncomplete,
        }
    }

    /// The cause, where the body is an endpoint's.
    pub const fn response_fault(&self) -> Fault {
        match self {
            Self::Invalid { .. } | Self::TooLarge => Fault::ResponseInvalid,
            Self::TrailersTooLarge => Fault::ResponseHeadTooLarge,
            Self::Incomplete => Fault::ResponseIncomplete,
        }
    }
}

/// What a body takes of the bytes that it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// So many bytes at the front belong to the body.
    pub taken: usize,
    /// So many of them, from the front, go on as they are; `send <= taken`. The others are
    /// trailers, which [`Body::take_trailers`] hands out when the body is done.
    pub send: usize,
    /// The body is over: what follows the taken bytes belongs to the next message.
    pub done: bool,
}

/// What a body takes of the bytes that it is shown, and what is left of them without chunk lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unchunked {
    /// So many bytes at the front belonged to the body.
    pub taken: usize,
    /// So many bytes of content now stand at the front; `data <= taken`.
    pub data: usize,
    /// The body is over: what follows the taken bytes belongs to the next message.
    pub done: bool,
}

/// One body that is being relayed: a few words that know how far it is.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// `left > 0`.
    Length {
        left: u64,
    },
    Chunked(Chunks),
    UntilClose {
        left: u64,
    },
    Done {
        /// `None` where there are none, or they were taken.
        trailers: Option<Box<Trailers>>,
    },
}

impl State {
    const DONE: Self = Self::Done { trailers: None };
}

impl Body {
    /// A body of which nothing has been passed yet.
    ///
    /// # Errors
    ///
    /// `TooLarge` where the length alone says so.
    pub const fn new(length: BodyLength, limits: BodyLimits) -> Result<Self, FramingError> {
        let state = match length {
            BodyLength::None | BodyLength::Length(0) => State::DONE,
            BodyLength::Length(left) if limits.bytes_max < left => {
                return Err(FramingError::TooLarge);
            }
            BodyLength::Length(left) => State::Length { left },
            BodyLength::Chunked => State::Chunked(Chunks::new(limits)),
            BodyLength::UntilClose => State::UntilClose {
                left: limits.bytes_max,
            },
        };
        Ok(Self { state })
    }

    /// How many of `bytes` belong to this body, and how many of those may be forwarded as they are,
    /// chunk lines included.
    ///
    /// # Errors
    ///
    /// The body breaks a rule or a limit somewhere in `bytes`; none of them is to be forwarded.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<Passed, FramingError> {
        let (mut taken, mut send) = (0, 0);
        while taken < bytes.len() && !self.is_done() {
            let run = self.run(&bytes[taken..])?;
            taken += run.framing + run.data;
            // Nothing follows what is kept.
            send = taken - run.kept;
        }
        Ok(Passed {
            taken,
            send,
            done: self.is_done(),
        })
    }

    /// The same, and moves the content to the front of `bytes`: chunk lines and trailers go.
    ///
    /// # Errors
    ///
    /// As for [`Body::pass`].
    pub fn unchunk(&mut self, bytes: &mut [u8]) -> Result<Unchunked, FramingError> {
        let (mut taken, mut data) = (0, 0);
        while taken < bytes.len() && !self.is_done() {
            let run = self.run(&bytes[taken..])?;
            let content = taken + run.framing..taken + run.framing + run.data;
            taken = content.end;
            bytes.copy_within(content, data);
            data += run.data;
        }
        Ok(Unchunked {
            taken,
            data,
            done: self.is_done(),
        })
    }

    /// The trailers that `nominated` lists, as the head's Connection does, are not handed out.
    pub fn nominate(&mut self, nominated: Box<[u8]>) {
        if let State::Chunked(chunks) = &mut self.state {
            chunks.nominate(nominated);
        }
    }

    /// The trailers of a body that is done, once, where it has any: what [`Trailers::write`] leaves
    /// of them is sent behind what was passed.
    pub const fn take_trailers(&mut self) -> Option<Box<Trailers>> {
        match &mut self.state {
            State::Done { trailers } => trailers.take(),
            State::Length { .. } | State::Chunked(_) | State::UntilClose { .. } => None,
        }
    }

    /// The sender closed its side.
    ///
    /// # Errors
    ///
    /// `Incomplete` where the body may not end here (RFC 9112 section 8).
    pub fn end(&mut self) -> Result<(), FramingError> {
        match self.state {
            State::Done { .. } => Ok(()),
            State::UntilClose { .. } => {
                self.state = State::DONE;
                Ok(())
            }
            State::Length { .. } | State::Chunked(_) => Err(FramingError::Incomplete),
        }
    }

    /// True exactly when no byte of this body is still to come.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// How many bytes are still to come, where that is known.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length { left } => Some(left),
            State::Done { .. } => Some(0),
            State::Chunked(_) | State::UntilClose { .. } => None,
        }
    }

    /// The next run of content in `bytes`, with the framing before it.
    #[inline]
    fn run(&mut self, bytes: &[u8]) -> Result<Run, FramingError> {
        match &mut self.state {
            State::Done { .. } => Ok(Run::default()),
            State::Length { left } => {
                let data = within(*left, bytes.len());
                *left -= data as u64;
                if *left == 0 {
                    self.state = State::DONE;
                }
                Ok(Run::of_data(data))
            }
            State::UntilClose { left } => {
                let data = bytes.len();
                *left = left
                    .checked_sub(data as u64)
                    .ok_or(FramingError::TooLarge)?;
                Ok(Run::of_data(data))
            }
            State::Chunked(chunks) => {
                let run = chunks.run(bytes)?;
                if chunks.is_done() {
                    let trailers = chunks.take_trailers();
                    self.state = State::Done { trailers };
                }
                Ok(run)
            }
        }
    }
}

/// How much of `length` bytes at hand is within `left`.
pub(super) fn within(left: u64, length: usize) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}

#[cfg(test)]
mod tests;
