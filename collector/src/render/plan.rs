//! The plan of the tuner, for people and for programs.

use serde::Serialize;

use super::output::{Field, Output, Rows};
use crate::query::TableStyle;
use crate::tuner::plan::{Plan, PlannedFunction};

impl Output for Plan {
    fn value(&self) -> impl Serialize {
        self
    }

    fn table(&self, _style: TableStyle) -> String {
        self.text()
    }

    fn markdown(&self) -> Rows {
        let names = self.names();
        Rows::new(
            &["FUNCTION", "FROM", "TO", "REFUSED BY"],
            self.functions.iter().map(|planned| {
                let size = |of: fn(&crate::changes::Intent) -> u32| {
                    planned
                        .intent
                        .as_ref()
                        .map_or_else(|| "-".to_owned(), |intent| format!("{} MB", of(intent)))
                };
                let (from, to) = (size(|intent| intent.from_mb), size(|intent| intent.to_mb));
                [names.text(&planned.function), from, to, refusals(planned)]
            }),
        )
    }

    fn csv(&self) -> Rows {
        let header = [
            "function",
            "account",
            "region",
            "from_mb",
            "to_mb",
            "cost_change_percent",
            "duration_change_percent",
            "refused_by",
        ];
        Rows::new(
            &header,
            self.functions.iter().map(|planned| {
                let intent = planned.intent.as_ref();
                [
                    Field::from(&planned.function.name),
                    Field::from(&planned.function.account),
                    Field::from(&planned.function.region),
                    Field::number(intent.map(|intent| intent.from_mb)),
                    Field::number(intent.map(|intent| intent.to_mb)),
                    Field::number(intent.map(|intent| intent.cost_change_percent)),
                    Field::number(intent.map(|intent| intent.duration_change_percent)),
                    Field::from(refusals(planned)),
                ]
            }),
        )
    }
}

/// The codes of the guard-rails that refuse the change.
fn refusals(planned: &PlannedFunction) -> String {
    let codes: Vec<&str> = planned.refusals.iter().map(|(code, _)| code.as_str()).collect();
    codes.join(" ")
}
