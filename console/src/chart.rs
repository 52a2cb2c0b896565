//! Charts as SVG: the geometry of bars and lines. Templates draw them.

#![expect(clippy::cast_precision_loss, reason = "coordinates have few digits")]

use std::fmt::Write as _;

use crate::text::Time;

/// The width of a chart's drawing area, in units of its view box.
pub(crate) const WIDTH: u32 = 720;

/// The height of a chart's drawing area.
pub(crate) const HEIGHT: u32 = 100;

/// A chart of bars.
pub(crate) struct BarChart {
    pub(crate) bars: Vec<Bar>,
    /// The value at the top.
    pub(crate) top: u64,
}

/// A bar.
pub(crate) struct Bar {
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) width: String,
    pub(crate) height: String,
    pub(crate) value: u64,
    /// The end of the time that the bar stands for.
    pub(crate) end: Time,
    /// The tooltip.
    pub(crate) label: String,
}

/// The value of a bar, with the end of its time and its tooltip.
pub(crate) struct BarValue {
    pub(crate) value: u64,
    pub(crate) end: Time,
    pub(crate) label: String,
}

/// A chart of one line.
pub(crate) struct LineChart {
    /// The points, as the attribute `points` of an SVG polyline. One list for each unbroken part of the line.
    pub(crate) lines: Vec<String>,
    pub(crate) top: u64,
}

impl BarChart {
    /// A chart of these values with their labels, from left to right.
    pub(crate) fn new(values: Vec<BarValue>) -> Self {
        let top = round_up(values.iter().map(|bar| bar.value).max().unwrap_or(0));
        let slot = f64::from(WIDTH) / values.len().max(1) as f64;
        let bars = values.into_iter().enumerate().map(|(index, BarValue { value, end, label })| {
            // A value that is not zero is always visible.
            let height = if value == 0 { 0.0 } else { scale(value, top).max(1.0) };
            Bar {
                x: format!("{:.2}", index as f64 * slot + slot * 0.1),
                y: format!("{:.2}", f64::from(HEIGHT) - height),
                width: format!("{:.2}", slot * 0.8),
                height: format!("{height:.2}"),
                value,
                end,
                label,
            }
        });
        Self { bars: bars.collect(), top }
    }
}

impl LineChart {
    /// A chart of these values, from left to right. `slots` values fill the whole width. Fewer values begin further to
    /// the right, and end at the right edge.
    pub(crate) fn new(values: &[Option<u64>], slots: usize) -> Self {
        let top = round_up(values.iter().flatten().copied().max().unwrap_or(0));
        let step = f64::from(WIDTH) / slots.saturating_sub(1).max(1) as f64;
        let first = slots.saturating_sub(values.len());
        let mut lines = vec![String::new()];
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else {
                lines.push(String::new());
                continue;
            };
            let (x, y) = ((first + index) as f64 * step, f64::from(HEIGHT) - scale(*value, top));
            if let Some(line) = lines.last_mut() {
                // Writing to a String can't fail.
                let _ = write!(line, "{x:.1},{y:.1} ");
            }
        }
        lines.retain(|line| !line.is_empty());
        Self { lines, top }
    }
}

fn scale(value: u64, top: u64) -> f64 {
    value as f64 / top.max(1) as f64 * f64::from(HEIGHT)
}

/// Rounds a value up to 1, 2 or 5 times a power of ten, or to `u64::MAX`.
fn round_up(value: u64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for factor in [1, 2, 5] {
            let candidate = power.saturating_mul(factor);
            if candidate >= value {
                return candidate;
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::Timestamp;

    use super::*;

    #[test]
    fn the_top_is_a_round_number() {
        let tops: Vec<_> = [0, 1, 3, 5, 6, 11, 99, 101, u64::MAX].into_iter().map(round_up).collect();
        assert_eq!(tops, [1, 1, 5, 5, 10, 20, 100, 200, u64::MAX]);
    }

    #[test]
    fn bars_fill_the_width_and_small_ones_are_visible() {
        let end = Time(Timestamp::from_millis(0));
        let bar = |value| BarValue { value, end, label: String::new() };
        let chart = BarChart::new(vec![bar(0), bar(1), bar(1_000)]);
        let heights: Vec<_> = chart.bars.iter().map(|bar| bar.height.as_str()).collect();
        assert_eq!(heights, ["0.00", "1.00", "100.00"]);
        assert_eq!(chart.bars[2].x, "504.00");
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_is_known_and_ends_at_the_right_edge() {
        let chart = LineChart::new(&[Some(0), None, Some(10), Some(5)], 7);
        assert_eq!(chart.lines, ["360.0,100.0 ", "600.0,0.0 720.0,50.0 "]);
    }
}
