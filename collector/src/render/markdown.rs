//! Tables in Markdown.

use super::text::markdown_cell;
use super::units::shorten;

/// Longest cell, characters.
const MAX_CELL: usize = 1_000;

/// A table; text from outside cannot end a cell or begin an element.
pub(super) fn markdown(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.iter().map(|&name| name.to_owned()).collect());
    text.push_str(&line(vec!["---".to_owned(); header.len()]));
    for row in rows {
        let escape = |cell: &String| markdown_cell(&shorten(cell, MAX_CELL));
        text.push_str(&line(row.iter().map(escape).collect()));
    }
    text
}
