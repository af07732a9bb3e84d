//! Follows a chunked body byte by byte in a few words of state (RFC 9112 section 7.1).
//!
//! ```text
//!   Size -> SizeMore -+---------------> SizeLf -+-> Data -> DataCr -> DataLf -> Size
//!                     +-> Extension(_) ---^     +-> TrailerStart -+-> EndLf -> Done
//!                                                     ^           +-> Name -> Value -> ValueLf
//!                                                     +---------------------------------+
//!   Extension: Begin -> Name -> Named -> ValueBegin -+-> Token --+-> End -> Begin
//!                                                    +-> Quoted -+
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

/// Bytes of the extensions of one body beyond as many as its content has: chunks of one byte with
/// long extensions are such a flood too (CVE-2023-39326 of Go).
const EXTENSIONS_SPARE: u32 = 16 * 1024;

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
    /// How many more bytes of extensions are allowed: each byte of content allows one more.
    extension_room: u32,
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
    Extension(Extension),
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

/// Where in `; name = value` the line is; blanks may stand around each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Behind `;`.
    Begin,
    Name,
    /// Behind the blanks that follow the name.
    Named,
    /// Behind `=`.
    ValueBegin,
    Token,
    Quoted,
    /// Behind the value.
    End,
}

impl Chunks {
    pub(super) const fn new(limits: BodyLimits) -> Self {
        Self {
            state: State::Size,
            size: 0,
            line: 0,
            extension_room: EXTENSIONS_SPARE,
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
            (State::SizeMore, b'\r') => Ok(State::SizeLf),
            (State::SizeMore, b';') => {
                self.line = 0;
                Ok(State::Extension(Extension::Begin))
            }
            (State::Extension(at), b'\r') if at.may_end() => Ok(State::SizeLf),
            (State::Extension(at), _) => self.extension(at, byte),
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

    fn extension(&mut self, at: Extension, byte: u8) -> Result<State, FramingError> {
        let next = at.next(byte).ok_or(self.refusal())?;
        if EXTENSION_BYTES_MAX <= self.line {
            // RFC 9112 section 7.1.1: a recipient ought to limit their length.
            return Err(invalid("chunk extensions over 256 bytes"));
        }
        self.line += 1;
        self.extension_room = self
            .extension_room
            .checked_sub(1)
            .ok_or(invalid("more chunk extensions than content"))?;
        Ok(State::Extension(next))
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
        let size = u32::try_from(self.size).unwrap_or(u32::MAX);
        self.extension_room = self.extension_room.saturating_add(size);
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
            State::Extension(Extension::Quoted) => "a malformed quoted chunk extension",
            State::Extension(_) => "a malformed chunk extension",
            State::SizeLf => "a chunk line that does not end with CRLF",
            State::Data | State::DataCr | State::DataLf => "a chunk that does not end with CRLF",
            State::TrailerStart | State::Name => "a malformed trailer name",
            State::Value => "a control character in a trailer",
            State::ValueLf => "a trailer that does not end with CRLF",
            State::EndLf | State::Done => "trailers that do not end with CRLF",
        })
    }
}

impl Extension {
    /// RFC 9112 section 7.1.1: `*( BWS ";" BWS name [ BWS "=" BWS value ] )`. To a reader that
    /// counts quotes, wherever they stand, a line that ends inside of some goes on, and it sees
    /// other chunks than we do.
    const fn next(self, byte: u8) -> Option<Self> {
        let is_token = is_token_byte(byte);
        Some(match (self, byte) {
            (Self::Begin | Self::Name, _) if is_token => Self::Name,
            (Self::ValueBegin | Self::Token, _) if is_token => Self::Token,
            (Self::Name | Self::Named, b'=') => Self::ValueBegin,
            (Self::ValueBegin, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::End,
            // Stricter: no quoted-pair (a reader that does not know them counts `\"` too, and takes
            // the line of `1;a="\""` for one whose quotes are open).
            (Self::Quoted, _) if is_text_byte(byte) && byte != b'\\' => Self::Quoted,
            (Self::Begin | Self::Named | Self::ValueBegin | Self::End, b' ' | b'\t') => self,
            (Self::Name, b' ' | b'\t') => Self::Named,
            (Self::Token, b' ' | b'\t') => Self::End,
            (Self::Name | Self::Named | Self::Token | Self::End, b';') => Self::Begin,
            _ => return None,
        })
    }

    /// True exactly when the line may end here.
    const fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Named | Self::Token | Self::End)
    }
}

/// HTAB, SP, VCHAR or obs-text (RFC 9110 section 5.5).
const fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (b' ' <= byte && byte != 0x7f)
}

const fn invalid(why: &'static str) -> FramingError {
    FramingError::Invalid { why }
}
