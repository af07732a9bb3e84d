//! What is wrong with a configuration: every error of a file, each at its place.
//!
//! `{}` renders them plain, `{:#}` with colours; print the latter through `anstream`, which strips
//! them where there is no terminal or where NO_COLOR asks for it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

/// All errors of one configuration, in the order of their places; at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// What the operator calls the source: a path, `command line`, `environment`.
    name: String,
    /// The source itself; empty where it could not be read.
    text: String,
    errors: Vec<ConfigError>,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The key's path, as in `service.timeouts.connect`; empty where no key is to blame.
    pub key: String,
    /// What was wrong, and what is allowed.
    pub message: String,
    /// Bytes of the source; inside it, on character boundaries.
    span: Range<usize>,
}

/// What a reader found wrong, before it has a line and a column.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) key: String,
    pub(super) message: String,
}

impl ConfigErrors {
    /// `findings` of the source `text` that is called `name`; there is at least one.
    pub(super) fn new(name: &str, text: &str, mut findings: Vec<Finding>) -> Self {
        assert!(
            !findings.is_empty(),
            "errors are made where something is wrong"
        );
        findings.sort_by_key(|finding| finding.span.start);
        let lines = Lines::new(text);
        let errors = findings
            .into_iter()
            .map(|finding| locate(&lines, finding))
            .collect();
        Self {
            name: name.into(),
            text: text.into(),
            errors,
        }
    }

    /// A source that could not be read at all.
    pub(super) fn unreadable(name: &str, message: String) -> Self {
        Self::new(
            name,
            "",
            vec![Finding {
                span: 0..0,
                key: String::new(),
                message,
            }],
        )
    }

    /// The errors in the order of their places.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// A line an error: `config.toml:3:9 service.policy: "x" is not known`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.errors.iter().map(|error| {
            let ConfigError {
                line,
                column,
                key,
                message,
                ..
            } = error;
            let colon = if key.is_empty() { "" } else { ": " };
            format!("{}:{line}:{column} {key}{colon}{message}", self.name)
        })
    }

    fn render(&self, error: &ConfigError, renderer: &Renderer) -> String {
        let title = match error.key.as_str() {
            "" => error.message.clone(),
            key => format!("{key}: {}", error.message),
        };
        let place: Element<'_> = if self.text.is_empty() {
            Origin::path(&self.name).into()
        } else {
            // Only the lines that are shown: the renderer reads all that it is given.
            let shown = lines_around(&self.text, &error.span);
            let span = error.span.start - shown.start..error.span.end - shown.start;
            let snippet = Snippet::source(&self.text[shown]).line_start(error.line);
            let caret = AnnotationKind::Primary.span(span);
            snippet.path(&self.name).annotation(caret).into()
        };
        renderer.render(&[Level::ERROR.primary_title(title).element(place)])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = if f.alternate() {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        for (place, error) in self.errors.iter().enumerate() {
            if place != 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(&self.render(error, &renderer))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConfigErrors {
    /// One line an error: the source itself is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines()).finish()
    }
}

impl std::error::Error for ConfigErrors {}

/// The whole lines that `span` touches.
fn lines_around(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text[..span.start]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = text[span.end..]
        .find('\n')
        .map_or(text.len(), |newline| span.end + newline);
    start..end
}

fn locate(lines: &Lines<'_>, finding: Finding) -> ConfigError {
    let Finding { span, key, message } = finding;
    let start = lines.text.floor_char_boundary(span.start);
    let end = lines.text.ceil_char_boundary(span.end.max(start));
    let (line, column) = lines.position(start);
    ConfigError {
        line,
        column,
        key,
        message,
        span: start..end,
    }
}

/// Where the lines of a source begin, so that a place is found without reading all before it.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Byte offsets, rising; the first is 0.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        let starts = std::iter::once(0).chain(after_newlines).collect();
        Self { text, starts }
    }

    /// Line and column, both from 1, the column in characters; `offset` is a character boundary.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        (line, 1 + self.text[start..offset].chars().count())
    }
}
