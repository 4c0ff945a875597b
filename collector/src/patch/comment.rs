//! The comment of a change request on GitHub or GitLab, in Markdown.

use std::fmt::Write;

use tailor_sizing::pricing::money::PicoDollars;

use super::advice::Advised;
use super::{Found, Patch, Place};

/// The first line of the comment. A workflow finds its earlier comment by it and updates that one.
pub const MARKER: &str = "<!-- lambda-tailor:memory-sizes -->";

/// Maximum number of rows of each table: GitHub allows 65,536 characters in a comment.
const MAX_ROWS: usize = 100;

/// The comment about a patch, with the costs and durations that `advice` has.
#[must_use]
pub fn markdown(patch: &Patch, advice: &[Advised]) -> String {
    let mut text = format!("{MARKER}\n### Lambda memory sizes\n\n");
    if patch.changed.is_empty() {
        text.push_str("No memory size changes.\n");
    } else {
        text.push_str(
            "| Function | Memory (MB) | Cost per million | Mean duration | p95 duration | Where |\n\
             |---|---:|---:|---:|---:|---|\n",
        );
        for found in patch.changed.iter().take(MAX_ROWS) {
            row(&mut text, found, advised(advice, found));
        }
        rest(&mut text, patch.changed.len());
        text.push_str("\nCosts and durations at the new size are predicted from measured invocations.\n");
    }
    if !patch.unsure.is_empty() {
        let _ = write!(
            text,
            "\n<details><summary>Not changed: {}</summary>\n\n| Function | Memory (MB) | Reason | Where |\n|---|---:|---|---|\n",
            patch.unsure.len()
        );
        for unsure in patch.unsure.iter().take(MAX_ROWS) {
            let places: Vec<_> = unsure.places.iter().take(5).map(place).collect();
            let (function, reason) = (cell(&unsure.function), cell(&unsure.reason));
            let _ =
                writeln!(text, "| {function} | {} | {reason} | {} |", unsure.memory_mb, places.join(", "));
        }
        rest(&mut text, patch.unsure.len());
        text.push_str("\n</details>\n");
    }
    text
}

/// The advice for a change. Several functions can have the name: the one with the sizes of the change.
fn advised<'a>(advice: &'a [Advised], found: &Found) -> Option<&'a Advised> {
    let mut of_name = advice.iter().filter(|advised| advised.name == found.function);
    let has_sizes = |advised: &&Advised| {
        advised.memory_mb == found.before_mb && advised.advice.memory_mb == found.after_mb
    };
    of_name.clone().find(has_sizes).or_else(|| of_name.next())
}

fn row(text: &mut String, found: &Found, advised: Option<&Advised>) {
    let point = |mb| advised.and_then(|advised| advised.point(mb));
    let (before, after) = (point(found.before_mb), point(found.after_mb));
    let change = advised
        .filter(|advised| advised.memory_mb == found.before_mb && advised.advice.memory_mb == found.after_mb);
    let cost = match (before, after, change) {
        (Some(before), Some(after), _) => pair(before.cost_per_million, after.cost_per_million),
        (_, _, Some(change)) => match change.cost_per_million_pico_usd {
            Some(cost) => {
                let factor = 1.0 + change.advice.cost_change_percent / 100.0;
                format!("{} → ${:.2}", dollars(cost), cost.to_dollars() * factor)
            }
            None => percent(change.advice.cost_change_percent),
        },
        _ => "not known".to_owned(),
    };
    let durations = |of: fn(&super::advice::Point) -> f64| {
        before.zip(after).map(|(before, after)| format!("{} → {}", ms(of(before)), ms(of(after))))
    };
    let mean = durations(|point| point.mean.mean_ms)
        .or_else(|| change.map(|change| percent(change.advice.duration_change_percent)))
        .unwrap_or_else(|| "not known".to_owned());
    let p95 = durations(|point| point.p95.mean_ms).unwrap_or_else(|| "not known".to_owned());
    let _ = writeln!(
        text,
        "| {} | {} → **{}** | {cost} | {mean} | {p95} | {} |",
        cell(&found.function),
        found.before_mb,
        found.after_mb,
        place(&found.place)
    );
}

fn rest(text: &mut String, rows: usize) {
    if rows > MAX_ROWS {
        let _ = writeln!(text, "\n{} more are not shown.", rows - MAX_ROWS);
    }
}

fn pair(before: PicoDollars, after: PicoDollars) -> String {
    format!("{} → {}", dollars(before), dollars(after))
}

fn dollars(money: PicoDollars) -> String {
    format!("${:.2}", money.to_dollars())
}

fn percent(change: f64) -> String {
    format!("{change:+.0} %")
}

fn ms(value: f64) -> String {
    if value < 10.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}

fn place(place: &Place) -> String {
    format!("{}:{}", cell(&place.file), place.line)
}

/// A text in a table: it cannot end the cell or be HTML or a mention.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '#' | '\\' | '~' => cell.extend(['\\', c]),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '&' => cell.push_str("&amp;"),
            // A zero-width space: the name of a user or a team is not notified.
            '@' => cell.push_str("@\u{200b}"),
            c if c.is_control() => cell.push(' '),
            c => cell.push(c),
        }
    }
    cell
}
