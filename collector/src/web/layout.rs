//! What all pages share: the frame, the choice of window and strategy, the sign-in form.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{SCRIPT_PATH, STYLE_PATH};
use crate::query::{DEFAULT_HOURS, DEFAULT_STRATEGY, Query};
use crate::render::units::change;
use crate::report::series::SeriesTotal;

/// A whole page. Everything in it is escaped by `html!` unless it was rendered by it.
pub(super) fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Lambda Tailor" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(STYLE_PATH);
                script src=(SCRIPT_PATH) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { (logo()) span { "Lambda Tailor" } }
                    nav.note aria-label="Account" {
                        a href="/where" { "Where" } " "
                        a href="/changes" { "Changes" } " "
                        a href="/keys" { "Keys" } " "
                        a href="/logout" { "Sign out" }
                    }
                }
                main id="main" { (body) }
                footer { "Times in UTC. Costs are of compute and requests at list prices, without the free tier." }
            }
        }
    }
}

fn logo() -> Markup {
    html! {
        svg.logo viewBox="0 0 24 24" aria-hidden="true" {
            path d="M3 20 L9.5 4 L12 4 L19 20" {}
            path d="M11 11 L6 20" {}
            path.thread d="M17 6 C21 4 22 9 18 10 S15 15 20 15" {}
        }
    }
}

const WINDOWS: [(u64, &str); 4] = [(1, "1 h"), (24, "24 h"), (24 * 7, "7 days"), (DEFAULT_HOURS, "30 days")];
const STRATEGIES: [(&str, &str); 3] = [("cost", "Cost"), ("balanced", "Balanced"), ("speed", "Speed")];

/// Links to the same page over another window or with another strategy.
pub(super) fn choices(query: &Query) -> Markup {
    let hours = query.hours.unwrap_or(DEFAULT_HOURS);
    let strategy = query.strategy.as_deref().unwrap_or(DEFAULT_STRATEGY);
    html! {
        nav.choices aria-label="What is shown" {
            span.group {
                span.label { "Window" }
                @for (value, name) in WINDOWS {
                    a href=(query.link(value, strategy)) aria-current=[(value == hours).then_some("true")] { (name) }
                }
            }
            span.group {
                span.label { "Advice" }
                @for (value, name) in STRATEGIES {
                    a href=(query.link(hours, value)) aria-current=[(value == strategy).then_some("true")] { (name) }
                }
                @if STRATEGIES.iter().all(|(value, _)| *value != strategy) {
                    a href=(query.link(hours, strategy)) aria-current="true" { (strategy) (if strategy.starts_with("cost") { " %" } else { " ms" }) }
                }
            }
        }
    }
}

/// A figure with its name.
pub(super) fn tile(name: &str, value: &str, note: &str) -> Markup {
    html! {
        div.tile {
            div.name { (name) }
            div.value { (value) }
            @if !note.is_empty() { div.note { (note) } }
        }
    }
}

/// The change of a figure against the time before the window, per hour of both.
pub(super) fn delta(
    total: &SeriesTotal,
    before: Option<&SeriesTotal>,
    of: fn(&SeriesTotal) -> f64,
    more_is_bad: bool,
) -> Markup {
    let per_hour = |total: &SeriesTotal| of(total) / total.hours.max(f64::MIN_POSITIVE);
    let Some(before) = before.filter(|before| of(before) > 0.0) else {
        return html! {};
    };
    let percent = 100.0 * (per_hour(total) / per_hour(before) - 1.0);
    let (arrow, is_more) = match percent {
        percent if percent.abs() < 0.05 => ("", false),
        percent if percent > 0.0 => ("▲ ", true),
        _ => ("▼ ", false),
    };
    html! {
        div.delta.bad[is_more && more_is_bad && percent >= 5.0] {
            span aria-hidden="true" { (arrow) } (unbroken(&change(percent))) " compared with the time before"
        }
    }
}

/// The sign-in page.
pub(super) fn login(problem: Option<&str>) -> Markup {
    let body = html! {
        section.card.login {
            h1 { "Sign in" }
            @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
            form method="post" action="/login" {
                label for="key" { "API key" }
                input id="key" name="key" type="password" required autocomplete="current-password" autofocus;
                button type="submit" { "Sign in" }
            }
            p.note {
                "The first key is in the file " code { "api-key" } " of the data folder. For this machine only, "
                code { "tailor serve --local-reads" } " shows the pages without one."
            }
        }
    };
    document("Sign in", &body)
}

/// The page to sign out.
pub(super) fn logout() -> Markup {
    let body = html! {
        section.card.login {
            h1 { "Sign out" }
            form method="post" action="/logout" {
                button type="submit" { "Sign out" }
            }
        }
    };
    document("Sign out", &body)
}

/// A thin space between a number and its unit, without a line break.
pub(super) fn unbroken(text: &str) -> Markup {
    // Escaped first, then the spaces replaced.
    PreEscaped(html! { (text) }.into_string().replace(' ', "&nbsp;"))
}
