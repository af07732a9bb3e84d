//! Follows a chunked body byte by byte in a few words of state (RFC 9112 section 7.1).
//!
//! ```text
//!   Size -> SizeMore -+-----------> SizeLf -+-> Data -> DataCr -> DataLf -> Size
//!                     +-> Extension ---^    +-> TrailerStart -+-> EndLf -> Done
//!                           <-> Quoted           ^            +-> Name -> Value -> ValueLf
//!                           <-> Escaped          +----------------------------------+
//! ```
//!
//! A trailer section without fields, as nearly all are, is passed like any other byte. One with
//! fields is kept until it is whole, for only some of them go on ([`Trailers`]).
//!
//! Every line ends with CRLF and nothing else; white space around a size, signs and prefixes are
//! refused: readers that differ on them see other chunks than we do.

use super::framing::{BodyLimits, FramingError, within};
use super::scan::is_token_byte;
use super::trailer::Trailers;

/// Hexadecimal digits of a size, leading zeros included: what fits 64 bits.
const DIGITS_MAX: u8 = 16;

/// Bytes of one chunk's extensions: they are passed on and mean nothing, so that a flood of them is
/// traffic that no limit on the content sees.
const EXTENSION_BYTES_MAX: u16 = 256;

/// Framing, then content: what one look at the bytes found at their front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) framing: usize,
    /// So many bytes at the end of the framing were kept as trailers; `kept <= framing`.
    pub(super) kept: usize,
    pub(super) data: usize,
}

impl Run {
    pub(super) const fn of_data(data: usize) -> Self {
        Self {
            framing: 0,
            kept: 0,
            data,
        }
    }
}

/// A chunked body that is being relayed.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    state: State,
    /// Of a chunk line, the size read so far; inside a chunk, the bytes of it still to come.
    size: u64,
    /// Digits of the size, then bytes of its extensions.
    line: u16,
    /// How much more content is allowed.
    room: u64,
    /// How many more bytes of trailers are allowed.
    trailer_room: usize,
    /// What has come of a trailer section that has a field. In a box, for it is rare.
    trailers: Option<Box<Trailers>>,
    /// What the head's Connection lists, where that may name a trailer.
    nominated: Option<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    SizeMore,
    Extension,
    /// Inside a quoted value of an extension.
    Quoted,
    /// Behind a backslash in there.
    Escaped,
    SizeLf,
    /// `size > 0`.
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Name,
    Value,
    ValueLf,
    EndLf,
    Done,
}

