//! A bar chart of all figures relative to their goals.

use super::svg::{Anchor, Svg};
use crate::compare::figure::Figure;

const WIDTH: f64 = 1_000.0;
const ROW_HEIGHT: f64 = 28.0;
const LABEL_WIDTH: f64 = 560.0;
const TOP: f64 = 52.0;
/// The axis shows this many decades below the goal, and as many above it. Bars outside of this range are clipped.
const DECADES_EACH_WAY: f64 = 1.0;

/// Draws a bar for the score of each figure on a logarithmic axis with the goal in its middle: longer is better.
pub fn draw(figures: &[&Figure]) -> String {
    let height = TOP + ROW_HEIGHT * figures.len() as f64 + 30.0;
    let mut svg =
        Svg::new(WIDTH, height, "Each figure relative to its goal (1 = just reached, longer is better)");
    let scale = (WIDTH - LABEL_WIDTH - 70.0) / (2.0 * DECADES_EACH_WAY);
    let x_of = |score: f64| {
        LABEL_WIDTH + (score.log10().clamp(-DECADES_EACH_WAY, DECADES_EACH_WAY) + DECADES_EACH_WAY) * scale
    };
    let bottom = height - 24.0;
    for score in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        svg.grid_line((x_of(score), TOP - 8.0), (x_of(score), bottom));
        svg.text((x_of(score), bottom + 16.0), Anchor::Middle, &score.to_string());
    }
    for (row, figure) in figures.iter().enumerate() {
        let (y, score) = (TOP + ROW_HEIGHT * row as f64, figure.score());
        let colour = if figure.meets_goal() { "#009e73" } else { "#d55e00" };
        svg.text((LABEL_WIDTH - 10.0, y + 15.0), Anchor::End, &label(figure));
        svg.rectangle((LABEL_WIDTH, y + 2.0), (x_of(score) - LABEL_WIDTH, 18.0), colour);
        svg.text((x_of(score) + 6.0, y + 15.0), Anchor::Start, &format!("{score:.2}"));
    }
    svg.dashed_line((x_of(1.0), TOP - 8.0), (x_of(1.0), bottom));
    svg.finish()
}

/// Returns the figure's number and name, truncated to the space of a label.
fn label(figure: &Figure) -> String {
    const MAX_CHARS: usize = 82;
    let label = format!("{}  {}", figure.number, figure.name);
    match label.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", label[..end].trim_end()),
        None => label,
    }
}
