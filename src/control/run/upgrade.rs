//! Another binary takes the place of the one that runs.

use super::Control;

impl Control {
    /// Starts the binary anew, and drains when that is ready.
    pub(super) fn upgrade(&self) {
        log::warn!(signal = "SIGUSR2"; "signal ignored: this version does not upgrade");
    }
}
