//! Heads of requests and responses: borrowed slices over the read buffer.
//!
//! A head is first delimited ([`HeadScan`]), then read whole ([`Request`], [`Response`]). Tokens
//! are httparse's work; what it lets pass and RFC 9112 does not is refused here, without a knob.

use std::fmt;
use std::mem::MaybeUninit;

use httparse::Header;

pub use super::request::Request;
pub use super::response::Response;
pub use super::scan::HeadScan;
use crate::fault::Fault;

/// The most fields that any configuration may allow.
pub const FIELDS_CEILING: usize = 500;

/// Bounds on a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, the empty line at the end included.
    pub bytes_max: usize,
    /// Fields; `fields_max <= FIELDS_CEILING`.
    pub fields_max: usize,
}

/// Room for the fields of one head, on the stack of the function that reads it.
///
/// 16 kB that are never initialised: making one costs nothing. Do not hold one across an await.
pub struct FieldSpace<'a> {
    pub(super) fields: [MaybeUninit<Header<'a>>; FIELDS_CEILING],
}

impl<'a> FieldSpace<'a> {
    /// Empty room.
    #[inline]
    pub const fn new() -> Self {
        Self {
            fields: [const { MaybeUninit::uninit() }; FIELDS_CEILING],
        }
    }

    /// As much of the room as the limits allow to be used.
    pub(super) fn within(&mut self, limits: &HeadLimits) -> &mut [MaybeUninit<Header<'a>>] {
        &mut self.fields[..limits.fields_max.min(FIELDS_CEILING)]
    }
}

impl Default for FieldSpace<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FieldSpace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldSpace").finish_non_exhaustive()
    }
}

/// Why a head is refused.
///
/// The connection it came on can't be trusted to be in step any more: answer where an answer is
/// still owed, then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It breaks a rule of RFC 9112.
    #[error("invalid head: {why}")]
    Invalid {
        /// The rule, in a few words.
        why: &'static str,
    },
    /// The major version is not 1.
    #[error("the version is not HTTP/1.x")]
    Version,
    /// An expectation other than 100-continue.
    #[error("an expectation other than 100-continue")]
    Expectation,
    /// A method that ringmain does not implement.
    #[error("CONNECT is not supported")]
    Unsupported,
    /// The request line is not over where the whole head must be.
    #[error("the request line is over the head's limit in bytes")]
    TargetTooLong,
    /// The head is not over where it must be.
    #[error("the head is over its limit in bytes")]
    TooLong,
    /// More fields than allowed.
    #[error("the head is over its limit in fields")]
    TooManyFields,
    /// A transfer coding other than `chunked` alone.
    #[error("a transfer coding other than chunked")]
    TransferCoding,
}

impl HeadError {
    /// The cause, where the head is a client's.
    pub const fn request_fault(&self) -> Fault {
        match self {
            Self::Invalid { .. } => Fault::RequestInvalid,
            Self::Version => Fault::VersionUnsupported,
            Self::Expectation => Fault::ExpectationUnsupported,
            // RFC 9112 section 6.1: a coding that is not understood is answered with 501.
            Self::Unsupported | Self::TransferCoding => Fault::RequestUnsupported,
            Self::TargetTooLong => Fault::RequestTargetTooLong,
            Self::TooLong | Self::TooManyFields => Fault::RequestHeadTooLarge,
        }
    }

    /// The cause, where the head is an endpoint's.
    pub const fn response_fault(&self) -> Fault {
        match self {
            Self::Invalid { .. } | Self::Version | Self::Expectation | Self::Unsupported => {
                Fault::ResponseInvalid
            }
            Self::TransferCoding => Fault::ResponseTransferCoding,
            Self::TargetTooLong | Self::TooLong | Self::TooManyFields => {
                Fault::ResponseHeadTooLarge
            }
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        let why = match error {
            httparse::Error::Version => return Self::Version,
            httparse::Error::TooManyHeaders => return Self::TooManyFields,
            httparse::Error::HeaderName => "a byte that no field name has",
            httparse::Error::HeaderValue => "a byte that no field value has",
            httparse::Error::NewLine => "a line that does not end where it must",
            httparse::Error::Status => "a malformed status line",
            httparse::Error::Token => "a malformed request line",
        };
        Self::Invalid { why }
    }
}
