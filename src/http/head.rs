//! Heads of requests and responses: borrowed slices over the read buffer.

/// Bounds on a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, the empty line at the end included.
    pub bytes_max: usize,
    /// Fields; `fields_max <= FIELDS_CEILING`.
    pub fields_max: usize,
}
