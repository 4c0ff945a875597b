//! The monthly report: what the fleet cost, what changed, what to do first, and what changes saved. It is sent as a mail.
//!
//! [`monthly`] makes a [`Document`], which `render` writes as Markdown or as one HTML page without external content.

use tailor_sizing::pricing::money::PicoDollars;

use crate::changes::Change;
use crate::query::{Group, ListQuery};
use crate::reconcile::Reconciliation;
use crate::render::units::{change, count, exactly, instant};
use crate::report::overview::{Overview, overview};
use crate::report::{self, FleetGroup, FleetReport, FleetTotal, Request};
use crate::store::{FunctionKey, StoreError};

mod render;

pub use render::{html, markdown};

/// Functions whose cost changed the most.
const MAX_MOVERS: usize = 8;

/// The title of the section with them.
const WHAT_CHANGED: &str = "What changed";

/// Functions and hints in "What to do first".
const MAX_STEPS: usize = 5;

/// Values of one property in the allocation.
const MAX_GROUPS: usize = 25;

/// A report of sections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// Its sections, in order.
    pub sections: Vec<Section>,
}

/// A heading, texts and a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// Texts before the table.
    pub texts: Vec<String>,
    /// Titles of the columns; empty without a table.
    pub header: Vec<&'static str>,
    /// The rows of the table.
    pub rows: Vec<Vec<String>>,
}

/// What a report is made of besides the store.
pub struct Inputs<'a> {
    /// The request for the time of the report.
    pub request: Request<'a>,
    /// The functions that are included, with the length of the time in hours.
    pub list: ListQuery,
    /// The properties by which the cost is allocated.
    pub allocations: Vec<Group>,
    /// The last comparison with AWS's bill.
    pub reconciliation: Option<Reconciliation>,
}

/// Makes the report. `None` when nothing was measured.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn monthly(inputs: &Inputs<'_>) -> Result<Option<Document>, StoreError> {
    let Inputs { request, list, allocations, reconciliation } = inputs;
    let fleet = report::fleet(request, &ListQuery { movers: true, ..list.clone() }).await?;
    if fleet.matching_functions == 0 {
        return Ok(None);
    }
    let overview = overview(request, list).await?;
    // Without the time before, every function would have changed from nothing.
    let changed = match overview.series.previous {
        Some(_) => movers(&fleet, request, list).await?,
        None => Section {
            title: WHAT_CHANGED.to_owned(),
            texts: vec!["The time before was not measured.".to_owned()],
            ..Section::default()
        },
    };
    let mut sections = vec![cost(&fleet, &overview, reconciliation.as_ref()), changed];
    sections.push(first_steps(&fleet));
    sections.push(ledger(&overview));
    let groups = report::list::allocations(request, list, allocations).await?;
    sections.extend(allocations.iter().zip(groups).map(|(by, groups)| allocation(by, &fleet.total, &groups)));
    let from_us = overview.series.from_us;
    let day = |at_us: u64| instant(at_us).chars().take(10).collect::<String>();
    let title = format!("AWS Lambda cost from {} to {}", day(from_us), day(request.now_us));
    Ok(Some(Document { title, sections }))
}

fn cost(fleet: &FleetReport, overview: &Overview, bill: Option<&Reconciliation>) -> Section {
    let (total, before) = (&overview.series.total, overview.series.previous.as_ref());
    let percent = |now: f64, before: Option<f64>| match before {
        Some(before) if before > 0.0 => change(100.0 * (now - before) / before),
        _ => "–".to_owned(),
    };
    let row = |name: &str, value: String, now: f64, before: Option<f64>| {
        vec![name.to_owned(), value, percent(now, before)]
    };
    let number = |name: &str, now: u64, before: Option<u64>| {
        row(name, count(now), now as f64, before.map(|before| before as f64))
    };
    let mut rows = vec![
        row(
            "Cost",
            total.cost_pico_usd.to_string(),
            total.cost_pico_usd.to_dollars(),
            before.map(|before| before.cost_pico_usd.to_dollars()),
        ),
        number("Invocations", total.invocations, before.map(|before| before.invocations)),
        number("Errors", total.errors, before.map(|before| before.errors)),
        number("Cold starts", total.cold_starts, before.map(|before| before.cold_starts)),
    ];
    rows.push(vec!["Potential savings".to_owned(), fleet.total.saving_pico_usd.to_string(), String::new()]);
    let mut texts = vec![format!(
        "{}. Costs are at public prices of {}, without the free tier and discounts.",
        exactly(fleet.matching_functions, "function"),
        fleet.prices_of
    )];
    texts.extend(bill.map(|bill| format!("AWS's bill: {}.", bill.sentence())));
    Section { title: "Cost".to_owned(), texts, header: vec!["", "Now", "Against the time before"], rows }
}

