//! The page of one function: what it does, what another size would do, and what was done.

use maud::{Markup, html};

use tailor_sizing::advice::{ConfidenceLevel, Verdict};
use tailor_sizing::model::memory_floor::{MemoryFloor, PeakSource};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Megabytes;

use super::bill::bill as full_bill;
use super::chart::{self, Curve, Expected, Mark};
use super::layout::{choices, document, tile, unbroken};
use super::placement::places;
use super::profiles::profiles;
use super::resources::resources;
use super::tables::{changes, invocations, sizes};
use super::utilization::utilization;
use super::{history, snippet};
use crate::api::InvocationReport;
use crate::query::Query;
use crate::recommendations::MeasuredSize;
use crate::render::initializations::initializations;
use crate::render::units::{change, count, duration, duration_of, exactly, instant, share, tick};
use crate::report::bill::BillReport;
use crate::report::placement::PlacementReport;
use crate::report::{AdviceDetail, FunctionReport, MeasuredBy, SeriesReport, hint_code};

pub(super) fn render(
    report: &FunctionReport,
    series: Option<&SeriesReport>,
    (bill, placement): (Option<&BillReport>, Option<&PlacementReport>),
    recent: &[InvocationReport],
    query: &Query,
) -> Markup {
    let body = html! {
        p.crumb { a href="/" { "Fleet" } }
        div.heading {
            div {
                h1 { (report.name) }
                p.sub {
                    @if !report.runtime.is_empty() { (report.runtime) " · " } (report.architecture) " · " (report.region)
                    @if !report.account.is_empty() { " · " (report.account) }
                    " · " (report.versions.join(", ")) " · last seen " (instant(report.last_at_us))
                    @for (key, value) in &report.tags { " · " span.tag { (key) "=" (value) } }
                }
            }
            (choices(query))
        }
        (verdict(report))
        (other_tools(report))
        (tiles(report))
        @if let Some(series) = series { (history::charts(series)) }
        @if let Some(advice) = &report.advice.full { (curves(report, advice)) }
        div.columns {
            (time_split(report))
            (memory(report))
            (history::distribution(&report.duration_us))
        }
        (utilization(report, series))
        (resources(report, recent))
        @if let Some(advice) = &report.advice.full { (hints(advice)) }
        @if let Some(report) = placement { (places(report)) }
        @if let Some(report) = bill { (full_bill(report)) }
        @if let Some(listed) = &report.profiles { (profiles(listed)) }
        (sizes(report))
        (changes(&report.changes))
        (snippets(report))
        (invocations(recent))
        (quality(report))
    };
    document(&report.name, &body)
}

/// What other tools recommend, which the advice does not use.
fn other_tools(report: &FunctionReport) -> Markup {
    html! {
        @if !report.other_recommendations.is_empty() {
            section.card {
                h2 { "Recommendations of other tools" }
                ul.plain { @for other in &report.other_recommendations { li { (other.sentence()) } } }
            }
        }
    }
}

fn verdict(report: &FunctionReport) -> Markup {
    let advice = &report.advice;
    let Some(full) = &advice.full else {
        return html! { section.card.verdict { h2 { "No recommendation" } p { (advice.reasons.join("; ")) } } };
    };
    let moves = advice.is_change();
    let heading = match full.verdict {
        Verdict::Change => "Change the size",
        Verdict::RaiseForMemory => "Increase the memory",
        Verdict::AlreadyBest => "Keep this size",
        Verdict::TooUncertain
        | Verdict::TooLittleEvidence
        | Verdict::CpuUnaccounted
        | Verdict::NoCpuTelemetry => "Uncertain",
    };
    html! {
        section.card.verdict.move[moves] {
            div {
                h2 { (heading) }
                p.sizes {
                    span.from { (unbroken(&report.memory.to_string())) }
                    @if moves { span.arrow aria-label="to" { "→" } span.to { (unbroken(&advice.memory.to_string())) } }
                }
            }
            @if moves {
                div { div.name { "Cost of an invocation" } div.value { (unbroken(&change(advice.cost_change_percent))) } }
                div { div.name { "Mean duration" } div.value { (unbroken(&change(advice.duration_change_percent))) } }
                @if full.saving.per_million != PicoDollars::ZERO {
                    div {
                        @let costs_more = full.saving.per_million < PicoDollars::ZERO;
                        div.name { (if costs_more { "Costs more per million" } else { "Saves per million" }) }
                        div.value { (magnitude(full.saving.per_million)) }
                    }
                }
            }
            div { div.name { "Confidence" } div.value { (confidence(full.confidence.level)) } }
            p.why {
                @for reason in advice.verdict_reasons() { (reason) ". " }
                @if !full.trade.is_empty() { (full.trade) ". " }
                @if let Some(trial) = full.trial { (trial.sentence()) ". " }
                @for change in report.changes.iter().filter(|change| change.state.is_open()) {
                    "A change to " (change.to) " is under way: " (change.reason) "."
                }
            }
        }
    }
}

