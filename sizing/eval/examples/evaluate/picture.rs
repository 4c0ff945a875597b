//! A plot of predicted and measured durations, as SVG.

use std::fmt::Write;

use tailor_sizing::model::predict::Model;
use tailor_sizing::units::Megabytes;
use tailor_sizing_eval::score::{Case, enforcement};

/// Side of the square plot and its margin, in pixels.
const SIDE: f64 = 520.0;
const MARGIN: f64 = 60.0;

/// Durations shown, in powers of ten of a millisecond.
const DECADES: [i32; 2] = [-1, 4];

/// One colour for each kind of function, in alphabetical order.
const COLOURS: [&str; 8] =
    ["#b2182b", "#ef8a62", "#e6a100", "#1b7837", "#67a9cf", "#2166ac", "#542788", "#555555"];

/// Draws every prediction from `base`, with its 80 % interval.
pub(crate) fn draw(cases: &[Case], base: Megabytes) -> String {
    let mut kinds: Vec<&str> = cases.iter().map(|case| case.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let colour = |kind: &str| {
        let index = kinds.iter().position(|other| *other == kind).unwrap_or_default();
        COLOURS[index % COLOURS.len()]
    };
    let mut svg = frame(base);
    let enforcement = enforcement(cases, base);
    for case in cases {
        let Some(seen) = case.sizes.iter().find(|size| size.memory == base) else { continue };
        let Some(model) = Model::fit(&[(base, seen.telemetry.clone())], enforcement) else { continue };
        for size in case.sizes.iter().filter(|size| size.memory != base) {
            let prediction = model.predict(size.memory);
            let [low, high] = prediction.interval_80;
            let (x, colour) = (x_position(size.truth_ms), colour(&case.kind));
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"{colour}\" opacity=\".35\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"2.6\" fill=\"{colour}\"/>",
                y_position(low),
                y_position(high),
                y_position(prediction.mean_ms)
            );
        }
    }
    for (i, kind) in kinds.iter().enumerate() {
        let y = MARGIN + 18.0 + 16.0 * i as f64;
        let _ = writeln!(
            svg,
            "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{y}\">{kind}</text>",
            MARGIN + 14.0,
            y - 4.0,
            colour(kind),
            MARGIN + 24.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn frame(base: Megabytes) -> String {
    let whole = SIDE + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {whole} {whole}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{whole}\" height=\"{whole}\" fill=\"white\"/>\n"
    );
    for decade in DECADES[0]..=DECADES[1] {
        let ms = 10f64.powi(decade);
        let _ = writeln!(
            svg,
            "<path d=\"M{MARGIN} {y}H{right}M{x} {MARGIN}V{right}\" stroke=\"#ddd\"/>\
             <text x=\"{x}\" y=\"{under}\" text-anchor=\"middle\">{ms}</text>\
             <text x=\"{left}\" y=\"{y}\" text-anchor=\"end\">{ms}</text>",
            x = x_position(ms),
            y = y_position(ms),
            right = SIDE + MARGIN,
            under = SIDE + MARGIN + 18.0,
            left = MARGIN - 6.0
        );
    }
    let (low, high) = (10f64.powi(DECADES[0]), 10f64.powi(DECADES[1]));
    let _ = writeln!(
        svg,
        "<path d=\"M{} {}L{} {}\" stroke=\"#555\"/>\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">measured, ms</text>\
         <text x=\"{middle}\" y=\"30\" text-anchor=\"middle\">predicted from {base} alone, ms, with 80 % \
         interval</text>",
        x_position(low),
        y_position(low),
        x_position(high),
        y_position(high),
        SIDE + MARGIN + 40.0,
        middle = MARGIN + SIDE / 2.0
    );
    svg
}

fn x_position(ms: f64) -> f64 {
    let [low, high] = DECADES.map(f64::from);
    MARGIN + SIDE * ((ms.max(1e-9).log10() - low) / (high - low)).clamp(0.0, 1.0)
}

fn y_position(ms: f64) -> f64 {
    SIDE + 2.0 * MARGIN - x_position(ms)
}
