//! Reads the tables of the documents.

use std::collections::BTreeSet;

/// The cells of each row of the first table whose heading begins with `heading`.
pub(crate) fn table_below<'a>(
    markdown: &'a str,
    heading: &str,
) -> impl Iterator<Item = Vec<&'a str>> {
    let lines = markdown
        .lines()
        .skip_while(move |line| !line.starts_with(heading));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let row = row.strip_prefix('|').unwrap_or(row);
        row.split('|').map(str::trim).collect()
    })
}

/// What stands in backquotes.
pub(crate) fn quoted(cell: &str) -> BTreeSet<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
