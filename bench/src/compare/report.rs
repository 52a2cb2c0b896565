//! The report: a table and plots for people, the raw figures for programs.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::rounds::median;
use super::setting::{CONNECTIONS, Setting};
use super::{Figure, Goal};

/// One figure in one line.
pub fn line(figure: &Figure) -> String {
    let (ours, theirs) = (median(&figure.rounds.ours), median(&figure.rounds.theirs));
    let ratio = figure.rounds.ratio();
    let verdict = if figure.goal.reached(ratio) { "reached" } else { "missed" };
    let Figure { number, name, unit, .. } = figure;
    format!(
        "{number:>2}  {name}: {ours:.0} against {theirs:.0} {unit} = {ratio:.2} ({}, {verdict})\n",
        goal(figure.goal)
    )
}

/// Writes the table into the report, between its two marks, and the plots and the raw figures beside it.
pub fn write(path: &Path, figures: &[Figure], setting: &Setting) -> io::Result<()> {
    let report = std::fs::read_to_string(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(format!("# Performance\n\n{BEGIN}\n{END}\n")),
        _ => Err(error),
    })?;
    let (before, rest) =
        report.split_once(BEGIN).ok_or_else(|| io::Error::other("the report has no mark"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| io::Error::other("the report has no second mark"))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let table = table(figures, setting, &name);
    std::fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    let raw = serde_json::to_string_pretty(figures).map_err(io::Error::other)?;
    std::fs::write(path.with_extension("json"), raw + "\n")?;
    std::fs::write(path.with_extension("svg"), plot(figures))
}

const BEGIN: &str = "<!-- figures: written by chat-bench compare -->";
const END: &str = "<!-- end of figures -->";

fn goal(goal: Goal) -> String {
    match goal {
        Goal::AtLeast(least) => format!("at least {least}"),
        Goal::AtMost(most) => format!("at most {most}"),
    }
}

fn table(figures: &[Figure], setting: &Setting, name: &str) -> String {
    let mut table = format!(
        "\n{} rounds, {} s a side, {CONNECTIONS} connections. Figures are medians; the ratio is the median of the \
         rounds' ratios, and in brackets the lowest and the highest.\n\n\
         | # | measured | ours | against | theirs | ratio | wanted |\n|---|---|---|---|---|---|---|\n",
        setting.rounds,
        setting.duration.as_secs(),
    );
    for figure in figures {
        let Figure { number, name, against, unit, rounds, .. } = figure;
        let (ours, theirs, ratio) = (median(&rounds.ours), median(&rounds.theirs), rounds.ratio());
        let lowest = rounds.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = rounds.ratios.iter().copied().fold(0.0, f64::max);
        let verdict = if figure.goal.reached(ratio) { "" } else { ", **missed**" };
        // Writing to a String can't fail.
        let _ = writeln!(
            table,
            "| {number} | {name} | {ours:.0} {unit} | {against} | {theirs:.0} {unit} | {ratio:.2} ({lowest:.2}–{highest:.2}) | {}{verdict} |",
            goal(figure.goal),
        );
    }
    let _ = writeln!(table, "\n![Ratios]({name}.svg)\n");
    table
}

/// Each figure's ratio as a bar, with its goal as a line.
fn plot(figures: &[Figure]) -> String {
    const WIDTH: f64 = 900.0;
    const ROW: f64 = 34.0;
    const LABEL: f64 = 430.0;
    let longest = figures.iter().map(|figure| match figure.goal {
        Goal::AtLeast(goal) | Goal::AtMost(goal) => figure.rounds.ratio().max(goal),
    });
    let scale = (WIDTH - LABEL - 80.0) / longest.fold(0.01, f64::max);
    let height = ROW * figures.len() as f64 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, figure) in figures.iter().enumerate() {
        let (y, ratio) = (10.0 + ROW * row as f64, figure.rounds.ratio());
        let (Goal::AtLeast(goal) | Goal::AtMost(goal)) = figure.goal;
        let colour = if figure.goal.reached(ratio) { "#2a7f62" } else { "#b5502f" };
        let (bar, mark) = (ratio * scale, LABEL + goal * scale);
        // As above.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} {}</text>\
             <rect x=\"{LABEL}\" y=\"{}\" width=\"{bar:.1}\" height=\"20\" fill=\"{colour}\"/>\
             <line x1=\"{mark:.1}\" x2=\"{mark:.1}\" y1=\"{y}\" y2=\"{}\" stroke=\"black\" stroke-dasharray=\"3 2\"/>\
             <text x=\"{:.1}\" y=\"{}\">{ratio:.2}</text>",
            LABEL - 10.0,
            y + 19.0,
            figure.number,
            figure.name,
            y + 4.0,
            y + 28.0,
            LABEL + bar.max(goal * scale) + 8.0,
            y + 19.0,
        );
    }
    svg.push_str("</svg>\n");
    svg
}
