//! What the admin API asks control's loop for, each with the place where its answer goes.

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::{PlanFormat, ReportQuery};
use crate::control::compile::Override;
use crate::tally::report::SelectionError;

/// Somebody wants something of control.
#[derive(Debug)]
pub enum Wanted {
    /// Whether clients may be sent here.
    Ready {
        /// Whether they may be sent here for this one; `None`: for any.
        service: Option<String>,
        /// Where to.
        answer: oneshot::Sender<Reply>,
    },
    /// What runs.
    Plan {
        /// How it is written.
        format: PlanFormat,
        /// Where to.
        answer: oneshot::Sender<String>,
    },
    /// What was counted and recorded.
    Report(WantedReport),
    /// Another configuration.
    Reload {
        /// Where to: what it changes, or why nothing is changed.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// The end.
    Drain {
        /// Where to.
        answer: oneshot::Sender<Reply>,
    },
    /// Another state of a backend.
    Set {
        /// The name of its service.
        service: String,
        /// As the operator wrote it.
        backend: String,
        /// Which state.
        state: Override,
        /// Where to.
        answer: oneshot::Sender<Reply>,
    },
}

/// Somebody wants a report.
#[derive(Debug)]
pub struct WantedReport {
    /// What of it, and how it is written.
    pub query: ReportQuery,
    /// Where to.
    pub answer: oneshot::Sender<Result<String, SelectionError>>,
}

/// What control says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status of the answer.
    pub status: StatusCode,
    /// Its text, without the end of its last line.
    pub text: String,
}

impl Reply {
    /// An answer with this status.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }
}