/// The functions whose cost changed the most: those of the first page, with the same figures, and those that were not invoked any more.
async fn movers(fleet: &FleetReport, request: &Request<'_>, list: &ListQuery) -> Result<Section, StoreError> {
    let mut moved: Vec<(FunctionKey, PicoDollars, PicoDollars)> = vec![];
    for row in &fleet.movers {
        let (now, change) = (row.cost.unwrap_or_default(), row.cost_change.unwrap_or_default());
        moved.push((row.function.clone(), now, change));
    }
    let Request { store, tenant, window, .. } = *request;
    for key in store.functions(tenant, None, usize::MAX).await? {
        if store.rollups(tenant, &key, window).await?.is_empty()
            && let Some(change) = report::cost_change(request, &key, list.hours).await?
        {
            moved.push((key, PicoDollars::ZERO, change));
        }
        tokio::task::yield_now().await;
    }
    moved.retain(|(.., change)| *change != PicoDollars::ZERO);
    moved.sort_by_key(|(.., change)| std::cmp::Reverse(change.0.saturating_abs()));
    moved.truncate(MAX_MOVERS);
    let row = |(key, now, change): (FunctionKey, PicoDollars, PicoDollars)| {
        let sign = if change > PicoDollars::ZERO { "+" } else { "" };
        // A change is scaled to the length of the time, and the cost is not.
        let before = (now - change).max(PicoDollars::ZERO);
        vec![key.name, key.region, before.to_string(), now.to_string(), format!("{sign}{change}")]
    };
    Ok(Section {
        title: WHAT_CHANGED.to_owned(),
        texts: vec!["The functions whose cost changed the most, against the time before.".to_owned()],
        header: vec!["Function", "Region", "Before", "Now", "Change"],
        rows: moved.into_iter().map(row).collect(),
    })
}

fn first_steps(fleet: &FleetReport) -> Section {
    let mut rows = vec![];
    for row in fleet.top.iter().take(MAX_STEPS) {
        let Some(advised) = &row.advised else { continue };
        rows.push(vec![
            row.function.name.clone(),
            format!("Change the memory size from {} to {}", row.memory, advised.memory),
            row.saving.to_string(),
        ]);
    }
    for hint in fleet.hints.iter().take(MAX_STEPS) {
        let names: Vec<&str> =
            hint.examples.iter().take(3).map(|example| example.function.name.as_str()).collect();
        rows.push(vec![
            names.join(", "),
            format!("{}: {}", hint.code, hint.meaning),
            hint.saving_pico_usd.to_string(),
        ]);
    }
    let text = "The largest savings in this time. Savings of several hints of one function do not add up.";
    Section {
        title: "What to do first".to_owned(),
        texts: vec![text.to_owned()],
        header: vec!["Function", "Action", "Saving"],
        rows,
    }
}

fn ledger(overview: &Overview) -> Section {
    let ledger = &overview.ledger;
    let entry = |one: &Change| {
        let entry =
            ledger.entries.iter().find(|entry| entry.function == one.function && entry.change_id == one.id);
        let money =
            |amount: Option<PicoDollars>| amount.map_or_else(|| "–".to_owned(), |amount| amount.to_string());
        vec![
            one.function.name.clone(),
            instant(one.planned_at_us),
            format!("{} → {}", one.from, one.to),
            one.state.code().to_owned(),
            money(entry.and_then(|entry| entry.predicted_pico_usd)),
            money(entry.and_then(|entry| entry.realised_pico_usd)),
        ]
    };
    Section {
        title: "Changes of memory sizes".to_owned(),
        texts: vec![format!(
            "The tuner's changes were predicted to save {} and saved {} by measurement.",
            ledger.predicted_pico_usd, ledger.realised_pico_usd
        )],
        header: vec!["Function", "When (UTC)", "From, to", "State", "Predicted savings", "Measured savings"],
        rows: overview.changes.iter().map(entry).collect(),
    }
}

/// The cost by one property. The groups are in the order of their costs.
fn allocation(by: &Group, total: &FleetTotal, groups: &[FleetGroup]) -> Section {
    let whole = total.cost_pico_usd.to_dollars();
    let row = |group: &FleetGroup| {
        let cost = group.total.cost_pico_usd;
        let share = if whole > 0.0 {
            format!("{:.1} %", 100.0 * cost.to_dollars() / whole)
        } else {
            "–".to_owned()
        };
        vec![
            if group.value.is_empty() { "unknown".to_owned() } else { group.value.clone() },
            count(group.functions),
            count(group.total.invocations),
            cost.to_string(),
            share,
        ]
    };
    let more = groups.len().saturating_sub(MAX_GROUPS);
    let texts =
        if more > 0 { vec![format!("The {MAX_GROUPS} largest; {more} more are left out.")] } else { vec![] };
    Section {
        title: format!("Cost by {}", by.code()),
        texts,
        header: vec!["Value", "Functions", "Invocations", "Cost", "Share"],
        rows: groups.iter().take(MAX_GROUPS).map(row).collect(),
    }
}
