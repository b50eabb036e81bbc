//! The samples as a picture: one strip a line, above each other, on one axis of time.

use std::fmt::Write as _;

use super::sample::{Sample, Watched};

const WIDTH: f64 = 860.0;
const STRIP: f64 = 92.0;
const GAP: f64 = 34.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 36.0;

/// An SVG document.
pub(super) fn draw(samples: &[Sample]) -> String {
    let strips: Vec<(&str, Vec<f64>)> =
        std::iter::once(("changes written a second", values(samples, |sample| sample.rate)))
            .chain(
                Watched::ALL
                    .map(|watched| (watched.title(), values(samples, |sample| watched.of(sample)))),
            )
            .collect();
    let seconds = samples.last().map_or(1.0, |sample| sample.at.as_secs_f64());
    let height = TOP + strips.len() as f64 * (STRIP + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" fill=\"#222\">{:.0} minutes of a load that comes and goes</text>\n",
        WIDTH + 2.0 * LEFT,
        seconds / 60.0
    );
    for (index, (title, values)) in strips.iter().enumerate() {
        strip(&mut svg, TOP + index as f64 * (STRIP + GAP), title, samples, values, seconds);
    }
    svg.push_str("</svg>\n");
    svg
}

fn values(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(of).collect()
}

fn strip(
    svg: &mut String,
    top: f64,
    title: &str,
    samples: &[Sample],
    values: &[f64],
    seconds: f64,
) {
    let highest = values.iter().copied().fold(1.0, f64::max);
    let (base, label) = (top + GAP / 2.0 + STRIP, top + GAP / 2.0 - 5.0);
    let points = samples.iter().zip(values).map(|(sample, value)| {
        let x = LEFT + WIDTH * sample.at.as_secs_f64() / seconds;
        format!("{x:.1},{:.1}", base - STRIP * value / highest)
    });
    let points: Vec<String> = points.collect();
    let written = write!(
        svg,
        "<text x=\"{LEFT}\" y=\"{label}\" fill=\"#222\">{title}</text>\n\
         <text x=\"{}\" y=\"{label}\" fill=\"#777\" text-anchor=\"end\">highest {highest:.0}</text>\n\
         <line x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\" stroke=\"#bbb\"/>\n\
         <polyline fill=\"none\" stroke=\"#1f6f8b\" stroke-width=\"1.5\" points=\"{}\"/>\n",
        LEFT + WIDTH,
        LEFT + WIDTH,
        points.join(" ")
    );
    written.expect("writing to a string does not fail");
}
