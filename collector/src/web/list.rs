//! The controls of the list of functions: filters, order, pages, sums and damage. They work without JavaScript.

use maud::{Markup, html};

use crate::query::{AdviceFilter, Group, Query, SortKey};
use crate::render::units::{count, exactly, instant};
use crate::report::FleetReport;

/// Kinds of advice, for the form.
const ADVICE: [(AdviceFilter, &str); 4] = [
    (AdviceFilter::Change, "change"),
    (AdviceFilter::Keep, "keep"),
    (AdviceFilter::Unsure, "uncertain"),
    (AdviceFilter::None, "none"),
];

/// The form with the filters.
pub(super) fn filters(query: &Query, tag_keys: &[&str]) -> Markup {
    let field = |name: &str, label: &str, value: &Option<String>| {
        html! {
            label { (label) " " input type="search" name=(name) value=[value.as_deref()] size="12" autocomplete="off"; }
        }
    };
    html! {
        form.filters method="get" action="/" role="search" aria-label="Functions" {
            @if let Some(hours) = query.hours { input type="hidden" name="hours" value=(hours); }
            @if let Some(strategy) = &query.strategy { input type="hidden" name="strategy" value=(strategy); }
            (field("name", "Name", &query.name))
            @if !tag_keys.is_empty() || query.tag.is_some() { (field("tag", "Tag (key=value)", &query.tag)) }
            (field("account", "Account", &query.account))
            (field("region", "Region", &query.region))
            (field("runtime", "Runtime", &query.runtime))
            (field("architecture", "Architecture", &query.architecture))
            label { "Advice "
                select name="advice" {
                    option value="" { "any" }
                    @for (advice, label) in ADVICE {
                        option value=(advice.code()) selected[query.advice == Some(advice)] { (label) }
                    }
                }
            }
            label { "Cost from $ "
                input type="text" inputmode="decimal" name="min_cost" value=[query.min_cost.as_deref()] size="6";
            }
            label { "Sums by "
                select name="by" {
                    option value="" { "none" }
                    @for by in groups_of(tag_keys) {
                        option value=(by.code()) selected[query.by.as_ref() == Some(&by)] { (by.code()) }
                    }
                }
            }
            button type="submit" { "Show" }
            @if query.is_filtered() { " " a href="/" { "Remove filters" } }
        }
    }
}

/// What functions can be grouped by.
fn groups_of(tag_keys: &[&str]) -> Vec<Group> {
    let tags = tag_keys.iter().map(|key| Group::Tag((*key).to_owned()));
    [Group::Account, Group::Region, Group::Runtime].into_iter().chain(tags).collect()
}

/// The heading of a column, which sorts by it; a second time, it reverses the order.
pub(super) fn sort_link(query: &Query, title: &str, sort: SortKey) -> Markup {
    let is_current = query.sort::<SortKey>().is_ok_and(|current| current == sort);
    let reverse = (is_current && !query.reverse).then(|| "true".to_owned());
    let link = query.list_link(&[("sort", Some(sort.code())), ("reverse", reverse)]);
    html! {
        a href=(link) aria-current=[is_current.then_some("true")] { (title) }
    }
}

/// Links to the other pages.
pub(super) fn pages(report: &FleetReport, query: &Query) -> Markup {
    html! {
        nav.pages aria-label="Pages" {
            span.sub {
                (report.functions.len()) " of " (exactly(report.matching_functions, "function"))
                @if let Some(summaries) = &report.summaries {
                    "; order and sums are of summaries over " (summaries.hours) " h, the oldest of "
                    (instant(summaries.oldest_at_us))
                }
            }
            @if query.cursor.is_some() { " " a href=(query.list_link(&[])) { "First page" } }
            @if let Some(next) = &report.next {
                " " a href=(query.list_link(&[("cursor", Some(next.clone()))])) rel="next" { "Next page" }
            }
        }
    }
}

/// Sums by account, region or runtime, each with a link to its functions.
pub(super) fn groups(report: &FleetReport, query: &Query) -> Markup {
    let (Some(groups), Some(by)) = (&report.groups, &query.by) else { return html! {} };
    html! {
        section.card {
            h2 { "By " (by.code()) }
            div.scroll {
                table {
                    thead { tr {
                        th scope="col" { (by.code()) }
                        @for name in ["Functions", "Calls", "Errors", "Cost", "Potential savings"] {
                            th.number scope="col" { (name) }
                        }
                    } }
                    tbody {
                        @for group in groups {
                            @let (name, value) = by.filter(&group.value);
                            @let link = query.list_link(&[(name, Some(value)), ("by", None)]);
                            tr {
                                th scope="row" {
                                    @if group.value.is_empty() { "unknown" }
                                    @else { a href=(link) { (group.value) } }
                                }
                                td.number data-label="Functions" { (group.functions) }
                                td.number data-label="Calls" { (count(group.total.invocations)) }
                                td.number data-label="Errors" { (count(group.total.errors)) }
                                td.number data-label="Cost" { (group.total.cost_pico_usd) }
                                td.number data-label="Potential savings" { (group.total.saving_pico_usd) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The damaged rows of the store.
pub(super) fn damage(report: &FleetReport) -> Markup {
    let damage = &report.damage;
    html! {
        @if damage.rows > 0 {
            section.card role="alert" {
                h2 { "The store is damaged" }
                p.bad { "Damaged rows, which are left out: " (damage.rows) ". "
                    code { "tailor check" } " lists them, and " code { "tailor check --repair" } " isolates them." }
                ul { @for row in damage.named.iter().take(5) { li { code { (row) } } } }
            }
        }
    }
}
