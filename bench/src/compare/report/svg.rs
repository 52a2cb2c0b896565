//! What pictures are made of.

use std::fmt::Write as _;

/// Of lines and bars that must be told apart, also by those who see few colours (Okabe and Ito 2008).
pub const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999933"];

/// A picture that is being drawn.
pub struct Svg(String);

/// Where a text stands to its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// To the right of it.
    Prefix,
    /// Around it.
    Middle,
    /// To the left of it.
    End,
}

// Writing to a String can't fail.
impl Svg {
    /// An empty picture of this size with a title.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        ));
        let _ = writeln!(
            svg.0,
            "<text x=\"14\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            escaped(title)
        );
        svg
    }

    /// A text.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Prefix => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let _ = writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    /// A filled rectangle.
    pub fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        let width = width.max(1.0);
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        );
    }

    /// A thin line of the grid.
    pub fn grid_line(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.polyline(&[from, to], "#dddddd", "");
    }

    /// A dashed line.
    pub fn mark(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.polyline(&[from, to], "black", " stroke-dasharray=\"4 3\"");
    }

    /// A line through points, each with a dot.
    pub fn line_with_dots(&mut self, points: &[(f64, f64)], colour: &str) {
        self.polyline(points, colour, " stroke-width=\"2\"");
        for (x, y) in points {
            let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
    }

    fn polyline(&mut self, points: &[(f64, f64)], colour: &str, more: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        let _ = writeln!(self.0, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"{more}/>");
    }

    /// The picture.
    pub fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Powers of ten from the one at or below the lowest value to the one at or above the highest.
pub fn decade_range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (lowest, highest) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(lowest, highest), value| (lowest.min(value), highest.max(value)));
    if highest == 0.0 {
        return (0.0, 1.0);
    }
    let (from, to) = (lowest.log10().floor(), highest.log10().ceil());
    (from, to.max(from + 1.0))
}

/// A number for people, such as `0.05` or `10,000`.
pub fn number(value: f64) -> String {
    if value < 1_000.0 {
        let text = format!("{value:.3}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return text.to_owned();
    }
    let digits = format!("{value:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_do() {
        assert_eq!(number(10_000_000.0), "10,000,000");
        assert_eq!(number(0.01), "0.01");
        assert_eq!(number(100.0), "100");
    }

    #[test]
    fn decades_hold_every_value() {
        assert_eq!(decade_range([0.03, 5.0].into_iter()), (-2.0, 1.0));
        assert_eq!(decade_range([1.0].into_iter()), (0.0, 1.0));
        assert_eq!(decade_range(std::iter::empty()), (0.0, 1.0));
    }
}
