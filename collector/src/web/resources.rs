//! The resources on a function's page: what it uses and what it waits for.

use maud::{Markup, html};

use crate::api::InvocationReport;
use crate::render::units::duration;
use crate::report::FunctionReport;

pub(super) fn resources(report: &FunctionReport, recent: &[InvocationReport]) -> Markup {
    // The last invocation of an environment has no counts when its processes ended before they were read.
    let latest = recent.iter().find(|one| one.threads.is_some());
    let count_or_dash = |value: Option<u32>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let row = |name: &str, value: &str| html! { dt { (name) } dd { (value) } };
    html! {
        @if let Some(means) = report.resources.warm_means {
            div.columns {
                section.card {
                    h2 { "What it uses" }
                    p.sub { "Mean of a warm invocation, unless stated otherwise." }
                    dl.parts {
                        (row("Page faults from memory", &number(means.minor_faults)))
                        (row("Forced context switches", &number(means.involuntary_switches)))
                        @if means.unaccounted_cpu_ms > 0.0 {
                            (row("CPU time of no known process", &duration(means.unaccounted_cpu_ms)))
                        }
                        (row("Highest /tmp use", &bytes(report.resources.max_tmp_used_kib as f64 * 1_024.0)))
                        (row("Threads, latest invocation", &count_or_dash(latest.and_then(|one| one.threads))))
                        (row("File descriptors, latest invocation", &count_or_dash(latest.and_then(|one| one.descriptors))))
                    }
                }
                section.card {
                    h2 { "What it waits for" }
                    p.sub { "Mean of a warm invocation." }
                    dl.parts {
                        (row("Extensions, after the runtime answered", &duration(report.resources.post_runtime_ms)))
                        @if report.resources.extension_waits > 0 {
                            (row("Invocations that waited mostly for extensions", &report.resources.extension_waits.to_string()))
                            (row("Longest such wait", &duration(report.resources.longest_extension_wait_ms)))
                        }
                        (row("Connections opened", &number(means.connections_opened)))
                        (row("Network received", &bytes(means.network_received_bytes)))
                        (row("Network sent", &bytes(means.network_sent_bytes)))
                        (row("Disk read", &bytes(means.disk_read_bytes)))
                        (row("Disk written", &bytes(means.disk_written_bytes)))
                        (row("Page faults from disk", &number(means.major_faults)))
                        (row("Blocking context switches", &number(means.voluntary_switches)))
                    }
                }
            }
        }
    }
}

fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn bytes(value: f64) -> String {
    match value {
        value if value < 1_024.0 => format!("{value:.0} B"),
        value if value < 1_048_576.0 => format!("{:.1} KiB", value / 1_024.0),
        value => format!("{:.1} MiB", value / 1_048_576.0),
    }
}
