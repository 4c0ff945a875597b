//! The measurements of `lambda-sandbox power`, as a table and as JSON.

use serde_json::{Value, json};

/// One memory size.
#[derive(Debug, Default)]
pub(super) struct Point {
    memory_mb: u32,
    /// Init of the first successful cold invocation, milliseconds.
    init_ms: Option<f64>,
    /// Duration of that invocation without Init, milliseconds.
    cold_ms: Option<f64>,
    /// Durations of successful warm invocations, in order, milliseconds.
    warm_ms: Vec<f64>,
    billed_ms: Vec<f64>,
    /// CPU time of all processes of the environment.
    cpu_ms: Vec<f64>,
    /// Time in which they were ready to run and had no quota left.
    throttled_ms: Vec<f64>,
    /// `None` where the kernel does not count it.
    max_memory_used_mb: Option<u64>,
    failed: u32,
    first_error: Option<String>,
    /// The last invocation failed: the next may start its environment again, inside its own duration.
    just_failed: bool,
}

impl Point {
    pub(super) fn new(memory_mb: u32) -> Point {
        Point { memory_mb, ..Point::default() }
    }

    /// Adds one invocation with its report and the kernel's counters. `error` is the response of a failed invocation.
    pub(super) fn add(&mut self, report: &Value, facts: &Value, error: Option<&[u8]>) {
        let metrics = &report["metrics"];
        let ms = |key: &str| metrics[key].as_f64().unwrap_or_default();
        let used_mb = metrics["maxMemoryUsedMB"].as_u64().filter(|used_mb| *used_mb > 0);
        self.max_memory_used_mb = self.max_memory_used_mb.max(used_mb);
        let restarted = std::mem::replace(&mut self.just_failed, error.is_some());
        if let Some(response) = error {
            self.failed += 1;
            self.first_error.get_or_insert_with(|| describe(response));
        } else if let Some(init_ms) =
            metrics["initDurationMs"].as_f64().or_else(|| metrics["restoreDurationMs"].as_f64())
        {
            self.init_ms.get_or_insert(init_ms);
            self.cold_ms.get_or_insert_with(|| ms("durationMs"));
        } else if !restarted {
            self.warm_ms.push(ms("durationMs"));
            self.billed_ms.push(ms("billedDurationMs"));
            let cpu_ms = |key: &str| facts["cpu"][key].as_f64().map(|ns| ns / 1e6);
            self.cpu_ms.extend(cpu_ms("usage_ns"));
            self.throttled_ms.extend(cpu_ms("throttled_ns"));
        }
    }

    /// Invocations that failed.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// Whether a warm invocation was measured.
    pub(super) fn is_measured(&self) -> bool {
        !self.warm_ms.is_empty()
    }

    /// The number of failures and the first error, in one line.
    pub(super) fn warning(&self) -> Option<String> {
        let error = self.first_error.as_ref()?;
        Some(format!("{} MB: {} invocation(s) failed: {error}", self.memory_mb, self.failed))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "memory_mb": self.memory_mb, "init_ms": self.init_ms, "cold_ms": self.cold_ms,
            "warm_ms": self.warm_ms, "billed_ms": self.billed_ms, "cpu_ms": self.cpu_ms,
            "throttled_ms": self.throttled_ms, "max_memory_used_mb": self.max_memory_used_mb,
            "failed": self.failed, "first_error": self.first_error,
            "p50_ms": quantile(&self.warm_ms, 0.5), "p95_ms": quantile(&self.warm_ms, 0.95),
            "mean_ms": mean(&self.warm_ms), "mean_billed_ms": mean(&self.billed_ms),
            "mean_cpu_ms": mean(&self.cpu_ms), "gb_seconds": self.gb_seconds(),
        })
    }

    /// Mean billed GB-seconds of a warm invocation.
    fn gb_seconds(&self) -> Option<f64> {
        Some(mean(&self.billed_ms)? / 1e3 * f64::from(self.memory_mb) / 1024.0)
    }
}

/// `errorType: errorMessage`, or the start of the response if it has another form.
fn describe(response: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(response).unwrap_or_default();
    match (parsed["errorType"].as_str(), parsed["errorMessage"].as_str()) {
        (Some(kind), Some(message)) => format!("{kind}: {message}"),
        _ => String::from_utf8_lossy(&response[..response.len().min(200)]).into_owned(),
    }
}

