//! A grouped bar chart.

use super::svg::{Anchor, COLOURS, Svg, decade_range, format_number};

const WIDTH: f64 = 1_000.0;
const BAR_HEIGHT: f64 = 15.0;
const GROUP_GAP: f64 = 14.0;
const LABEL_WIDTH: f64 = 170.0;
const TOP: f64 = 76.0;

/// Draws groups of bars on a logarithmic axis: shorter is better.
pub fn draw(title: &str, unit: &str, legend: &[String], groups: &[(String, Vec<f64>)]) -> String {
    let group_height = BAR_HEIGHT * legend.len() as f64 + GROUP_GAP;
    let height = TOP + group_height * groups.len() as f64 + 34.0;
    let mut svg = Svg::new(WIDTH, height, &format!("{title}, in {unit} (shorter is better)"));
    let (from, to) = decade_range(groups.iter().flat_map(|(_, values)| values.iter().copied()));
    let scale = (WIDTH - LABEL_WIDTH - 80.0) / (to - from);
    let x_of = |value: f64| LABEL_WIDTH + (value.log10().clamp(from, to) - from) * scale;
    let bottom = height - 28.0;
    let mut decade = from;
    while decade <= to {
        let x = x_of(10_f64.powf(decade));
        svg.grid_line((x, TOP - 8.0), (x, bottom));
        svg.text((x, bottom + 16.0), Anchor::Middle, &format_number(10_f64.powf(decade)));
        decade += 1.0;
    }
    for (bar, name) in legend.iter().enumerate() {
        let x = LABEL_WIDTH + 150.0 * bar as f64;
        svg.rectangle((x, 38.0), (14.0, 14.0), colour(bar));
        svg.text((x + 20.0, 50.0), Anchor::Start, name);
    }
    for (row, (name, values)) in groups.iter().enumerate() {
        let top = TOP + group_height * row as f64;
        svg.text((LABEL_WIDTH - 10.0, top + BAR_HEIGHT * legend.len() as f64 / 2.0 + 5.0), Anchor::End, name);
        for (bar, value) in values.iter().enumerate() {
            let y = top + BAR_HEIGHT * bar as f64;
            svg.rectangle((LABEL_WIDTH, y), (x_of(*value) - LABEL_WIDTH, BAR_HEIGHT - 2.0), colour(bar));
            svg.text((x_of(*value) + 5.0, y + 11.0), Anchor::Start, &format_number(*value));
        }
    }
    svg.finish()
}

fn colour(bar: usize) -> &'static str {
    COLOURS[bar % COLOURS.len()]
}
