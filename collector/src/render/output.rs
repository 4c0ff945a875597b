//! One renderer for everything that commands and endpoints show: what it contains is described once, and written in any
//! format.

use serde::Serialize;

use super::text::csv_cell;
use super::{csv, json, markdown};
use crate::query::{Format, TableStyle};

/// A field of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// Text. A spreadsheet does not compute it.
    Text(String),
    /// A number, which a spreadsheet may compute.
    Number(String),
}

impl Field {
    /// A number; empty when it is not known.
    pub fn number(value: Option<impl ToString>) -> Self {
        Self::Number(value.map(|value| value.to_string()).unwrap_or_default())
    }

    /// As in a CSV file.
    pub(super) fn for_csv(&self) -> String {
        match self {
            Self::Text(text) => csv_cell(text),
            Self::Number(number) => number.clone(),
        }
    }

    /// As in a table.
    #[must_use]
    pub fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Field {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<u32> for Field {
    fn from(number: u32) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<i128> for Field {
    fn from(number: i128) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<f64> for Field {
    fn from(number: f64) -> Self {
        Self::Number(number.to_string())
    }
}

/// Rows with a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The names of the columns.
    pub header: Vec<&'static str>,
    /// As many fields as the header has in each row.
    pub rows: Vec<Vec<Field>>,
}

impl Rows {
    /// Rows of any kind of field.
    pub fn new<R, F>(header: &[&'static str], rows: impl IntoIterator<Item = R>) -> Self
    where
        R: IntoIterator<Item = F>,
        F: Into<Field>,
    {
        let rows = rows.into_iter().map(|row| row.into_iter().map(Into::into).collect()).collect();
        Self { header: header.to_vec(), rows }
    }
}

/// What can be shown in every format.
pub trait Output {
    /// The value for programs: JSON and YAML.
    fn value(&self) -> impl Serialize;

    /// What people read in a terminal.
    fn table(&self, style: TableStyle) -> String;

    /// The columns for people, without what stands beside them.
    fn markdown(&self) -> Rows;

    /// The columns for spreadsheets, with exact numbers.
    fn csv(&self) -> Rows;
}

/// Writes it in `format`.
#[must_use]
pub fn write(output: &impl Output, format: Format, style: TableStyle) -> String {
    match format {
        Format::Table => output.table(style),
        Format::Json => json::json(&output.value(), style),
        Format::Yaml => yaml(&output.value()),
        Format::Csv => csv::csv(&output.csv()),
        Format::Markdown => markdown::markdown(&output.markdown()),
    }
}

/// A value as one YAML document.
pub(super) fn yaml(value: &impl Serialize) -> String {
    match serde_saphyr::to_string(value) {
        Ok(mut text) => {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text
        }
        // Reports have no maps with other keys than text, which is all that could fail.
        Err(error) => {
            tracing::error!(%error, "cannot write YAML");
            String::new()
        }
    }
}
