//! What one hop changes in a head: hop-by-hop fields go, forwarding fields come.

/// Fields that the operator sets on and removes from every message of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Name and value, each replacing every field of that name.
    pub set: Box<[(Box<str>, Box<str>)]>,
    /// Names of fields to remove.
    pub remove: Box<[Box<str>]>,
}
