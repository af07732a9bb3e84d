//! What has changed for an endpoint or a service, and the line of the log that says so.

use std::net::SocketAddr;
use std::time::Duration;

use crate::tally::EjectReason;
use crate::units::format_duration;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The service's name.
    pub service: String,
    /// Which of its endpoints; `None` where it concerns them all.
    pub endpoint: Option<SocketAddr>,
    /// What has changed.
    pub news: News,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is well, and gets traffic for it.
    Healthy {
        /// How long it had been unhealthy; `None` where nothing was known of it.
        after: Option<Duration>,
    },
    /// It is well, and got traffic before that was known.
    FirstAnswer,
    /// It is not well.
    Unhealthy {
        /// What its last probe came to.
        reason: String,
    },
    /// A shard has ejected it, the first of all.
    Ejected {
        /// Which one.
        shard: usize,
        /// Why.
        reason: EjectReason,
    },
    /// No shard has it ejected any more.
    Readmitted,
    /// Most shards have ejected it, and so it is out for all.
    OutForAll,
    /// It is no longer out for all.
    InForAll,
    /// No endpoint of the service is healthy.
    NoneHealthy,
    /// An endpoint of the service is healthy again.
    SomeHealthy,
}

impl Change {
    /// Writes its line.
    pub fn log(&self) {
        let service = self.service.as_str();
        let endpoint = self.endpoint.map(|endpoint| endpoint.to_string());
        let endpoint = endpoint.unwrap_or_default();
        match &self.news {
            News::Healthy { after: Some(after) } => {
                let unhealthy_for = format_duration(*after);
                log::info!(service, endpoint, unhealthy_for; "an endpoint is healthy again");
            }
            News::Healthy { after: None } => {
                log::info!(service, endpoint; "an endpoint is healthy and gets traffic");
            }
            News::FirstAnswer => log::debug!(service, endpoint; "an endpoint is healthy"),
            News::Unhealthy { reason } => {
                log::warn!(service, endpoint, reason; "an endpoint is unhealthy");
            }
            News::Ejected { shard, reason } => {
                let reason = reason.label();
                log::warn!(service, endpoint, reason, shard; "an endpoint is ejected");
            }
            News::Readmitted => log::info!(service, endpoint; "an endpoint is readmitted"),
            // The first ejection and the last readmission have their lines.
            News::OutForAll => log::debug!(service, endpoint; "ejected for all shards"),
            News::InForAll => log::debug!(service, endpoint; "no longer ejected for all shards"),
            News::NoneHealthy => log::warn!(service; "a service has no healthy endpoint"),
            News::SomeHealthy => log::info!(service; "a service has a healthy endpoint"),
        }
    }
}
