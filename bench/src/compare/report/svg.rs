//! A small SVG writer.

use std::fmt::Write as _;

/// Colours that are also distinct with a colour vision deficiency (Okabe and Ito 2008, with olive instead of yellow).
pub const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999933"];

/// An SVG image.
pub struct Svg(String);

/// The point of a text that the text's coordinates refer to.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// The left end.
    Start,
    /// The middle.
    Middle,
    /// The right end.
    End,
}

// Writing to a String can't fail.
impl Svg {
    /// Creates an image of this size with a title.
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

    /// Adds a text.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let _ = writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    /// Adds a filled rectangle.
    pub fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        let width = width.max(1.0);
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        );
    }

    /// Adds a thin line of the grid.
    pub fn grid_line(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.polyline(&[from, to], "#dddddd", "");
    }

    /// Adds a dashed line.
    pub fn dashed_line(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.polyline(&[from, to], "black", " stroke-dasharray=\"4 3\"");
    }

    /// Adds a line through points, each with a dot.
    pub fn line_with_dots(&mut self, points: &[(f64, f64)], colour: &str) {
        self.polyline(points, colour, " stroke-width=\"2\"");
        for (x, y) in points {
            let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
    }

    fn polyline(&mut self, points: &[(f64, f64)], colour: &str, attributes: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        let _ =
            writeln!(self.0, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"{attributes}/>");
    }

    /// Returns the SVG document.
    pub fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Returns the exponents of the powers of ten that enclose all positive values.
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

/// Formats a number for people, such as `0.05` or `10,000`.
pub fn format_number(value: f64) -> String {
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
    fn formats_numbers_for_people() {
        assert_eq!(format_number(10_000_000.0), "10,000,000");
        assert_eq!(format_number(0.01), "0.01");
        assert_eq!(format_number(100.0), "100");
    }

    #[test]
    fn decades_enclose_all_values() {
        assert_eq!(decade_range([0.03, 5.0].into_iter()), (-2.0, 1.0));
        assert_eq!(decade_range([1.0].into_iter()), (0.0, 1.0));
        assert_eq!(decade_range(std::iter::empty()), (0.0, 1.0));
    }
}
