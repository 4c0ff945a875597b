//! Reports as text: units, tables for people, Markdown, CSV and JSON for programs.

pub mod bill;
pub mod changes;
pub mod columns;
mod csv;
pub mod hints;
pub mod initializations;
pub mod json;
pub mod listing;
mod markdown;
pub mod output;
pub mod placement;
mod plan;
pub mod reconciliation;
pub mod series;
pub mod table;
pub mod text;
pub mod units;
