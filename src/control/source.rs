//! Where configurations come from.
//!
//! A source loads a configuration whole, checks it, and says when another one may be there; what
//! becomes of it is control's. `docs/EXTENDING.md` says how to add one.

use std::fmt::Debug;

use crate::config::{Config, ConfigErrors};

/// Where configurations come from.
pub trait ConfigSource: Debug + Send {
    /// What it is called in messages, such as the path of a file.
    fn name(&self) -> String;

    /// The configuration that is there now.
    ///
    /// # Errors
    /// Every one that it has.
    fn load(&mut self) -> Result<Config, ConfigErrors>;
}
