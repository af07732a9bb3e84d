//! `[[route]]`: which requests go to a service, whatever its domains are.

use super::file::Table;
use super::value::{integer_in, text};
use super::words;

/// A route; routes are tried in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host in lower case, exact or `*.SUFFIX`; empty is any.
    pub domain: String,
    /// Exact, or a prefix that ends in `/*`; empty is any.
    pub path: String,
    /// Methods in their exact spelling; empty is any.
    pub methods: Vec<String>,
    /// The service's name; it exists.
    pub service: String,
}

pub(super) fn route(table: &mut Table<'_, '_>) -> Route {
    table.pairs(
        "fields",
        words::field_name,
        str::eq_ignore_ascii_case,
        text(words::field_value),
    );
    table.pairs(
        "query",
        |name| Ok(name.to_owned()),
        |a, b| a == b,
        text(words::field_value),
    );
    let weights = table.pairs("weights", words::name, |a, b| a == b, integer_in(0..=1_000));
    let service = table.text("service", "", words::name_or_empty);
    if !service.is_empty() {
        table.refer("service", &service);
    } else if weights.is_empty() {
        table.wrong("service", "is missing: the name of a service".into());
    }
    Route {
        domain: table.text("domain", "", words::domain_or_empty),
        path: table.text("path", "", words::path),
        methods: table.list("methods", "[]", text(words::method)),
        service,
    }
}
