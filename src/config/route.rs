//! `[[route]]`: which requests go to a service, whatever its domains are.

use super::file::Table;
use super::value::{integer_in, text};
use super::words;
use crate::plan::Protocol;

/// A route; routes are tried in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host in lower case, exact or `*.SUFFIX`; empty is any.
    pub domain: String,
    /// Exact, or a prefix that ends in `/*`; empty is any.
    pub path: String,
    /// Methods in their exact spelling; empty is any.
    pub methods: Vec<String>,
    /// Names of fields and the value that each must have; empty is any.
    pub fields: Vec<(String, String)>,
    /// Names of query parameters and the value that each must have, as they are sent; empty is any.
    pub query: Vec<(String, String)>,
    /// The service's name; it exists. Empty exactly when there are weights.
    pub service: String,
    /// Names of services, which exist, and their shares of the requests, `0..=1000`; not all 0.
    pub weights: Vec<(String, u32)>,
}

impl Route {
    /// The names of the services that it can lead to.
    pub fn services(&self) -> impl Iterator<Item = &String> {
        let weighted = self.weights.iter().filter(|(_, weight)| 0 < *weight);
        let one = Some(&self.service).filter(|service| !service.is_empty());
        one.into_iter().chain(weighted.map(|(service, _)| service))
    }
}

pub(super) fn route(table: &mut Table<'_, '_>) -> Route {
    let route = Route {
        domain: table.text("domain", "", words::domain_or_empty),
        path: table.text("path", "", words::path),
        methods: table.list("methods", "[]", text(words::method)),
        fields: table.pairs(
            "fields",
            words::field_name,
            // RFC 9110 section 5.1: names of fields ignore case.
            str::eq_ignore_ascii_case,
            text(words::field_value),
        ),
        query: table.pairs(
            "query",
            words::query_name,
            |a, b| a == b,
            text(words::query_value),
        ),
        service: table.text("service", "", words::name_or_empty),
        weights: table.pairs("weights", words::name, |a, b| a == b, integer_in(0..=1_000)),
    };
    destination(table, &route);
    route
}

/// Where a route leads is said once, and exists.
fn destination(table: &mut Table<'_, '_>, route: &Route) {
    let Route {
        service, weights, ..
    } = route;
    match (service.is_empty(), weights.is_empty()) {
        (true, true) => table.wrong("service", "is missing: the name of a service".into()),
        (false, true) => table.refer("service", service, Protocol::Http),
        (true, false) => {
            if weights.iter().all(|(_, weight)| *weight == 0) {
                let message = "no service has a weight; at least one needs 1 or more";
                table.wrong("weights", message.into());
            }
            for (service, _) in weights {
                table.refer("weights", service, Protocol::Http);
            }
        }
        (false, false) => {
            let message = "stands beside service; a route leads to the one or to the others";
            table.wrong("weights", message.into());
        }
    }
}
