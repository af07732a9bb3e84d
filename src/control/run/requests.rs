//! What clients of the admin API ask control's loop for.

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::super::admin::{Reply, Wanted};
use super::report::Asker;
use super::{Control, Supervisor};

impl Control {
    /// Does what is wanted, and answers it, at once or later.
    pub(super) fn request(&mut self, wanted: Wanted, supervisor: &mut dyn Supervisor) {
        match wanted {
            Wanted::Ready { service, answer } => tell(answer, self.readiness(service.as_deref())),
            Wanted::Plan { format, answer } => self.show_plan(format, answer),
            Wanted::Report(wanted) => self.ask(Asker::Client(wanted)),
            Wanted::Reload { answer } => self.reload(Some(answer), supervisor),
            Wanted::Drain { answer } => {
                let text = self.asked_to_drain(supervisor);
                tell(answer, Reply::new(StatusCode::ACCEPTED, text));
            }
            Wanted::Set {
                service,
                backend,
                state,
                answer,
            } => self.set_state(&service, &backend, state, answer),
        }
    }
}

fn tell<T>(answer: oneshot::Sender<T>, what: T) {
    // An error: the client has gone meanwhile.
    let _told = answer.send(what);
}
