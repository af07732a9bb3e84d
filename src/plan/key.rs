//! What of a request is hashed where equal requests shall go to the same endpoint.

/// The key of the policy `hash`. A request that has none is hashed by its client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// The path, without the query.
    Path,
    /// The first value of the field of this name.
    Field(Box<str>),
    /// The value of the cookie of this name.
    Cookie(Box<str>),
}