fn magnitude(amount: PicoDollars) -> String {
    PicoDollars(amount.0.saturating_abs()).to_string()
}

fn confidence(level: ConfidenceLevel) -> &'static str {
    match level {
        ConfidenceLevel::Low => "low",
        ConfidenceLevel::Medium => "medium",
        ConfidenceLevel::High => "high",
    }
}

fn tiles(report: &FunctionReport) -> Markup {
    let cost =
        |amount: Option<PicoDollars>| amount.map_or_else(|| "–".to_owned(), |amount| amount.to_string());
    let errors = format!("{} failed, {} cold", count(report.errors), count(report.cold_starts));
    let kills = match report.out_of_memory {
        0 => format!("in {}", exactly(report.environments, "environment")),
        kills => format!("{kills} killed for memory"),
    };
    html! {
        div.tiles {
            (tile("Invocations", &count(report.invocations), &errors))
            (tile("p50", &duration(report.duration_ms.p50), &format!("p95 {}", duration(report.duration_ms.p95))))
            (tile("Billed", &duration_of(report.billed_ms), ""))
            (tile("Cost", &cost(report.cost_pico_usd), &format!("{} per million", cost(report.cost_per_million_pico_usd))))
            (tile("Peak memory", &format!("{} MB", report.peak_memory_mb), &kills))
        }
        @if let Some(line) = initializations(report.initializations) {
            p.sub { "Initialization: " (line) "." }
        }
    }
}

fn curves(report: &FunctionReport, advice: &AdviceDetail) -> Markup {
    let dollars = |amount: PicoDollars| amount.to_dollars();
    let duration_curve = Curve {
        id: "duration-curve",
        title: "Mean duration by memory size",
        description: describe(report, advice, "Mean duration", |point| duration(point.mean.mean_ms)),
        expected: advice
            .curve
            .iter()
            .map(|point| Expected {
                memory: point.memory,
                value: point.mean.mean_ms,
                low: point.mean.interval_80[0],
                high: point.mean.interval_80[1],
            })
            .collect(),
        measured: report
            .sizes
            .iter()
            .filter(|size| size.warm_mean_ms > 0.0)
            .map(|size| (size.memory, size.warm_mean_ms))
            .collect(),
        in_experiment: in_experiment(report).map(|size| (size.memory, size.duration_ms)).collect(),
        marks: marks(report, advice),
        format: tick,
    };
    let cost_curve = Curve {
        id: "cost-curve",
        title: "Cost of a million invocations by memory size",
        description: describe(report, advice, "Cost per million", |point| point.cost_per_million.to_string()),
        expected: advice
            .curve
            .iter()
            .map(|point| Expected {
                memory: point.memory,
                value: dollars(point.cost_per_million),
                low: dollars(point.cost_per_million_interval_80[0]),
                high: dollars(point.cost_per_million_interval_80[1]),
            })
            .collect(),
        measured: report
            .sizes
            .iter()
            .filter_map(|size| Some((size.memory, dollars(size.cost_per_million_pico_usd?))))
            .collect(),
        in_experiment: in_experiment(report)
            .filter_map(|size| Some((size.memory, dollars(size.cost_per_million_pico_usd?))))
            .collect(),
        marks: marks(report, advice),
        format: |value| if value >= 1.0 { format!("${value:.0}") } else { format!("${value:.2}") },
    };
    html! {
        section.card {
            h2 { "Predicted cost and duration at other sizes" }
            p.legend {
                span.key.line {} "predicted " span.key.band {} "80 % interval " span.key.dot {} "measured"
                @if in_experiment(report).next().is_some() { " " span.key.ring {} "in an experiment" }
            }
            div.columns {
                figure { figcaption { "Mean duration of a warm invocation, by memory in MB" } (duration_curve.render()) }
                figure { figcaption { "Cost of a million invocations, by memory in MB" } (cost_curve.render()) }
            }
        }
    }
}

/// What experiments measured, of `tailor tune` and of Power Tuning.
fn in_experiment(report: &FunctionReport) -> impl Iterator<Item = &MeasuredSize> {
    report.other_recommendations.iter().flat_map(|other| &other.sizes)
}

fn describe(
    report: &FunctionReport,
    advice: &AdviceDetail,
    what: &str,
    value: fn(&tailor_sizing::advice::CurvePoint) -> String,
) -> String {
    let at = |memory: Megabytes| {
        let point = advice.curve.iter().find(|point| point.memory == memory);
        point.map(|point| format!("{} at {memory}", value(point)))
    };
    let mut parts: Vec<String> = [at(report.memory)].into_iter().flatten().collect();
    if report.advice.is_change() {
        parts.extend(at(report.advice.memory).map(|text| format!("{text}, which is recommended")));
    }
    format!("{what}: {}.", parts.join("; "))
}

