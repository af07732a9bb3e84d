//! Where configurations come from.
//!
//! A source loads a configuration whole, checks it, and says when another one may be there; what
//! becomes of it is control's. `docs/EXTENDING.md` says how to add one.

mod file;
mod watch;

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{Config, ConfigErrors};

pub use file::{FileSource, Override};

/// Where configurations come from.
pub trait ConfigSource: Debug + Send {
    /// What it is called in messages, such as the path of a file.
    fn name(&self) -> String;

    /// The configuration that is there now. Control's loop waits for it meanwhile: what takes long
    /// to fetch, a source fetches before it rings.
    ///
    /// # Errors
    /// Every one that it has.
    fn load(&mut self) -> Result<Config, ConfigErrors>;

    /// Rings `changed` from now on whenever another configuration may be there. Called again, it
    /// goes on. A source that never knows need not do anything: whoever wants a reload asks for it.
    fn watch(&mut self, changed: &Changed) {
        let _nobody = changed;
    }

    /// Rings no more.
    fn unwatch(&mut self) {}
}

/// What a source rings when another configuration may be there; control loads it then. From any
/// thread; rung several times before control comes to it, it loads once.
#[derive(Clone, Debug, Default)]
pub struct Changed(Arc<Notify>);

impl Changed {
    /// Another configuration may be there.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits until somebody rings, or has since the last call. May be dropped: nothing is lost.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}
