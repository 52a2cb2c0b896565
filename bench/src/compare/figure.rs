//! What was measured, as the report keeps it.

use serde::{Deserialize, Serialize};

use super::rounds::{Rounds, median};

/// A figure: what it is, what came out, and what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its number in the report.
    pub number: u32,
    /// What is measured.
    pub name: String,
    /// Against what; empty where it stands for itself.
    pub against: String,
    /// The unit of the measurements.
    pub unit: String,
    /// What it should be.
    pub goal: Goal,
    /// The measurements.
    pub measured: Measurements,
}

/// Measurements, one a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measurements {
    /// Of two sides: the ratio is what counts.
    Ratio(Rounds),
    /// Of one side: the value itself counts.
    Absolute(Vec<f64>),
}

/// What a ratio or a value should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Figure {
    /// What the goal is about: the median of the ratios, or of the values.
    pub fn value(&self) -> f64 {
        match &self.measured {
            Measurements::Ratio(rounds) => median(&rounds.ratios),
            Measurements::Absolute(values) => median(values),
        }
    }

    /// Whether it is what it should be.
    pub fn meets_goal(&self) -> bool {
        match self.goal {
            Goal::AtLeast(least) => self.value() >= least,
            Goal::AtMost(most) => self.value() <= most,
        }
    }

    /// How good it is, where 1 is just what it should be, and more is better.
    pub fn score(&self) -> f64 {
        match self.goal {
            Goal::AtLeast(least) => self.value() / least,
            Goal::AtMost(most) => most / self.value(),
        }
    }
}

/// Everything measured for one number of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportSection {
    /// The number.
    pub number: u32,
    /// When it was measured, RFC 3339.
    pub measured_at: String,
    /// How, in a few words.
    pub setting: String,
    /// Whether something could not be measured. Why is said where the run prints it.
    pub failed: bool,
    /// What has a goal.
    #[serde(flatten)]
    pub findings: FigureResults,
}

/// What measuring one number came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FigureResults {
    /// What has a goal.
    pub figures: Vec<Figure>,
    /// What explains it.
    pub tables: Vec<Table>,
    /// What is better seen.
    pub plots: Vec<Plot>,
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

/// Details beside the figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The columns' names.
    pub head: Vec<String>,
    /// The rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self { title: title.into(), head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// Told apart from the report's others by this, in the file's name.
    pub slug: String,
    /// What it shows.
    pub title: String,
    /// What is drawn.
    pub shape: PlotKind,
}

/// How a picture shows its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlotKind {
    /// Lines over a logarithmic axis, each with its points.
    Lines {
        /// What the horizontal axis counts.
        across: String,
        /// The lines.
        lines: Vec<Series>,
    },
    /// Bars in groups, on a logarithmic axis.
    Bars {
        /// The unit of the values.
        unit: String,
        /// The names of a group's bars.
        legend: Vec<String>,
        /// The groups, each with its name and a value for each bar.
        groups: Vec<(String, Vec<f64>)>,
    },
}

/// A line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// From left to right.
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
    fn a_ratio_is_judged_round_by_round_and_not_by_the_medians_of_both_sides() {
        let rounds =
            Rounds { ours: vec![1.0, 8.0, 3.0], theirs: vec![2.0, 8.0, 4.0], ratios: vec![0.5, 1.0, 0.75] };
        let figure = figure(Goal::AtLeast(0.75), Measurements::Ratio(rounds));
        assert!((figure.value() - 0.75).abs() < f64::EPSILON);
        assert!(figure.meets_goal());
    }

    #[test]
    fn more_is_better_or_worse_as_the_goal_says() {
        let measured = || Measurements::Absolute(vec![10.0]);
        assert!(figure(Goal::AtMost(20.0), measured()).score() > 1.0);
        assert!(figure(Goal::AtLeast(20.0), measured()).score() < 1.0);
        assert!(!figure(Goal::AtMost(9.9), measured()).meets_goal());
    }

    #[test]
    fn a_chapter_reads_back_from_the_raw_figures() {
        let chapter = ReportSection {
            number: 7,
            measured_at: "2026-11-24T12:00:00Z".to_owned(),
            setting: String::new(),
            failed: false,
            findings: figure(Goal::AtMost(1.0), Measurements::Absolute(vec![1.0])).into(),
        };
        let raw = serde_json::to_string(&chapter).unwrap();
        assert_eq!(serde_json::from_str::<ReportSection>(&raw).unwrap(), chapter);
    }
}
