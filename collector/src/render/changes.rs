//! The change log, for people and for programs.

use serde::Serialize;

use super::csv;
use super::output::{Output, Rows};
use super::table::{lines, plain_table, wrap};
use super::units::{change, instant, shorten};
use crate::changes::Change;
use crate::changes::named::ListedNames;
use crate::query::TableStyle;

/// The changes of functions.
pub struct Changes<'a>(pub &'a [Change]);

const HEADER: [&str; 7] = ["TIME (UTC)", "FUNCTION", "FROM", "TO", "STATE", "COST", "TIME"];

impl Output for Changes<'_> {
    fn value(&self) -> impl Serialize {
        serde_json::json!({ "changes": self.0 })
    }

    fn table(&self, style: TableStyle) -> String {
        if self.0.is_empty() {
            return "no changes\n".to_owned();
        }
        let names = self.names();
        let mut table = plain_table(&HEADER, style);
        for change in self.0 {
            table.add_row(row(change, &names));
        }
        let mut text = lines(&table) + "COST and TIME: predicted → measured change.\n";
        for change in self.0 {
            let name = name(change, &names);
            text.push_str(&format!("\n{name}, change {}\n", change.id));
            for step in &change.steps {
                let line = format!("{} {}: {}", instant(step.at_us), step.state.code(), step.reason);
                for (index, line) in wrap(&line, style.width.saturating_sub(4)).iter().enumerate() {
                    text.push_str(if index == 0 { "  " } else { "    " });
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        text
    }

    fn markdown(&self) -> Rows {
        let names = self.names();
        Rows::new(&HEADER, self.0.iter().map(|change| row(change, &names)))
    }

    fn csv(&self) -> Rows {
        csv::changes(self.0)
    }
}

impl Changes<'_> {
    fn names(&self) -> ListedNames<'_> {
        ListedNames::of(self.0.iter().map(|change| &change.function))
    }
}

fn name(change: &Change, names: &ListedNames<'_>) -> String {
    names.text_as(&shorten(&change.function.name, 40), &change.function)
}

fn row(change: &Change, names: &ListedNames<'_>) -> [String; 7] {
    let pair = |predicted: f64, measured: Option<f64>| {
        format!("{} → {}", self::change(predicted), measured.map_or_else(|| "?".to_owned(), self::change))
    };
    [
        instant(change.planned_at_us),
        name(change, names),
        change.from.to_string(),
        change.to.to_string(),
        change.state.code().to_owned(),
        pair(change.intent.cost_change_percent, change.measured_cost_change_percent()),
        pair(change.intent.duration_change_percent, change.measured_duration_change_percent()),
    ]
}
