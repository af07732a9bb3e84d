//! Another configuration takes the place of the one that runs.

use super::Control;

impl Control {
    /// Loads the configuration anew.
    pub(super) fn reload(&mut self) {
        let Some(source) = &mut self.source else {
            log::warn!("there is no file to load from; nothing is changed");
            return;
        };
        let from = source.name();
        match source.load() {
            Ok(_) => log::warn!(from; "this version does not reload; nothing is changed"),
            Err(errors) => log::error!(from, errors:%; "refused; nothing is changed"),
        }
    }
}
