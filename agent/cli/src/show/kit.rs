//! What the views are built from: plain tables without frames or colours, and short forms of values.

use std::time::Duration;

use blixard_model::words::duration;
use comfy_table::{ContentArrangement, Table, presets};

use crate::text::clean;

/// What stands where there is nothing to say.
pub(super) const NOTHING: &str = "-";
/// Widest line of a table that can be made narrower, in characters.
pub(super) const WIDTH_MAX: usize = 110;
/// Blanks between two columns.
pub(super) const GAP: usize = 2;
/// Longest error in a table, in characters.
pub(super) const TEXT_CHARS_MAX: usize = 60;

/// A table with a header.
pub(super) fn columns(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = plain();
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    finish(table)
}

/// A table with a header whose cells are wrapped where a line would be longer than [`WIDTH_MAX`].
pub(super) fn wrapped(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = plain();
    let width = u16::try_from(WIDTH_MAX).unwrap_or(u16::MAX);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    finish(table)
}

/// A line for each name and its value.
pub(super) fn pairs(rows: Vec<(&str, String)>) -> String {
    let mut table = plain();
    for (name, value) in rows {
        table.add_row(vec![name.to_owned(), clean(&value)]);
    }
    finish(table)
}

/// The first line of a text, cut to `chars_max` characters.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= chars_max {
        return line.to_owned();
    }
    line.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

/// The value, or [`NOTHING`] for none.
pub(super) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).filter(|text| !text.is_empty()).unwrap_or_else(|| NOTHING.to_owned())
}

/// Milliseconds as people say them.
pub(super) fn time(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn finish(mut table: Table) -> String {
    table.discover_columns();
    let gap = u16::try_from(GAP).unwrap_or(0);
    for column in table.column_iter_mut() {
        column.set_padding((0, gap));
    }
    table.trim_fmt() + "\n"
}
