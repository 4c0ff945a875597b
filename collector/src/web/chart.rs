//! Charts as inline SVG. Colours and fonts come from the style sheet; every chart has a text description.

use maud::{Markup, html};

use tailor_sizing::telemetry::histogram::LogHistogram;
use tailor_sizing::units::Megabytes;

/// Room around a curve for its labels, in SVG units.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 34.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;

/// Memory sizes named on the horizontal axis; the minor ones only where there is room.
const SIZE_TICKS: [(u32, &str); 7] = [
    (128, "tick"),
    (256, "tick minor"),
    (512, "tick"),
    (1_024, "tick minor"),
    (2_048, "tick"),
    (4_096, "tick minor"),
    (10_240, "tick"),
];

/// A predicted value at a size, with the interval it lies in.
pub(super) struct Expected {
    pub(super) memory: Megabytes,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// A size to point out.
pub(super) struct Mark {
    pub(super) memory: Megabytes,
    pub(super) name: &'static str,
    pub(super) class: &'static str,
}

/// A value over memory size, both logarithmic.
pub(super) struct Curve<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) description: String,
    pub(super) expected: Vec<Expected>,
    pub(super) measured: Vec<(Megabytes, f64)>,
    /// Measured in an experiment.
    pub(super) in_experiment: Vec<(Megabytes, f64)>,
    pub(super) marks: Vec<Mark>,
    pub(super) format: fn(f64) -> String,
}

/// Maps a positive value onto a length, logarithmically.
#[derive(Clone, Copy)]
struct LogScale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl LogScale {
    fn at(self, value: f64) -> f64 {
        let position = (value.max(self.from) / self.from).ln() / (self.to / self.from).ln();
        self.start + (self.end - self.start) * position.clamp(0.0, 1.0)
    }

    /// 1, 2 and 5 times the powers of ten in range; only the powers when that is many.
    fn ticks(self) -> Vec<f64> {
        let decades = (self.to / self.from).log10();
        let steps: &[f64] = if decades > 2.2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let mut power = 10f64.powf(self.from.log10().floor());
        let mut ticks = Vec::new();
        while power <= self.to && ticks.len() < 32 {
            let within = steps.iter().map(|step| step * power);
            ticks.extend(within.filter(|tick| *tick >= self.from * 0.999 && *tick <= self.to * 1.001));
            power *= 10.0;
        }
        ticks
    }
}

impl Curve<'_> {
    /// The chart; nothing when there is nothing to draw.
    pub(super) fn render(&self) -> Markup {
        let finite = |value: &f64| value.is_finite() && *value > 0.0;
        let values = self.expected.iter().flat_map(|point| [point.low, point.value, point.high]);
        let all: Vec<f64> = values.chain(self.points().map(|(_, value)| *value)).filter(finite).collect();
        let (least, most) =
            all.iter().fold((f64::INFINITY, 0f64), |(low, high), value| (low.min(*value), high.max(*value)));
        if all.is_empty() {
            return html! {};
        }
        let x = LogScale { from: 128.0, to: 10_240.0, start: LEFT, end: WIDTH - RIGHT };
        // At least a factor of four, so that a flat curve looks flat.
        let middle = (least * most).sqrt();
        let y = LogScale {
            from: (least / 1.15).min(middle / 2.0),
            to: (most * 1.15).max(middle * 2.0),
            start: HEIGHT - BOTTOM,
            end: TOP,
        };
        let at =
            |memory: Megabytes, value: f64| format!("{:.1},{:.1}", x.at(f64::from(memory.0)), y.at(value));
        let line: Vec<String> = self.expected.iter().map(|point| at(point.memory, point.value)).collect();
        let above = self.expected.iter().map(|point| at(point.memory, point.high));
        let below = self.expected.iter().rev().map(|point| at(point.memory, point.low));
        let band: Vec<String> = above.chain(below).collect();
        let (title_id, description_id) = (format!("{}-title", self.id), format!("{}-desc", self.id));
        html! {
            svg.curve viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
                aria-labelledby={ (title_id) " " (description_id) } {
                title id=(title_id) { (self.title) }
                desc id=(description_id) { (self.description) }
                @for tick in y.ticks() {
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(y.at(tick))) y2=(round(y.at(tick))) {}
                    text.tick x=(LEFT - 8.0) y=(round(y.at(tick) + 4.0)) text-anchor="end" { ((self.format)(tick)) }
                }
                @for (tick, class) in SIZE_TICKS {
                    line.grid x1=(round(x.at(f64::from(tick)))) x2=(round(x.at(f64::from(tick))))
                        y1=(TOP) y2=(HEIGHT - BOTTOM) {}
                    text class=(class) x=(round(x.at(f64::from(tick)))) y=(HEIGHT - BOTTOM + 18.0)
                        text-anchor=(if tick == 10_240 { "end" } else { "middle" }) { (tick) }
                }
                polygon.band points=(band.join(" ")) {}
                polyline.expected points=(line.join(" ")) {}
                (self.marks(x))
                @for (memory, value) in &self.measured {
                    circle.measured cx=(round(x.at(f64::from(memory.0)))) cy=(round(y.at(*value))) r="5" {
                        title { (memory) ": " ((self.format)(*value)) " measured" }
                    }
                }
                @for (memory, value) in &self.in_experiment {
                    circle.experiment cx=(round(x.at(f64::from(memory.0)))) cy=(round(y.at(*value))) r="7" {
                        title { (memory) ": " ((self.format)(*value)) " in an experiment" }
                    }
                }
            }
        }
    }

    fn points(&self) -> impl Iterator<Item = &(Megabytes, f64)> {
        self.measured.iter().chain(&self.in_experiment)
    }

    /// Vertical lines; a label that would cover the one before it goes to the other side or a line down.
    fn marks(&self, x: LogScale) -> Markup {
        let mut marks: Vec<&Mark> = self.marks.iter().collect();
        marks.sort_by_key(|mark| mark.memory);
        html! {
            @for (index, mark) in marks.iter().enumerate() {
                @let position = x.at(f64::from(mark.memory.0));
                @let right = position > WIDTH * 0.7;
                line class={ "mark " (mark.class) } x1=(round(position)) x2=(round(position))
                    y1=(TOP - 6.0) y2=(HEIGHT - BOTTOM) {}
                text class={ "mark " (mark.class) } x=(round(if right { position - 5.0 } else { position + 5.0 }))
                    y=(TOP + 2.0 + 17.0 * (index as f64)) text-anchor=(if right { "end" } else { "start" }) {
                    (mark.name) " " (mark.memory.0)
                }
            }
        }
    }
}

