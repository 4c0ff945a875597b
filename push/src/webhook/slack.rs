//! Events as messages for Slack's incoming webhooks.

use serde_json::json;

use super::event::{Advice, BillDifference, Content, Event, Function, Losses, SizeChange};

/// The message as JSON.
pub(super) fn message(event: &Event) -> String {
    let text = match &event.content {
        Content::AdviceNew(advice) => advice_text("New recommendation", advice),
        Content::AdviceChanged(advice) => advice_text("Changed recommendation", advice),
        Content::Lost(losses) => losses_text(losses),
        Content::Change(change) => change_text("Change of memory size", change),
        Content::Rollback(change) => change_text(":warning: Rollback", change),
        Content::Freeze(freeze) => format!(":warning: *The tuner is frozen*\n{}", escape(&freeze.reason)),
        Content::Unfreeze(freeze) => {
            format!("*The tuner is not frozen any more*\n{}", escape(&freeze.reason))
        }
        Content::BillDifference(difference) => difference_text(difference),
    };
    let tenant = match event.tenant.as_str() {
        "default" => String::new(),
        tenant => format!("Tenant {}\n", code(tenant)),
    };
    // No previews of addresses, and no names that become mentions.
    json!({ "text": format!("{tenant}{text}"), "unfurl_links": false, "unfurl_media": false, "link_names": 0 })
        .to_string()
}

/// A text of others: Slack reads `&`, `<` and `>`, which begin mentions and links, and signs of formatting. A zero-width space
/// before each of these signs keeps it from having an effect.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '*' | '_' | '~' | '`' | ':' | '@' | '#' => {
                escaped.push('\u{200b}');
                escaped.push(c);
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A name as code, in which only a backtick has an effect besides `&`, `<` and `>`. It can be copied without change.
fn code(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 2);
    escaped.push('`');
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '`' => escaped.push('\''),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped.push('`');
    escaped
}

fn function_text(function: &Function) -> String {
    let place = [&function.region, &function.account].map(|part| escape(part));
    let place: Vec<_> = place.iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
    format!("{} ({})", code(&function.name), place.join(", "))
}

fn advice_text(title: &str, advice: &Advice) -> String {
    let dollars = advice.saving_pico_usd.to_dollars();
    let saving = if dollars < 0.0 {
        format!("would have cost ${:.2} more", -dollars)
    } else {
        format!("would have saved ${dollars:.2}")
    };
    let mut text = format!(
        "*{title}*: {}\n{} MB → {} MB, {saving} in the last 30 days. Cost {:+.0} %, duration {:+.0} %.",
        function_text(&advice.function),
        advice.memory_mb,
        advice.recommended_memory_mb,
        advice.cost_change_percent,
        advice.duration_change_percent,
    );
    if let Some(reason) = advice.reasons.first() {
        text.push('\n');
        text.push_str(&escape(reason));
    }
    text
}

fn losses_text(losses: &Losses) -> String {
    let kinds = [
        (losses.invocations, "invocations lost before they were sent"),
        (losses.abandoned_invocations, "invocations in environments that have sent nothing for an hour"),
        (losses.batches, "batches that did not arrive"),
        (losses.platform_records, "telemetry records dropped by the platform"),
        (losses.undecodable_records, "telemetry records that could not be read"),
        (losses.damaged_rows, "damaged rows of the store"),
    ];
    let lines =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("\n• {count} {what}"));
    format!(":warning: *Data was lost*{}", lines.collect::<String>())
}

fn change_text(title: &str, change: &SizeChange) -> String {
    let measured = change
        .measured_cost_change_percent
        .map_or_else(String::new, |percent| format!(", measured {percent:+.0} %"));
    format!(
        "*{title}*: {}\n{} MB → {} MB: {}. Cost: predicted {:+.0} %{measured}.\n{}",
        function_text(&change.function),
        change.from_memory_mb,
        change.to_memory_mb,
        escape(&change.state),
        change.predicted_cost_change_percent,
        escape(&change.reason),
    )
}

fn difference_text(difference: &BillDifference) -> String {
    format!(
        ":warning: *The bill differs*: {} to {}\nAWS billed ${:.2}, computed ${:.2}; no reason explains ${:.2}.",
        escape(&difference.from),
        escape(&difference.to),
        difference.billed_pico_usd.to_dollars(),
        difference.computed_pico_usd.to_dollars(),
        difference.unexplained_pico_usd.to_dollars(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::event::Freeze;
    use tailor_sizing::pricing::money::PicoDollars;

    fn text(content: Content) -> String {
        let message = message(&Event::new("default", 0, &[], content));
        serde_json::from_str::<serde_json::Value>(&message).unwrap()["text"].as_str().unwrap().to_owned()
    }

    fn advice(name: &str) -> Advice {
        Advice {
            function: Function::new("123456789012", "eu-west-1", name),
            memory_mb: 1_024,
            recommended_memory_mb: 512,
            saving_pico_usd: PicoDollars(12_345_000_000_000),
            cost_change_percent: -48.2,
            duration_change_percent: 2.4,
            reasons: vec!["it is <idle>".to_owned()],
            previous_recommended_memory_mb: None,
            previous_saving_pico_usd: None,
        }
    }

    #[test]
    fn a_message_states_what_to_do() {
        let expected = "*New recommendation*: `check_out` (eu-west-1, 123456789012)\n\
                        1024 MB → 512 MB, would have saved $12.35 in the last 30 days. Cost -48 %, duration +2 %.\n\
                        it is &lt;idle&gt;";
        // The amount is rounded to even by its binary value.
        let found = text(Content::AdviceNew(advice("check_out")));
        assert!(found == expected || found == expected.replace("12.35", "12.34"), "{found}");
        let losses = Losses { batches: 2, damaged_rows: 1, ..Losses::default() };
        let expected =
            ":warning: *Data was lost*\n• 2 batches that did not arrive\n• 1 damaged rows of the store";
        assert_eq!(text(Content::Lost(losses)), expected);
    }

    #[test]
    fn names_and_reasons_cannot_format_mention_or_link() {
        let hostile = "a` *bold* <!channel> <https://evil|ok> &lt; \n> quote";
        let found = text(Content::AdviceNew(advice(hostile)));
        assert_eq!(found.matches('<').count() + found.matches('>').count(), 0, "{found}");
        assert_eq!(found.matches('`').count(), 2, "the name stays in its code: {found}");
        assert!(found.contains("&lt;!channel&gt;") && found.contains("&amp;lt;"), "{found}");
        assert_eq!(found.lines().count(), 3, "{found}");
        let found = text(Content::Freeze(Freeze { reason: hostile.to_owned() }));
        let second_line = found.lines().nth(1).unwrap();
        for sign in ['*', '`', '_', '~'] {
            for (at, _) in second_line.match_indices(sign) {
                assert!(second_line[..at].ends_with('\u{200b}'), "{found}");
            }
        }
    }
}
