//! What requests for a report and for the plan ask for.

use crate::tally::Phase;
use crate::tally::report::{Format, Selection};

/// The parameters of `/report`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportQuery {
    /// `format`.
    pub format: Format,
    /// `service`, `phase` and `endpoint`.
    pub selection: Selection,
}

/// The only window: since the start of the process.
const WINDOW: &str = "all";

impl ReportQuery {
    /// Reads the parameters; those that are absent or empty take their defaults.
    ///
    /// # Errors
    /// What is wrong with one of them, and what is allowed.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, String> {
        let mut query = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in parameters {
            if seen.contains(&name.as_str()) {
                return Err(format!("{name}: it is there twice; allowed: once"));
            }
            seen.push(name);
            query.take(name, value)?;
        }
        Ok(query)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "window" | "format" | "service" | "phase" | "endpoint" if value.is_empty() => {}
            "window" if value == WINDOW => {}
            "window" => {
                return Err(format!(
                    "window: {value:?} is not supported yet; allowed: {WINDOW}"
                ));
            }
            "format" => self.format = one_of(name, value, &Format::ALL, Format::label)?,
            "service" => self.selection.service = Some(value.to_owned()),
            "phase" => {
                self.selection.phase = Some(one_of(name, value, &Phase::ALL, Phase::label)?);
            }
            "endpoint" => self.selection.endpoint = Some(value.to_owned()),
            _ => {
                return Err(format!(
                    "{name:?} is not a parameter; allowed: window, format, service, phase, endpoint"
                ));
            }
        }
        Ok(())
    }
}

/// How the plan is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanFormat {
    /// One object, for programs.
    Json,
    /// Lines, for people.
    Text,
}

impl PlanFormat {
    const ALL: [Self; 2] = [Self::Json, Self::Text];

    /// The one that `format` asks for by this word.
    ///
    /// # Errors
    /// When there is none, with what is allowed.
    pub fn of_label(label: &str) -> Result<Self, String> {
        one_of("format", label, &Self::ALL, |format| match format {
            Self::Json => "json",
            Self::Text => "text",
        })
    }

    /// What an answer in it is.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// The one of `all` whose label is `value`.
fn one_of<T: Copy>(
    name: &str,
    value: &str,
    all: &[T],
    label: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.iter().find(|one| label(**one) == value);
    found.copied().ok_or_else(|| {
        let labels: Vec<_> = all.iter().map(|one| label(*one)).collect();
        format!(
            "{name}: {value:?} is not known; allowed: {}",
            labels.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parameters: &[(&str, &str)], expected: Result<ReportQuery, &str>) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let parameters: Vec<_> = parameters.iter().map(owned).collect();
        let found = ReportQuery::parse(&parameters);
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn absent_and_empty_parameters_take_their_defaults() {
        check(&[], Ok(ReportQuery::default()));
        check(
            &[("window", "all"), ("service", ""), ("format", "")],
            Ok(ReportQuery::default()),
        );
    }

    #[test]
    fn every_parameter_is_read() {
        let expected = ReportQuery {
            format: Format::Hgrm,
            selection: Selection {
                service: Some("a".to_owned()),
                phase: Some(Phase::UpstreamWait),
                endpoint: Some("[::1]:9090".to_owned()),
            },
        };
        check(
            &[
                ("format", "hgrm"),
                ("service", "a"),
                ("phase", "upstream_wait"),
                ("endpoint", "[::1]:9090"),
            ],
            Ok(expected),
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let cases = [
            (
                ("window", "10s"),
                "window: \"10s\" is not supported yet; allowed: all",
            ),
            (
                ("format", "xml"),
                "format: \"xml\" is not known; allowed: text, json, hgrm, hlog",
            ),
            (
                ("phase", "wait"),
                "phase: \"wait\" is not known; allowed: client_receive, upstream_connect, \
                 upstream_send, upstream_wait, upstream_receive, client_send, own, total",
            ),
            (
                ("servce", "a"),
                "\"servce\" is not a parameter; allowed: window, format, service, phase, endpoint",
            ),
        ];
        for (parameter, message) in cases {
            check(&[parameter], Err(message));
        }
        let twice = [("service", "a"), ("service", "b")];
        check(&twice, Err("service: it is there twice; allowed: once"));
    }
}