impl Chunks {
    pub(super) const fn new(limits: BodyLimits) -> Self {
        Self {
            state: State::Size,
            size: 0,
            line: 0,
            room: limits.bytes_max,
            trailer_room: limits.trailer_bytes_max,
            trailers: None,
            nominated: None,
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Trailers that `nominated` lists are dropped.
    pub(super) fn nominate(&mut self, nominated: Box<[u8]>) {
        self.nominated = Some(nominated);
    }

    /// The trailer section of a body that is done, where it has a field.
    pub(super) const fn take_trailers(&mut self) -> Option<Box<Trailers>> {
        self.trailers.take()
    }

    /// The framing at the front of `bytes` and the content behind it; takes at least one byte of a
    /// body that is not done.
    pub(super) fn run(&mut self, bytes: &[u8]) -> Result<Run, FramingError> {
        let (mut framing, mut kept) = (0, 0);
        while self.state != State::Data
            && self.state != State::Done
            && let Some(&byte) = bytes.get(framing)
        {
            self.state = self.step(byte)?;
            framing += 1;
            if let Some(trailers) = &mut self.trailers {
                trailers.push(byte);
                kept += 1;
            }
        }
        let data = within(self.size, bytes.len() - framing);
        self.size -= data as u64;
        if self.state == State::Data && self.size == 0 {
            self.state = State::DataCr;
        }
        Ok(Run {
            framing,
            kept,
            data,
        })
    }

    fn step(&mut self, byte: u8) -> Result<State, FramingError> {
        match (self.state, byte) {
            (State::Size | State::SizeMore, _) if byte.is_ascii_hexdigit() => self.digit(byte),
            (State::SizeMore | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::SizeMore, b';') => {
                self.line = 0;
                Ok(State::Extension)
            }
            (State::Extension | State::Quoted | State::Escaped, _) => self.extension(byte),
            (State::SizeLf, b'\n') => self.size_known(),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => self.trailer(byte),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, FramingError> {
        if u16::from(DIGITS_MAX) <= self.line {
            return Err(invalid("a chunk size of more than 16 digits"));
        }
        let digit = (byte as char).to_digit(16).unwrap_or_default();
        self.line += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(State::SizeMore)
    }

    /// RFC 9112 section 7.1.1. The syntax is checked: to a reader that looks for the end of the
    /// quotes first, a line that ends inside them goes on, and it sees other chunks.
    fn extension(&mut self, byte: u8) -> Result<State, FramingError> {
        let next = match (self.state, byte) {
            (State::Extension, b'"') | (State::Escaped, _) if is_text_byte(byte) => State::Quoted,
            (State::Quoted, b'"') => State::Extension,
            (State::Quoted, b'\\') => State::Escaped,
            (State::Quoted, _) if is_text_byte(byte) => State::Quoted,
            (State::Extension, b';' | b'=' | b' ' | b'\t') => State::Extension,
            (State::Extension, _) if is_token_byte(byte) => State::Extension,
            _ => return Err(self.refusal()),
        };
        if EXTENSION_BYTES_MAX <= self.line {
            // RFC 9112 section 7.1.1: a recipient ought to limit their length.
            return Err(invalid("chunk extensions over 256 bytes"));
        }
        self.line += 1;
        Ok(next)
    }

    fn size_known(&mut self) -> Result<State, FramingError> {
        if self.size == 0 {
            return Ok(State::TrailerStart);
        }
        // As with Content-Length: a reader of signed numbers would see another chunk.
        if i64::try_from(self.size).is_err() {
            return Err(invalid("a chunk size that no body has"));
        }
        self.room = self
            .room
            .checked_sub(self.size)
            .ok_or(FramingError::TooLarge)?;
        Ok(State::Data)
    }

    /// RFC 9112 section 7.1.2: the trailers have the syntax of fields.
    fn trailer(&mut self, byte: u8) -> Result<State, FramingError> {
        let next = match (self.state, byte) {
            (State::TrailerStart, _) if is_token_byte(byte) => {
                let nominated = &mut self.nominated;
                self.trailers
                    .get_or_insert_with(|| Box::new(Trailers::new(nominated.take())));
                State::Name
            }
            (State::Name, _) if is_token_byte(byte) => State::Name,
            (State::Name, b':') => State::Value,
            (State::Value, b'\r') => State::ValueLf,
            (State::Value, _) if is_text_byte(byte) => State::Value,
            (State::ValueLf, b'\n') => State::TrailerStart,
            _ => return Err(self.refusal()),
        };
        self.trailer_room = self
            .trailer_room
            .checked_sub(1)
            .ok_or(FramingError::TrailersTooLarge)?;
        Ok(next)
    }

    const fn refusal(&self) -> FramingError {
        invalid(match self.state {
            State::Size | State::SizeMore => "a chunk size that is not a number",
            State::Extension => "a malformed chunk extension",
            State::Quoted | State::Escaped => "a chunk extension whose quotes do not end",
            State::SizeLf => "a chunk line that does not end with CRLF",
            State::Data | State::DataCr | State::DataLf => "a chunk that does not end with CRLF",
            State::TrailerStart | State::Name => "a malformed trailer name",
            State::Value => "a control character in a trailer",
            State::ValueLf => "a trailer that does not end with CRLF",
            State::EndLf | State::Done => "trailers that do not end with CRLF",
        })
    }
}

/// HTAB, SP, VCHAR or obs-text (RFC 9110 section 5.5).
const fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (b' ' <= byte && byte != 0x7f)
}

const fn invalid(why: &'static str) -> FramingError {
    FramingError::Invalid { why }
}
