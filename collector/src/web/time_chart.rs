//! Charts over time as inline SVG: bars for costs and counts, lines for durations. Every chart has a text description,
//! and each bar its value.

use maud::{Markup, html};
use tailor_sizing::units::round_to_u64;

use crate::render::units::{count, instant};
use crate::report::series::{ChangeMark, SeriesReport};

use super::chart::round;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 28.0;

/// Maximum number of points of which each shows its value.
const MAX_VALUES: usize = 200;

/// Maximum number of changes with a label.
const MAX_LABELS: usize = 6;

/// The values of one line, or one part of the bars.
pub(super) struct Values {
    /// Its class in the style sheet.
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    /// One for each point; `None` where nothing was measured.
    pub(super) values: Vec<Option<f64>>,
}

/// Values over time.
pub(super) struct TimeChart<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) description: String,
    pub(super) report: &'a SeriesReport,
    /// Lines, or parts of bars that are stacked.
    pub(super) parts: Vec<Values>,
    pub(super) is_bars: bool,
    pub(super) format: fn(f64) -> String,
    /// Whether changes have a label with their sizes.
    pub(super) has_labels: bool,
}

impl TimeChart<'_> {
    fn bucket_us(&self) -> u64 {
        self.report.bucket_hours * crate::store::HOUR_US
    }

    fn span_us(&self) -> f64 {
        (self.bucket_us() * self.report.points.len().max(1) as u64) as f64
    }

    fn x(&self, at_us: u64) -> f64 {
        let share = at_us.saturating_sub(self.report.from_us) as f64 / self.span_us();
        LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
    }

    /// The highest value, or the highest sum of the parts.
    fn highest(&self) -> f64 {
        let at = |index: usize| {
            let values = self.parts.iter().filter_map(move |part| part.values.get(index).copied().flatten());
            if self.is_bars { values.sum() } else { values.fold(0.0, f64::max) }
        };
        (0..self.report.points.len()).map(at).fold(0.0, f64::max)
    }

    /// The chart; a sentence when there is nothing to draw.
    pub(super) fn render(&self) -> Markup {
        let highest = self.highest();
        if highest <= 0.0 {
            return html! { p.muted { "None in this window." } };
        }
        let step = round_step(highest);
        let steps = (highest / step).ceil().max(1.0);
        let top = step * steps;
        let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value / top).clamp(0.0, 1.0);
        let (title_id, description_id) = (format!("{}-title", self.id), format!("{}-desc", self.id));
        let mut ticks = vec![];
        let mut tick = 0.0;
        while tick <= top * 1.001 {
            ticks.push(tick);
            tick += step;
        }
        html! {
            svg.time viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
                aria-labelledby={ (title_id) " " (description_id) } {
                title id=(title_id) { (self.title) }
                desc id=(description_id) { (self.description) }
                @for tick in ticks {
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(y(tick))) y2=(round(y(tick))) {}
                    text.tick x=(LEFT - 8.0) y=(round(y(tick) + 4.0)) text-anchor="end" { ((self.format)(tick)) }
                }
                (self.dates())
                @if self.is_bars { (self.bars(&y)) } @else { (self.lines(&y)) }
                (self.marks())
            }
        }
    }

    fn bars(&self, y: &dyn Fn(f64) -> f64) -> Markup {
        let slot = (WIDTH - LEFT - RIGHT) / self.report.points.len().max(1) as f64;
        let width = (slot * 0.82).max(slot - 2.0);
        let has_values = self.report.points.len() <= MAX_VALUES;
        html! {
            @for (index, point) in self.report.points.iter().enumerate() {
                @let rects = self.rects(index, y);
                @if !rects.is_empty() {
                    g {
                        @if has_values { title { (self.time(point.at_us)) ": " (self.values_at(index)) } }
                        @for (class, top, height) in rects {
                            rect class=(class) x=(round(self.x(point.at_us) + (slot - width) / 2.0)) y=(round(top))
                                width=(hundredths(width)) height=(round(height)) {}
                        }
                    }
                }
            }
        }
    }

    /// The parts of a bar from the bottom: class, upper edge and height.
    fn rects(&self, index: usize, y: &dyn Fn(f64) -> f64) -> Vec<(&'static str, f64, f64)> {
        let mut sum = 0.0;
        let mut rects = vec![];
        for part in &self.parts {
            let value = part.values.get(index).copied().flatten().unwrap_or(0.0);
            if value > 0.0 {
                let (from, to) = (y(sum), y(sum + value));
                // A small value stays visible.
                rects.push((part.class, to.min(from - 1.0), (from - to).max(1.0)));
                sum += value;
            }
        }
        rects
    }

    fn lines(&self, y: &dyn Fn(f64) -> f64) -> Markup {
        let half_us = self.bucket_us() / 2;
        let has_values = self.report.points.len() <= MAX_VALUES;
        let slot = (WIDTH - LEFT - RIGHT) / self.report.points.len().max(1) as f64;
        html! {
            @for part in &self.parts {
                @for segment in self.segments(part, half_us, y) {
                    @if let [(x, y)] = segment[..] { circle class=(part.class) cx=(round(x)) cy=(round(y)) r="2" {} }
                    @else {
                        @let points: Vec<String> = segment.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                        polyline class=(part.class) points=(points.join(" ")) {}
                    }
                }
            }
            @if has_values {
                @for (index, point) in self.report.points.iter().enumerate().filter(|(_, point)| point.invocations > 0) {
                    rect.hover x=(round(self.x(point.at_us))) y=(TOP) width=(hundredths(slot)) height=(HEIGHT - TOP - BOTTOM) {
                        title { (self.time(point.at_us)) ": " (self.values_at(index)) }
                    }
                }
            }
        }
    }

    /// The points of a line, interrupted where nothing was measured.
    fn segments(&self, part: &Values, half_us: u64, y: &dyn Fn(f64) -> f64) -> Vec<Vec<(f64, f64)>> {
        let mut segments: Vec<Vec<(f64, f64)>> = vec![vec![]];
        for (point, value) in self.report.points.iter().zip(&part.values) {
            match value {
                Some(value) => {
                    let at = (self.x(point.at_us + half_us), y(*value));
                    segments.iter_mut().next_back().into_iter().for_each(|segment| segment.push(at));
                }
                None => segments.push(vec![]),
            }
        }
        segments.retain(|segment| !segment.is_empty());
        segments
    }

    /// What was measured at a point.
    fn values_at(&self, index: usize) -> String {
        let part = |part: &Values| {
            let value = (self.format)(part.values.get(index).copied().flatten()?);
            Some(if self.parts.len() == 1 { value } else { format!("{} {value}", part.name) })
        };
        self.parts.iter().filter_map(part).collect::<Vec<_>>().join(", ")
    }

    fn time(&self, at_us: u64) -> String {
        let text = instant(at_us);
        let length = if self.report.bucket_hours == 1 { 16 } else { 10 };
        text.get(..length).unwrap_or(&text).to_owned()
    }

    /// The horizontal axis: about six times of day or dates.
    fn dates(&self) -> Markup {
        const HOURS: [u64; 10] = [1, 3, 6, 12, 24, 48, 120, 240, 720, 2_160];
        let hours = self.report.points.len() as u64 * self.report.bucket_hours;
        let step = HOURS
            .into_iter()
            .find(|step| hours / step <= 8)
            .unwrap_or(HOURS[9])
            .max(self.report.bucket_hours);
        let ticks = self
            .report
            .points
            .iter()
            .filter(|point| (point.at_us / crate::store::HOUR_US).is_multiple_of(step));
        html! {
            @for (index, point) in ticks.enumerate() {
                @let x = self.x(point.at_us);
                @let text = instant(point.at_us);
                @let label = if step < 24 { text.get(11..16) } else { text.get(5..10) };
                line.grid x1=(round(x)) x2=(round(x)) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM + 4.0) {}
                @if x < WIDTH - RIGHT - 20.0 {
                    text class=(if index % 2 == 0 { "tick" } else { "tick minor" }) x=(round(x)) y=(HEIGHT - BOTTOM + 18.0)
                        text-anchor="middle" { (label.unwrap_or_default()) }
                }
            }
        }
    }

    /// The changes of the tuner.
    fn marks(&self) -> Markup {
        let changes = &self.report.changes;
        let text = |change: &ChangeMark| {
            format!(
                "{}: {} {} MB → {} MB, {}",
                instant(change.at_us),
                change.function.name,
                change.from_mb,
                change.to_mb,
                change.state.code()
            )
        };
        html! {
            @for (index, change) in changes.iter().enumerate() {
                @let x = self.x(change.at_us);
                g.change {
                    title { (text(change)) }
                    line.mark.to x1=(round(x)) x2=(round(x)) y1=(TOP - 4.0) y2=(HEIGHT - BOTTOM) {}
                    path.flag d={ "M" (round(x - 5.0)) " " (TOP - 12.0) " h10 l-5 8 z" } {}
                    @if self.has_labels && changes.len() <= MAX_LABELS {
                        @let is_right = x > WIDTH * 0.8;
                        text.mark.to x=(round(if is_right { x - 8.0 } else { x + 8.0 })) y=(TOP - 2.0 + 15.0 * (index % 3) as f64)
                            text-anchor=(if is_right { "end" } else { "start" }) { (change.from_mb) "→" (change.to_mb) }
                    }
                }
            }
        }
    }
}

