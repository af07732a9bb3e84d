//! HTTP/1.1 without I/O: bytes in, decisions out (RFC 9110, RFC 9112).
//!
//! Nothing here reads a socket or a clock, and nothing allocates per field. The same bytes in any
//! split give the same decisions. In the order of an exchange: [`head::HeadScan`] finds where a
//! head ends, [`head::Request`] and [`head::Response`] read it, [`framing::Body`] follows the body
//! behind it, [`hop`] and [`trailer`] write what the other side gets, [`exchange`] decides what
//! needs both messages, and [`reply`] answers where no endpoint did.

mod field;
pub mod head;
mod request;
mod response;
mod scan;
mod upgrade;

mod chunk;
pub mod framing;
pub mod trailer;

pub mod exchange;
pub mod hop;
pub mod reply;
