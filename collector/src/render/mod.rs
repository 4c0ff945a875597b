//! Reports as text: units, tables for people, Markdown, CSV and JSON for programs.

pub mod bill;
pub mod columns;
mod csv;
pub mod hints;
pub mod initializations;
pub mod json;
mod markdown;
pub mod placement;
pub mod series;
pub mod table;
pub mod text;
pub mod units;
