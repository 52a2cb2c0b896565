//! The report: a Markdown file with tables and plots for people, and the raw figures as JSON.

mod bar_chart;
mod goal_chart;
mod line_chart;
mod svg;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figure::{Figure, Goal, Measurements, Plot, PlotKind, ReportSection, Table};
use super::rounds::median;

/// A report that is written after each figure.
#[derive(Serialize, Deserialize)]
pub struct Report {
    machine: String,
    #[serde(rename = "chapters")]
    sections: Vec<ReportSection>,
    /// The machine that the existing report was measured on, if that is not `machine`. The first section that is added
    /// replaces the figures of the other machine.
    #[serde(skip)]
    pub other_machine: Option<String>,
    #[serde(skip)]
    path: Option<PathBuf>,
}

/// Replaces the content of a file atomically.
fn replace_file(path: &Path, content: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let mut new = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
    new.write_all(content.as_bytes())?;
    new.persist(path).map(drop).map_err(|error| error.error)
}

const BEGIN_MARKER: &str = "<!-- figures: written by chat-bench compare -->";
const END_MARKER: &str = "<!-- end of figures -->";

impl Report {
    /// Opens the report at a path. Without a path, no file is read or written. Figures of earlier runs on the same
    /// machine stay until they are measured again.
    pub fn open(path: Option<PathBuf>, machine: String) -> io::Result<Self> {
        let (mut sections, mut other_machine) = (Vec::new(), None);
        if let Some(path) = &path {
            match std::fs::read(path.with_extension("json")) {
                Ok(raw) => {
                    let earlier: Self = serde_json::from_slice(&raw)?;
                    if earlier.machine == machine {
                        sections = earlier.sections;
                    } else {
                        other_machine = Some(earlier.machine);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { machine, sections, other_machine, path })
    }

    /// Adds a section, replaces an earlier one of the same number, and writes the report.
    ///
    /// A section that failed before its first result changes nothing.
    pub fn add(&mut self, section: ReportSection) -> io::Result<()> {
        if section.failed && section.results.is_empty() {
            return Ok(());
        }
        self.sections.retain(|earlier| earlier.number != section.number);
        self.sections.push(section);
        self.sections.sort_by_key(|section| section.number);
        match &self.path {
            Some(path) => self.write(path),
            None => Ok(()),
        }
    }

    /// Replaces the text between the two markers of the report, and writes the plots and the raw figures into files
    /// beside the report.
    fn write(&self, path: &Path) -> io::Result<()> {
        let report = std::fs::read_to_string(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(format!("# Performance\n\n{BEGIN_MARKER}\n{END_MARKER}\n")),
            _ => Err(error),
        })?;
        let (before, rest) = report
            .split_once(BEGIN_MARKER)
            .ok_or_else(|| io::Error::other("the report has no begin marker"))?;
        let (_, after) =
            rest.split_once(END_MARKER).ok_or_else(|| io::Error::other("the report has no end marker"))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // The report also holds text that people wrote, so it is replaced atomically.
        replace_file(
            path,
            &format!("{before}{BEGIN_MARKER}\n{}{END_MARKER}{after}", self.to_markdown(&name)),
        )?;
        let raw = serde_json::to_string_pretty(self)?;
        replace_file(&path.with_extension("json"), &(raw + "\n"))?;
        std::fs::write(path.with_file_name(format!("{name}.svg")), goal_chart::draw(&self.figures()))?;
        for plot in self.sections.iter().flat_map(|section| &section.results.plots) {
            let drawn = match &plot.kind {
                PlotKind::Lines { x_axis, lines } => line_chart::draw(&plot.title, x_axis, lines),
                PlotKind::Bars { unit, legend, groups } => bar_chart::draw(&plot.title, unit, legend, groups),
            };
            std::fs::write(path.with_file_name(plot_file_name(&name, plot)), drawn)?;
        }
        Ok(())
    }

    /// Returns all figures in the order of their numbers.
    fn figures(&self) -> Vec<&Figure> {
        let mut figures: Vec<_> = self.sections.iter().flat_map(|section| &section.results.figures).collect();
        figures.sort_by_key(|figure| figure.number);
        figures
    }

    fn to_markdown(&self, name: &str) -> String {
        let figures = self.figures();
        let missed = figures.iter().filter(|figure| !figure.meets_goal()).count();
        let mut text = format!(
            "\nMeasured on {}. {} of {} goals are reached.\n\n\
             | # | measured | ours | against | theirs | ratio | goal |\n|---|---|---|---|---|---|---|\n",
            self.machine,
            figures.len() - missed,
            figures.len(),
        );
        for figure in figures {
            text += &figure_row(figure);
        }
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "\nFigures are medians of the rounds; the ratio is the median of the rounds' ratios, and in brackets the \
             lowest and the highest.\n\n![Each figure relative to its goal]({name}.svg)\n"
        );
        for section in &self.sections {
            text += &section_markdown(section, name);
        }
        text
    }
}

/// Returns a figure as one line of text.
pub fn figure_line(figure: &Figure) -> String {
    let Figure { number, name, unit, .. } = figure;
    let verdict = if figure.meets_goal() { "reached" } else { "missed" };
    let goal = goal_text(figure.goal);
    match &figure.measured {
        Measurements::Ratio(rounds) => format!(
            "{number:>2}  {name}: {} against {} {unit} = {:.2} ({goal}, {verdict})\n",
            format_value(median(&rounds.ours)),
            format_value(median(&rounds.theirs)),
            figure.value(),
        ),
        Measurements::Absolute(_) => {
            format!("{number:>2}  {name}: {} {unit} ({goal}, {verdict})\n", format_value(figure.value()))
        }
    }
}

/// Returns a figure as a row of the table.
fn figure_row(figure: &Figure) -> String {
    let Figure { number, name, against, unit, .. } = figure;
    let verdict = if figure.meets_goal() { "" } else { ", **missed**" };
    let goal = goal_text(figure.goal);
    let extremes = |values: &[f64]| {
        let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
        (lowest, values.iter().copied().fold(0.0, f64::max))
    };
    match &figure.measured {
        Measurements::Ratio(rounds) => {
            let (lowest, highest) = extremes(&rounds.ratios);
            format!(
                "| {number} | {name} | {} {unit} | {against} | {} {unit} | {:.2} ({lowest:.2}–{highest:.2}) | \
                 {goal}{verdict} |\n",
                format_value(median(&rounds.ours)),
                format_value(median(&rounds.theirs)),
                figure.value(),
            )
        }
        Measurements::Absolute(values) => {
            let (lowest, highest) = extremes(values);
            format!(
                "| {number} | {name} | {} {unit} ({}–{}) | – | – | – | {goal} {unit}{verdict} |\n",
                format_value(figure.value()),
                format_value(lowest),
                format_value(highest),
            )
        }
    }
}

/// Returns the tables and plots of a section.
fn section_markdown(section: &ReportSection, name: &str) -> String {
    let mut text = String::new();
    let results = &section.results;
    if results.tables.is_empty() && results.plots.is_empty() && !section.failed {
        return text;
    }
    // Writing to a String can't fail.
    let _ = writeln!(text, "### Figure {}\n\n{}, {}.\n", section.number, section.config, section.measured_at);
    if section.failed {
        let _ = writeln!(text, "Not measured to the end.\n");
    }
    for table in &results.tables {
        text += &table_markdown(table);
    }
    for plot in &results.plots {
        let _ = writeln!(text, "![{}]({})\n", plot.title, plot_file_name(name, plot));
    }
    text
}

/// Returns a table with its title as Markdown.
pub fn table_markdown(Table { title, head, rows }: &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---".to_owned(); head.len()];
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{title}:\n\n{}{}{rows}\n", line(head), line(&rule))
}

fn plot_file_name(name: &str, plot: &Plot) -> String {
    format!("{name}-{}.svg", plot.slug)
}

fn goal_text(goal: Goal) -> String {
    match goal {
        Goal::AtLeast(least) => format!("at least {least:.2}"),
        Goal::AtMost(most) => format!("at most {most:.2}"),
    }
}

/// Formats a value with two decimals, or without decimals from 100 on.
fn format_value(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::figure::FigureResults;

    fn section(number: u32, value: f64) -> ReportSection {
        let figure = Figure {
            number,
            name: "a figure".to_owned(),
            against: String::new(),
            unit: "ms".to_owned(),
            goal: Goal::AtMost(20.0),
            measured: Measurements::Absolute(vec![value]),
        };
        let (measured_at, config) = ("2026-11-24T12:00:00Z".to_owned(), "1 round".to_owned());
        ReportSection { number, measured_at, config, failed: false, results: FigureResults::from(figure) }
    }

    #[test]
    fn keeps_text_outside_the_markers_and_earlier_figures_of_the_same_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.md");
        std::fs::write(&path, format!("before\n{BEGIN_MARKER}\nold\n{END_MARKER}\nafter\n")).unwrap();
        let open_on = |machine: &str| Report::open(Some(path.clone()), machine.to_owned()).unwrap();
        let open = || open_on("a machine");
        let mut report = open();
        report.add(section(8, 1.0)).unwrap();
        report.add(section(2, 30.0)).unwrap();
        let mut report = open();
        report.add(section(8, 21.0)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("after\n") && !text.contains("old"), "{text}");
        assert!(text.contains("| 2 | a figure | 30.00 ms"), "{text}");
        assert!(text.contains("| 8 | a figure | 21.00 ms"), "{text}");
        assert!(text.contains("0 of 2 goals"), "{text}");
        assert_eq!(open().other_machine, None);
        let other = open_on("another machine");
        assert!(other.sections.is_empty());
        assert_eq!(other.other_machine.as_deref(), Some("a machine"));
    }

    #[test]
    fn adds_a_failed_section_only_if_it_has_results() {
        let mut report = Report::open(None, String::new()).unwrap();
        report.add(section(14, 1.0)).unwrap();
        let failed = |results| ReportSection { failed: true, results, ..section(14, 1.0) };
        report.add(failed(FigureResults::default())).unwrap();
        assert!(!report.sections[0].failed);
        let tables = vec![Table::new("Steps", &["stored"])];
        report.add(failed(FigureResults { tables, ..FigureResults::default() })).unwrap();
        let text = report.to_markdown("report");
        assert!(text.contains("Not measured to the end.\n\nSteps:\n\n| stored |\n| --- |\n"), "{text}");
    }

    #[test]
    fn leaves_a_report_without_markers_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.md");
        std::fs::write(&path, "by hand").unwrap();
        let mut report = Report::open(Some(path.clone()), String::new()).unwrap();
        assert!(report.add(section(1, 1.0)).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "by hand");
    }
}
