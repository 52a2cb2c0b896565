//! Figures: measurements with their goals, as the report stores them.

use serde::{Deserialize, Serialize};

use super::rounds::{Rounds, median};

/// A measured quantity with its goal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The number under which the report shows the figure. Several figures may share a number.
    pub number: u32,
    /// The measured quantity.
    pub name: String,
    /// The quantity that it is compared with. Empty for an absolute value.
    pub against: String,
    /// The unit of the measurements.
    pub unit: String,
    /// The goal of the ratio or value.
    pub goal: Goal,
    /// The measurements.
    pub measured: Measurements,
}

/// Measurements, one for each round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measurements {
    /// Measurements of two sides. The goal is about their ratio.
    Ratio(Rounds),
    /// Measurements of one side. The goal is about the value itself.
    Absolute(Vec<f64>),
}

/// The goal of a ratio or a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// This value or more.
    AtLeast(f64),
    /// This value or less.
    AtMost(f64),
}

impl Figure {
    /// Returns the median of the ratios or of the values.
    pub fn value(&self) -> f64 {
        match &self.measured {
            Measurements::Ratio(rounds) => median(&rounds.ratios),
            Measurements::Absolute(values) => median(values),
        }
    }

    /// Returns whether the median meets the goal.
    pub fn meets_goal(&self) -> bool {
        match self.goal {
            Goal::AtLeast(least) => self.value() >= least,
            Goal::AtMost(most) => self.value() <= most,
        }
    }

    /// Returns the median relative to the goal: 1 just meets the goal, and a higher score is better.
    pub fn score(&self) -> f64 {
        match self.goal {
            Goal::AtLeast(least) => self.value() / least,
            Goal::AtMost(most) => most / self.value(),
        }
    }
}

/// A section of the report: the results of one call of `figures::measure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportSection {
    /// The number that was passed to `figures::measure`. The section's figures have the same number, except that
    /// section 11 also has figures with number 10.
    pub number: u32,
    /// The time at which `figures::measure` ended (RFC 3339).
    pub measured_at: String,
    /// The configuration of the run, as text for the report.
    #[serde(rename = "setting")]
    pub config: String,
    /// Whether `figures::measure` failed. The run prints the cause.
    pub failed: bool,
    /// The figures with their tables and plots.
    #[serde(flatten)]
    pub results: FigureResults,
}

/// The content of a section: figures with their tables and plots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FigureResults {
    /// The figures.
    pub figures: Vec<Figure>,
    /// Tables with details.
    pub tables: Vec<Table>,
    /// Plots.
    pub plots: Vec<Plot>,
}

impl FigureResults {
    /// Returns whether there are no figures, tables and plots.
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty() && self.tables.is_empty() && self.plots.is_empty()
    }
}

impl From<Vec<Figure>> for FigureResults {
    fn from(figures: Vec<Figure>) -> Self {
        Self { figures, ..Self::default() }
    }
}

impl From<Figure> for FigureResults {
    fn from(figure: Figure) -> Self {
        vec![figure].into()
    }
}

/// A table with details of the figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The title.
    pub title: String,
    /// The columns' names.
    pub head: Vec<String>,
    /// The rows, each with a cell for each column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table without rows.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self { title: title.into(), head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }
}

/// A plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// The part of the file's name that is unique in the report.
    pub slug: String,
    /// The title.
    pub title: String,
    /// The kind of the plot with its values.
    #[serde(rename = "shape")]
    pub kind: PlotKind,
}

/// The kind of a plot, with its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlotKind {
    /// Lines with points over a logarithmic horizontal axis.
    Lines {
        /// The title of the horizontal axis.
        #[serde(rename = "across")]
        x_axis: String,
        /// The lines.
        lines: Vec<Series>,
    },
    /// Grouped bars on a logarithmic axis.
    Bars {
        /// The unit of the values.
        unit: String,
        /// The names of the bars of each group.
        legend: Vec<String>,
        /// The groups: a name, and a value for each bar.
        groups: Vec<(String, Vec<f64>)>,
    },
}

/// A line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The name.
    pub name: String,
    /// The points, from left to right.
    pub points: Vec<(f64, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(goal: Goal, measured: Measurements) -> Figure {
        Figure {
            number: 1,
            name: "a".to_owned(),
            against: String::new(),
            unit: "ms".to_owned(),
            goal,
            measured,
        }
    }

    #[test]
    fn the_value_is_the_median_of_the_ratios_of_the_rounds() {
        // The ratio of the medians is 4 / 3.
        let mut rounds = Rounds::default();
        for (ours, theirs) in [(1.0, 2.0), (4.0, 8.0), (6.0, 3.0)] {
            rounds.push(ours, theirs);
        }
        let figure = figure(Goal::AtLeast(0.5), Measurements::Ratio(rounds));
        assert!((figure.value() - 0.5).abs() < f64::EPSILON);
        assert!(figure.meets_goal());
    }

    #[test]
    fn score_and_success_follow_the_direction_of_the_goal() {
        let measured = || Measurements::Absolute(vec![10.0]);
        assert!(figure(Goal::AtMost(20.0), measured()).score() > 1.0);
        assert!(figure(Goal::AtLeast(20.0), measured()).score() < 1.0);
        assert!(!figure(Goal::AtMost(9.9), measured()).meets_goal());
    }

    #[test]
    fn a_section_survives_serialization() {
        let section = ReportSection {
            number: 7,
            measured_at: "2026-11-24T12:00:00Z".to_owned(),
            config: String::new(),
            failed: false,
            results: figure(Goal::AtMost(1.0), Measurements::Absolute(vec![1.0])).into(),
        };
        let json = serde_json::to_string(&section).unwrap();
        assert_eq!(serde_json::from_str::<ReportSection>(&json).unwrap(), section);
    }
}
