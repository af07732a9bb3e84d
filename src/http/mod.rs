//! HTTP/1.1 without I/O: bytes in, decisions out (RFC 9110, RFC 9112).
//!
//! Nothing here reads a socket or a clock, and nothing allocates per field. The same bytes in any split give the same decisions.

pub mod head;
pub mod hop;
