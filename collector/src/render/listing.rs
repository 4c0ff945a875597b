//! A list of rows, for people and for programs.

use serde::Serialize;

use super::output::{Output, Rows};
use super::table::{lines, plain_table};
use super::units::shorten;
use crate::query::TableStyle;

/// Longest cell of a table, characters.
const MAX_CELL: usize = 300;

/// A value that is a list of rows.
pub struct Listing<V> {
    /// The value for programs.
    pub value: V,
    /// The columns for people.
    pub columns: Rows,
    /// The columns for spreadsheets, with exact numbers.
    pub exact: Rows,
    /// What stands below the table; all of it when there are no rows.
    pub notes: String,
}

impl<V: Serialize> Output for Listing<V> {
    fn value(&self) -> impl Serialize {
        &self.value
    }

    fn table(&self, style: TableStyle) -> String {
        if self.columns.rows.is_empty() {
            return self.notes.clone();
        }
        let mut table = plain_table(&self.columns.header, style);
        for row in &self.columns.rows {
            table.add_row(row.iter().map(|field| shorten(&field.clone().into_text(), MAX_CELL)));
        }
        lines(&table) + &self.notes
    }

    fn markdown(&self) -> Rows {
        self.columns.clone()
    }

    fn csv(&self) -> Rows {
        self.exact.clone()
    }
}