/// One right-aligned row per memory size, with a dash for a missing value; then the cheapest and the fastest size.
pub(super) fn table(points: &[Point]) -> String {
    let headings = [
        "memory MB",
        "init ms",
        "cold ms",
        "p50 ms",
        "p95 ms",
        "billed ms",
        "cpu ms",
        "GB-s/million",
        "max MB",
        "failed",
    ];
    let mut text = line(headings.map(|heading| (heading.to_owned(), heading.len())));
    for point in points {
        let shown = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let cells = [
            point.memory_mb.to_string(),
            shown(point.init_ms, 1),
            shown(point.cold_ms, 2),
            shown(quantile(&point.warm_ms, 0.5), 2),
            shown(quantile(&point.warm_ms, 0.95), 2),
            shown(mean(&point.billed_ms), 1),
            shown(mean(&point.cpu_ms), 2),
            shown(point.gb_seconds().map(|each| each * 1e6), 0),
            point.max_memory_used_mb.map_or_else(|| "-".to_owned(), |used_mb| used_mb.to_string()),
            point.failed.to_string(),
        ];
        let widths = headings.map(str::len);
        let mut widths = widths.into_iter();
        text += &line(cells.map(|cell| (cell, widths.next().unwrap_or_default())));
    }
    let least = |key: fn(&Point) -> Option<f64>| {
        let measured = points.iter().filter_map(|point| Some((point.memory_mb, key(point)?)));
        measured.min_by(|one, other| one.1.total_cmp(&other.1))
    };
    if let (Some((cheapest, each)), Some((fastest, ms))) =
        (least(Point::gb_seconds), least(|point| quantile(&point.warm_ms, 0.5)))
    {
        let million = each * 1e6;
        text += &format!(
            "cheapest: {cheapest} MB at {million:.0} GB-s per million invocations; fastest: {fastest} MB at {ms:.2} ms\n"
        );
    }
    text
}

/// One line of cells, each as wide as its heading, at least nine characters.
fn line(cells: [(String, usize); 10]) -> String {
    let cells = cells.map(|(cell, width)| format!("{cell:>0$}", width.max(9)));
    cells.join(" ") + "\n"
}

fn mean(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}

/// Nearest rank.
fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most the number of values"
    )]
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(duration_ms: f64, init_ms: Option<f64>) -> Value {
        json!({"metrics": {"durationMs": duration_ms, "billedDurationMs": duration_ms.ceil(),
                           "maxMemoryUsedMB": 50, "initDurationMs": init_ms}})
    }

    #[test]
    fn quantiles_are_measured_values() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.95)), (Some(3.0), Some(5.0)));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn failures_and_restarts_after_them_are_not_measured() {
        let mut point = Point::new(128);
        point.add(&report(30.0, Some(20.0)), &Value::Null, None);
        point.add(&report(10.0, None), &Value::Null, None);
        point.add(&report(900.0, None), &Value::Null, Some(br#"{"errorType":"T","errorMessage":"m"}"#));
        point.add(&report(500.0, None), &Value::Null, None);
        point.add(&report(11.0, None), &Value::Null, None);
        assert_eq!(point.warm_ms, [10.0, 11.0]);
        assert_eq!((point.init_ms, point.cold_ms), (Some(20.0), Some(30.0)));
        assert_eq!(point.warning().unwrap(), "128 MB: 1 invocation(s) failed: T: m");
    }

    #[test]
    fn the_table_shows_a_dash_for_missing_values() {
        let mut good = Point::new(256);
        good.add(&report(10.0, None), &Value::Null, None);
        let mut bad = Point::new(128);
        bad.add(&report(10.0, None), &Value::Null, Some(b"x"));
        let text = table(&[bad, good]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["128", "-", "-", "-", "-", "-", "-", "-", "50", "1"]
        );
        assert_eq!(lines[0].len(), lines[2].len());
        assert_eq!(
            lines[3],
            "cheapest: 256 MB at 2500 GB-s per million invocations; fastest: 256 MB at 10.00 ms"
        );
    }
}
