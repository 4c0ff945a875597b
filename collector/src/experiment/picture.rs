//! The result as an SVG picture: duration and cost of each size.

use std::fmt::Write;

use super::outcome::{Outcome, Stat};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 60.0;

/// Name, colour and value of a line.
type Line = (&'static str, &'static str, fn(&Stat) -> f64);

/// Draws the averages of an outcome. The function's name is its title.
#[must_use]
pub fn svg(function: &str, outcome: &Outcome) -> String {
    let stats = &outcome.stats;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"24\" \
         font-size=\"16\">{} (best: {} MB)</text>\n",
        escaped(function),
        outcome.power
    );
    // Sizes are far apart at the upper end, so the axis is logarithmic.
    let position = |value: u32| f64::from(value).ln();
    let (first, last) =
        (stats.first().map_or(0.0, |s| position(s.value)), stats.last().map_or(1.0, |s| position(s.value)));
    let x =
        |value: u32| MARGIN + (position(value) - first) / (last - first).max(0.1) * (WIDTH - 2.0 * MARGIN);
    let bottom = HEIGHT - MARGIN;
    for stat in stats {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} MB</text>",
            x(stat.value),
            bottom + 20.0,
            stat.value
        );
    }
    let lines: [Line; 2] = [
        ("duration, ms", "#c0392b", |stat| stat.average_duration),
        ("cost of a million, $", "#2471a3", |stat| stat.average_price * 1e6),
    ];
    for (index, (name, colour, of)) in lines.iter().enumerate() {
        let highest = stats.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
        let y = |value: f64| bottom - value / highest * (bottom - MARGIN);
        let points: Vec<_> = stats.iter().map(|s| format!("{:.1},{:.1}", x(s.value), y(of(s)))).collect();
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        for stat in stats {
            let (x, y) = (x(stat.value), y(of(stat)));
            let _ = writeln!(
                text,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"><title>{} MB: {:.3}</title></circle>",
                stat.value,
                of(stat)
            );
        }
        let x = MARGIN + index as f64 * 200.0;
        let _ =
            writeln!(text, "<text x=\"{x}\" y=\"46\" fill=\"{colour}\">{name} (highest {highest:.2})</text>");
    }
    text.push_str("</svg>\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
