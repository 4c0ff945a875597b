//! The result of `tailor tune`: its output, its picture, and the record in the data folder.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::TuneArgs;
use crate::cli::arguments::Colour;
use crate::cli::streams::note;
use crate::cli::{show, streams};
use crate::clock::now_us;
use crate::experiment::outcome::{Outcome, Stat};
use crate::experiment::picture;
use crate::recommendations::{Entry, Recommendations, power_tuning};
use crate::render::listing::Listing;
use crate::render::output::{self, Field, Rows};
use crate::store::{FunctionKey, Tenant};

/// Stores the result in the data folder, as `tailor import power-tuning` does.
pub(super) fn store_beside_advice(
    args: &TuneArgs,
    function: &FunctionKey,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let Some(data) = &args.data else { return Ok(()) };
    let recommendation = power_tuning::read(&serde_json::to_string(outcome)?, "", now_us())?;
    let entry = Entry { tenant: Tenant::default().0, function: function.clone(), recommendation };
    Recommendations::of(Path::new(data)).add(vec![entry])?;
    note(format_args!(
        "tailor: the result is kept in {data}: `tailor function {}` shows it beside the advice",
        function.name
    ));
    Ok(())
}

/// Writes the result, and its picture if there is a file for it.
pub(super) fn write(args: &TuneArgs, function: &str, outcome: &Outcome) -> anyhow::Result<()> {
    let text = match args.format {
        None => serde_json::to_string_pretty(outcome)? + "\n",
        Some(format) => output::write(&listing(outcome), format, show::style_with(Colour::Auto)),
    };
    if let Some(file) = &args.picture {
        fs::write(file, picture::svg(function, outcome))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match &args.output {
        Some(file) => fs::write(file, text).with_context(|| format!("cannot write {}", file.display())),
        None => streams::output(&text).map(drop),
    }
}

/// The measured sizes.
fn listing(outcome: &Outcome) -> Listing<&Outcome> {
    let best = |size: &Stat| if size.value == outcome.power { "best" } else { "" };
    let people = outcome.stats.iter().map(|size| {
        [
            format!("{} MB", size.value),
            format!("{:.1} ms", size.average_duration),
            format!("${:.4}", size.average_price * 1e6),
            best(size).to_owned(),
        ]
    });
    let exact = outcome.stats.iter().map(|size| {
        [size.value.into(), size.average_duration.into(), size.average_price.into(), Field::from(best(size))]
    });
    Listing {
        value: outcome,
        columns: Rows::new(&["MEMORY", "MEAN DURATION", "COST/MLN", "CHOICE"], people),
        exact: Rows::new(&["memory_mb", "mean_duration_ms", "mean_cost_usd", "choice"], exact),
        notes: format!("{} invocations, for ${:.6}\n", outcome.invocations, outcome.execution.lambda_cost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::outcome::Execution;
    use crate::query::TableStyle;
    use crate::render::output::Output;

    #[test]
    fn the_sizes_of_a_result_are_rows() {
        let size = |value, average_price, average_duration| Stat { value, average_price, average_duration };
        let outcome = Outcome {
            power: 256,
            cost: 0.000_002,
            duration: 100.0,
            execution: Execution { lambda_cost: 0.000_3, ..Execution::default() },
            invocations: 40,
            stats: vec![size(128, 0.000_003, 250.0), size(256, 0.000_002, 100.0)],
        };
        let listing = listing(&outcome);
        let table = listing.table(TableStyle::default());
        let line = table.lines().find(|line| line.contains("256 MB")).unwrap();
        assert!(line.contains("100.0 ms") && line.contains("$2.0000") && line.contains("best"), "{table}");
        assert!(table.contains("40 invocations, for $0.000300"), "{table}");
        assert_eq!(
            listing.csv().rows[0],
            ["128", "250", "0.000003", ""].map(|text| match text {
                "" => Field::from(text),
                number => Field::Number(number.to_owned()),
            })
        );
    }
}
