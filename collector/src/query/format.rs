//! The output formats, and how text looks.

use serde::{Deserialize, Serialize};

/// The output format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// Everything, for programs.
    Json,
    /// The same as JSON, as YAML.
    Yaml,
    /// One line per row, for spreadsheets.
    Csv,
    /// The table in Markdown.
    Markdown,
}

/// The width and the colours of a table, and the form of JSON.
#[derive(Debug, Clone, Copy)]
pub struct TableStyle {
    /// Whether it has colours.
    pub colour: bool,
    /// Maximum number of characters in a line.
    pub width: usize,
    /// Whether JSON is indented.
    pub indents: bool,
}

/// Default width of a line, characters.
pub const DEFAULT_WIDTH: usize = 120;

impl Default for TableStyle {
    fn default() -> Self {
        Self { colour: false, width: DEFAULT_WIDTH, indents: true }
    }
}
