//! A line chart over a logarithmic horizontal axis.

use super::svg::{Anchor, COLOURS, Svg, decade_range, format_number};
use crate::compare::figure::Series;

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 760.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = HEIGHT - 52.0;
/// The number of rows of the grid, with a horizontal line below and above each row.
const GRID_ROWS: u32 = 5;

/// Draws lines over a logarithmic horizontal axis and a linear vertical axis from zero.
pub fn draw(title: &str, x_axis: &str, lines: &[Series]) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT, title);
    let points = || lines.iter().flat_map(|line| &line.points);
    let (from, to) = decade_range(points().map(|(x, _)| *x));
    let highest_y = round_up(points().map(|(_, y)| *y).fold(0.0, f64::max));
    let x_of = |x: f64| LEFT + (x.log10() - from) / (to - from) * (RIGHT - LEFT);
    let y_of = |y: f64| BOTTOM - y / highest_y * (BOTTOM - TOP);
    let mut decade = from;
    while decade <= to {
        let x = x_of(10_f64.powf(decade));
        svg.grid_line((x, TOP), (x, BOTTOM));
        svg.text((x, BOTTOM + 18.0), Anchor::Middle, &format_number(10_f64.powf(decade)));
        decade += 1.0;
    }
    for grid_line in 0..=GRID_ROWS {
        let value = highest_y * f64::from(grid_line) / f64::from(GRID_ROWS);
        svg.grid_line((LEFT, y_of(value)), (RIGHT, y_of(value)));
        svg.text((LEFT - 8.0, y_of(value) + 4.0), Anchor::End, &format_number(value));
    }
    svg.text((f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0), Anchor::Middle, x_axis);
    for (nth, line) in lines.iter().enumerate() {
        let colour = COLOURS[nth % COLOURS.len()];
        let points: Vec<_> = line.points.iter().map(|(x, y)| (x_of(*x), y_of(*y))).collect();
        svg.line_with_dots(&points, colour);
        let y = TOP + 12.0 + 24.0 * nth as f64;
        svg.rectangle((RIGHT + 20.0, y - 11.0), (14.0, 14.0), colour);
        svg.text((RIGHT + 42.0, y), Anchor::Start, &line.name);
    }
    svg.finish()
}

/// Rounds up to 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power);
    round.into_iter().find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_value() {
        for (value, end) in [(0.0, 1.0), (0.9, 1.0), (1.1, 2.0), (37.0, 50.0), (0.06, 0.1)] {
            let rounded = round_up(value);
            assert!((rounded - end).abs() < 1e-9, "{value} was rounded up to {rounded} instead of {end}");
        }
    }
}
