//! The keys and tables of features that are not built yet: the one list of what is refused
//! until then.
//!
//! They are read, typed and bounded like all others, so that a file which sets them to their
//! default or off value means the same before and after. Whoever builds a feature deletes its rows.

/// A row of the list.
enum Row {
    /// This key takes its default and these values (as TOML writes them) only.
    Key(&'static str, &'static [&'static str]),
    /// This table has to be absent.
    Table(&'static str),
}

const ROWS: &[Row] = &[
    Row::Key("log.access.to", &[]),
    Row::Key("log.access.format", &[]),
    Row::Key("log.access.duration_min", &[]),
    Row::Key("log.access.ratio", &["0.0"]),
    Row::Table("service.slo"),
];

/// The values beside its default that the key at `path` takes; `None` where it takes all of its
/// range.
pub(super) fn values(path: &str) -> Option<&'static [&'static str]> {
    ROWS.iter().find_map(|row| match row {
        Row::Key(key, also) if *key == path => Some(*also),
        _ => None,
    })
}

/// True exactly when the table at `path` has to be absent.
pub(super) fn table(path: &str) -> bool {
    ROWS.iter()
        .any(|row| matches!(row, Row::Table(key) if *key == path))
}

/// The path of every row.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| match row {
        Row::Key(path, _) | Row::Table(path) => *path,
    })
}
