//! Which part of a report is wanted, and the report cut to it.

use super::{EndpointReport, Report};
use crate::tally::{EndpointTotals, Phase};

/// What a report is cut to; the default is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The operator's name of the only service.
    pub service: Option<String>,
    /// The only phase.
    pub phase: Option<Phase>,
    /// The address of the only endpoint, of each service that has it.
    pub endpoint: Option<String>,
}

/// Why there is nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The plan has no such service.
    #[error("service: there is no {name:?}; allowed: {}", some(allowed))]
    Service {
        /// What was asked for.
        name: String,
        /// The services that there are.
        allowed: Vec<String>,
    },
    /// No service that was asked for has the endpoint.
    #[error("endpoint: there is no {address:?}; allowed: {}", some(allowed))]
    Endpoint {
        /// What was asked for.
        address: String,
        /// The endpoints that there are.
        allowed: Vec<String>,
    },
    /// Services record the phase, endpoints do not.
    #[error("phase: {} is not recorded of endpoints; allowed: {}", .0.label(), of_endpoint())]
    Phase(Phase),
    /// The format holds one distribution, and more than one service is left.
    #[error("service: hgrm holds one distribution, so name one; allowed: {}", some(.0))]
    Several(Vec<String>),
}

/// What is left of a report. `Display` is its text, which ends with a newline.
#[derive(Clone, Debug)]
pub struct Excerpt<'a> {
    pub(super) report: Report<'a>,
    /// The only phase to show, if not all.
    pub(super) phase: Option<Phase>,
    /// True exactly when the endpoints are shown alone, without what their services recorded.
    pub(super) of_endpoints: bool,
    /// True exactly when no service and no endpoint was selected, so that what belongs to none is
    /// shown too.
    pub(super) whole: bool,
}

impl<'a> Report<'a> {
    /// The part of it that `selection` names.
    ///
    /// # Errors
    /// When the report has no such service or endpoint, or endpoints no such phase.
    pub fn excerpt(mut self, selection: &Selection) -> Result<Excerpt<'a>, SelectionError> {
        let Selection {
            service,
            phase,
            endpoint,
        } = selection;
        if let Some(name) = service {
            self.keep_service(name)?;
        }
        if let Some(address) = endpoint {
            self.keep_endpoint(address)?;
            if let Some(phase) = phase.filter(|phase| !Phase::OF_ENDPOINT.contains(phase)) {
                return Err(SelectionError::Phase(phase));
            }
        }
        Ok(Excerpt {
            report: self,
            phase: *phase,
            of_endpoints: endpoint.is_some(),
            whole: service.is_none() && endpoint.is_none(),
        })
    }

    /// The names of its services.
    pub(super) fn names(&self) -> Vec<String> {
        let services = self.services.iter();
        services.map(|service| service.name.to_owned()).collect()
    }

    fn keep_service(&mut self, name: &str) -> Result<(), SelectionError> {
        let allowed = self.names();
        self.services.retain(|service| service.name == name);
        if self.services.is_empty() {
            let name = name.to_owned();
            return Err(SelectionError::Service { name, allowed });
        }
        Ok(())
    }

    fn keep_endpoint(&mut self, address: &str) -> Result<(), SelectionError> {
        let endpoints = self.services.iter().flat_map(|service| &service.endpoints);
        let mut allowed: Vec<_> = endpoints.map(|endpoint| endpoint.name.to_owned()).collect();
        for service in &mut self.services {
            let endpoints = std::mem::take(&mut service.endpoints);
            let totals = std::mem::take(&mut service.totals.endpoints);
            let kept: Vec<(EndpointReport<'a>, EndpointTotals)> = endpoints
                .into_iter()
                .zip(totals)
                .filter(|(endpoint, _)| endpoint.name == address)
                .collect();
            (service.endpoints, service.totals.endpoints) = kept.into_iter().unzip();
        }
        self.services
            .retain(|service| !service.endpoints.is_empty());
        if self.services.is_empty() {
            allowed.sort();
            allowed.dedup();
            let address = address.to_owned();
            return Err(SelectionError::Endpoint { address, allowed });
        }
        Ok(())
    }
}

impl Excerpt<'_> {
    /// True exactly when `phase` is to be shown.
    pub(super) fn shows(&self, phase: Phase) -> bool {
        self.phase.is_none_or(|only| only == phase)
    }
}

/// The first names, and how many more there are: a plan may have thousands.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 20;
    if names.is_empty() {
        return "none, there are no services".to_owned();
    }
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if SHOWN < names.len() {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn of_endpoint() -> String {
    Phase::OF_ENDPOINT.map(Phase::label).join(", ")
}
