//! Hints over the fleet, for people and for programs.

use serde::Serialize;

use super::columns::money;
use super::csv;
use super::output::{Output, Rows};
use super::table::{lines, plain_table};
use super::units::shorten;
use crate::query::TableStyle;
use crate::report::hints::FleetHint;

const HEADER: [&str; 4] = ["HINT", "FUNCTIONS", "SAVING $", "EXAMPLES"];

/// The hints over the fleet.
pub struct Hints<'a>(pub &'a [FleetHint]);

impl Output for Hints<'_> {
    fn value(&self) -> impl Serialize {
        serde_json::json!({ "hints": self.0 })
    }

    fn table(&self, style: TableStyle) -> String {
        if self.0.is_empty() {
            return "no hints\n".to_owned();
        }
        let mut table = plain_table(&HEADER, style);
        for hint in self.0 {
            table.add_row(row(hint, style.width.saturating_sub(52).max(20)));
        }
        let mut text = lines(&table);
        for hint in self.0.iter().filter(|hint| !hint.meaning.is_empty()) {
            text.push_str(&format!("\n{}: {}", hint.code, hint.meaning));
        }
        text + "\n\nSavings of several hints of one function do not add up.\n"
    }

    fn markdown(&self) -> Rows {
        Rows::new(&HEADER, self.0.iter().map(|hint| row(hint, 200)))
    }

    fn csv(&self) -> Rows {
        csv::hints(self.0)
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
