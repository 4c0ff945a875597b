//! Hints over the fleet as text: a table for people, Markdown, CSV, and JSON for programs.

use super::columns::money;
use super::csv;
use super::json::json;
use super::markdown::markdown;
use super::table::{lines, plain_table};
use super::units::shorten;
use crate::query::{Format, Look};
use crate::report::hints::FleetHint;

const HEADER: [&str; 4] = ["HINT", "FUNCTIONS", "SAVING $", "EXAMPLES"];

/// The hints, written as `format` asks.
#[must_use]
pub fn hints(hints: &[FleetHint], format: Format, look: Look) -> String {
    match format {
        Format::Json => json(&serde_json::json!({ "hints": hints }), look),
        Format::Csv => csv::hints(hints),
        Format::Markdown => markdown(&HEADER, hints.iter().map(|hint| row(hint, 200).to_vec())),
        Format::Table if hints.is_empty() => "no hints\n".to_owned(),
        Format::Table => {
            let mut table = plain_table(&HEADER, look);
            for hint in hints {
                table.add_row(row(hint, look.width.saturating_sub(52).max(20)));
            }
            let mut text = lines(&table);
            for hint in hints.iter().filter(|hint| !hint.meaning.is_empty()) {
                text.push_str(&format!("\n{}: {}", hint.code, hint.meaning));
            }
            text + "\n\nSavings of several hints of one function do not add up.\n"
        }
    }
}

fn row(hint: &FleetHint, width: usize) -> [String; 4] {
    let names: Vec<&str> = hint.examples.iter().map(|example| example.function.name.as_str()).collect();
    [
        hint.code.clone(),
        hint.functions.to_string(),
        money(Some(hint.saving_pico_usd)),
        shorten(&names.join(", "), width),
    ]
}
