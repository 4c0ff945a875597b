//! Tables in Markdown.

use super::output::Rows;
use super::text::markdown_cell;
use super::units::shorten;

/// Longest cell, characters.
const MAX_CELL: usize = 1_000;

/// A table; text from outside cannot end a cell or begin an element.
pub(super) fn markdown(rows: &Rows) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(rows.header.iter().map(|&name| name.to_owned()).collect());
    text.push_str(&line(vec!["---".to_owned(); rows.header.len()]));
    for row in &rows.rows {
        let cells = row.iter().map(|field| markdown_cell(&shorten(&field.clone().into_text(), MAX_CELL)));
        text.push_str(&line(cells.collect()));
    }
    text
}