/// Busy, starved and idle as one bar.
pub(super) fn split(busy: u64, starved: u64, idle: u64, id: &str) -> Markup {
    let total = (busy + starved + idle) as f64;
    if total == 0.0 {
        return html! { span.muted { "not measured" } };
    }
    let percent = |part: u64| 100.0 * part as f64 / total;
    let words = format!(
        "{:.0} % busy, {:.0} % starved, {:.0} % idle",
        percent(busy),
        percent(starved),
        percent(idle)
    );
    let (first, second) = (percent(busy), percent(busy) + percent(starved));
    html! {
        svg.split viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-labelledby=(id) {
            title id=(id) { (words) }
            rect.busy x="0" y="0" width=(round(first)) height="10" {}
            rect.starved x=(round(first)) y="0" width=(round(second - first)) height="10" {}
            rect.idle x=(round(second)) y="0" width=(round(100.0 - second)) height="10" {}
        }
    }
}

/// Peaks of memory, with the floor and the size in use.
pub(super) fn memory(peak_kib: &LogHistogram, size: Megabytes, floor: Megabytes) -> Markup {
    const BARS: usize = 64;
    let (height, base, left, right) = (170.0, 138.0, 10.0, WIDTH - 10.0);
    let most_mb = peak_kib.values().map(|(kib, _)| kib / 1_024.0).fold(0f64, f64::max);
    let limit = most_mb.max(f64::from(size.0.max(floor.0))) * 1.06;
    let mut bars = [0u64; BARS];
    for (kib, count) in peak_kib.values() {
        let position = (kib / 1_024.0 / limit * BARS as f64).clamp(0.0, BARS as f64 - 1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bars")]
        let bar = position as usize;
        bars[bar] += count;
    }
    let tallest = bars.iter().copied().max().unwrap_or(0).max(1) as f64;
    let width = (right - left) / BARS as f64;
    let x = |mb: f64| left + (right - left) * mb / limit;
    let description = format!(
        "{} invocations were measured; the highest peak is {most_mb:.0} MB, the floor {floor}, the size {size}.",
        peak_kib.count()
    );
    html! {
        svg.memory viewBox={ "0 0 " (WIDTH) " " (height) } role="img" aria-labelledby="memory-title memory-desc" {
            title id="memory-title" { "Peak memory of invocations" }
            desc id="memory-desc" { (description) }
            @for (index, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
                // A single invocation stays visible among millions.
                @let bar = (92.0 * *count as f64 / tallest).max(2.0);
                rect.bar x=(round(left + width * index as f64 + 0.5)) y=(round(base - bar))
                    width=(round(width - 1.0)) height=(round(bar)) {}
            }
            line.base x1=(left) x2=(right) y1=(base) y2=(base) {}
            text.tick x=(left) y=(base + 18.0) { "0" }
            @for (mb, name, class, row) in [(floor.0, "floor", "floor", 0.0), (size.0, "size", "now", 1.2)] {
                @let position = x(f64::from(mb));
                @let end = position > WIDTH * 0.6;
                line class={ "mark " (class) } x1=(round(position)) x2=(round(position)) y1=(10.0 + 15.0 * row) y2=(base) {}
                text class={ "mark " (class) } x=(round(if end { position - 5.0 } else { position + 5.0 }))
                    y=(20.0 + 15.0 * row) text-anchor=(if end { "end" } else { "start" }) { (name) " " (mb) " MB" }
            }
        }
    }
}

/// Tenths of an SVG unit: finer is not seen.
pub(super) fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