fn marks(report: &FunctionReport, advice: &AdviceDetail) -> Vec<Mark> {
    let mut marks = vec![Mark { memory: report.memory, name: "now", class: "now" }];
    if report.advice.is_change() {
        marks.push(Mark { memory: report.advice.memory, name: "recommended", class: "to" });
    }
    if !advice.floor.unmeasured && advice.floor.memory > Megabytes::MIN {
        marks.push(Mark { memory: advice.floor.memory, name: "floor", class: "floor" });
    }
    marks
}

fn time_split(report: &FunctionReport) -> Markup {
    let [busy_ms, starved_ms, idle_ms] = report.wall_split();
    let wall = busy_ms + starved_ms + idle_ms;
    let part = |class: &str, name: &str, ms: u64, meaning: &str| {
        html! {
            dt { span class={ "key " (class) } {} (name) }
            dd { (share(ms, wall)) " %, " (duration_of(ms)) span.sub { (meaning) } }
        }
    };
    html! {
        section.card {
            h2 { "Busy, starved and idle time" }
            div.big { (chart::split(busy_ms, starved_ms, idle_ms, "time-split")) }
            @if wall > 0 {
                dl.parts {
                    (part("busy", "Busy", busy_ms, "running on a CPU"))
                    (part("starved", "Starved", starved_ms, "ready to run, without a CPU: more memory helps"))
                    (part("idle", "Idle", idle_ms, "waiting for the network, a disk or a timer"))
                }
            }
        }
    }
}

fn memory(report: &FunctionReport) -> Markup {
    let floor = report.advice.full.as_ref().map(|advice| &advice.floor);
    html! {
        section.card {
            h2 { "Memory" }
            @if report.peak_kib.is_empty() {
                p { "Peaks of single invocations were not measured; the highest of any environment is "
                    (report.peak_memory_mb) " MB." }
            } @else if let Some(floor) = floor {
                (chart::memory(&report.peak_kib, report.memory, floor.memory))
                p.sub {
                    "The floor is the smallest size judged safe: the highest peak with a margin of "
                    (format!("{:.0}", 100.0 * floor.margin)) " %."
                    (peak_source(floor))
                    @if floor.saturated { " A size was filled to 95 % or more, so the true need is not known." }
                }
            } @else {
                p { "The highest peak of an invocation is " (report.peak_memory_mb) " MB." }
            }
        }
    }
}

/// Which measurement the peak is from.
fn peak_source(floor: &MemoryFloor) -> String {
    let (processes_mb, environment_mb) = (floor.processes_peak_mb, floor.environment_peak_mb);
    let processes = format!("the function's processes used up to {processes_mb:.0} MB");
    let environment = format!(
        "the platform reports up to {environment_mb:.0} MB for the whole environment, with extensions, the page cache and \
         the kernel"
    );
    match floor.peak_source {
        PeakSource::None => String::new(),
        _ if environment_mb <= 0.0 => format!(" The peak: {processes}."),
        _ if processes_mb <= 0.0 => format!(" The peak: {environment}."),
        PeakSource::Environment => format!(" The peak: {environment}; {processes}."),
        PeakSource::Processes => format!(" The peak: {processes}; {environment}."),
    }
}

fn hints(advice: &AdviceDetail) -> Markup {
    html! {
        @if !advice.hints.is_empty() {
            section.card {
                h2 { "Reasons and hints" }
                ul.hints {
                    @for hint in &advice.hints {
                        li {
                            code { (hint_code(hint.code)) }
                            p { (hint.evidence) }
                            p.action { (hint.action) }
                            @if let Some(saving) = hint.saving_per_million { p.good { "saves " (saving) " per million" } }
                        }
                    }
                }
            }
        }
    }
}

fn snippets(report: &FunctionReport) -> Markup {
    html! {
        section.card {
            h2 { "To set " (report.advice.memory) " yourself" }
            @for (index, snippet) in snippet::all(&report.name, report.advice.memory).iter().enumerate() {
                details open[index == 0] {
                    summary { (snippet.tool) }
                    pre tabindex="0" role="region" aria-label=(snippet.tool) { code { (snippet.text) } }
                }
            }
        }
    }
}

fn quality(report: &FunctionReport) -> Markup {
    let per_invocation = report.overhead.cpu_us / report.invocations.max(1);
    html! {
        section.card {
            h2 { "Completeness of the data" }
            @if report.caveats.is_empty() { p { "Nothing was lost, and every invocation was measured." } }
            @else { ul { @for caveat in &report.caveats { li { (caveat) } } } }
            @if report.measured_by != MeasuredBy::Logs {
                p.sub {
                    "The extension used " (per_invocation) " µs of CPU for each invocation and at most "
                    (report.overhead.resident_kib / 1_024) " MB; " (report.lost.failed_deliveries)
                    " deliveries failed and were attempted again."
                }
            }
        }
    }
}