/// How a point is named in a heading.
pub(super) fn per(series: &SeriesReport) -> &'static str {
    if series.bucket_hours == 1 { "per hour" } else { "per day" }
}

/// Dollars of an axis.
pub(super) fn dollars(value: f64) -> String {
    match value {
        0.0 => "$0".to_owned(),
        value if value >= 100.0 => format!("${value:.0}"),
        value if value >= 0.01 => format!("${value:.2}"),
        // A step of an axis has at most two digits.
        value if value >= 1e-4 => format!("${value:.5}").trim_end_matches('0').to_owned(),
        value => format!("${value:.1e}").replace(".0e", "e"),
    }
}

/// A count on an axis: `20M`.
pub(super) fn axis_count(value: f64) -> String {
    let text = count(round_to_u64(value));
    // `20M` for `20.0M`.
    match (text.find('.'), text.find(|letter: char| letter.is_ascii_alphabetic())) {
        (Some(_), Some(unit)) => {
            let number = text[..unit].trim_end_matches('0').trim_end_matches('.');
            format!("{number}{}", &text[unit..])
        }
        _ => text,
    }
}

/// A round step of an axis, so that there are three to six.
fn round_step(highest: f64) -> f64 {
    let power = 10f64.powf((highest / 4.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| highest / step <= 5.0).unwrap_or(10.0 * power)
}

/// Narrow bars of many points must not add up to another width.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_of_an_axis_are_short() {
        let texts = [0.0, 250.0, 0.8, 0.01, 0.006, 0.0025, 0.0002, 0.00002, 0.000_025].map(dollars);
        let expected = ["$0", "$250", "$0.80", "$0.01", "$0.006", "$0.0025", "$0.0002", "$2e-5", "$2.5e-5"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn an_axis_has_three_to_six_round_steps() {
        for highest in [0.000_013, 0.07, 0.99, 1.0, 3.3, 9.7, 51.0, 120_000.0, 7.4e9] {
            let step = round_step(highest);
            let steps = (highest / step).ceil();
            assert!((2.0..=6.0).contains(&steps), "{highest}: {step}");
        }
    }
}
