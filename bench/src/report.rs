//! Results on stdout, as tables for people or as JSON.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::Verdict;
use crate::latency::Percentiles;
use crate::load::visibility::Visibility;
use crate::tally::Tally;
use crate::verify::{AppReport, VerifyReport};

/// Findings shown of one app; JSON has them all.
const MAX_FINDINGS_PER_APP: usize = 5;

/// How to print a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What came of a load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Messages of the corpus.
    pub messages: usize,
    /// Those that were answered with 201.
    pub acknowledged: usize,
    /// From the start to the last acknowledgement, in seconds.
    pub seconds: f64,
    /// From the time a message was due to its 201, in microseconds, where a rate was asked for.
    #[serde(rename = "latency_us")]
    pub latency: Option<Percentiles>,
    /// From the time a message was sent to its 201, in microseconds.
    #[serde(rename = "service_time_us")]
    pub service_time: Percentiles,
    /// Requests that were sent again, by why.
    pub retried: Tally,
    /// Messages that were not acknowledged, by why.
    pub failed: Tally,
    /// How long until everything could be read and found.
    #[serde(flatten)]
    pub visibility: Visibility,
}

impl LoadReport {
    /// Fine where everything was acknowledged and seen.
    pub fn verdict(&self) -> Verdict {
        if self.acknowledged == self.messages && self.visibility.problems.is_empty() {
            Verdict::Fine
        } else {
            Verdict::FigureResults
        }
    }

    /// Acknowledged messages a second.
    #[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
    fn throughput(&self) -> f64 {
        if self.seconds > 0.0 { self.acknowledged as f64 / self.seconds } else { 0.0 }
    }
}

#[derive(Serialize)]
struct LoadJson<'a> {
    #[serde(flatten)]
    load: &'a LoadReport,
    messages_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<&'a VerifyReport>,
}

/// Prints what came of a load, and of verifying it.
pub fn print_load(
    load: &LoadReport,
    verification: Option<&VerifyReport>,
    format: OutputFormat,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format == OutputFormat::Json {
        let json = LoadJson { load, messages_per_second: load.throughput(), verification };
        return write_json(&mut out, &json);
    }
    write_load_table(&mut out, load)?;
    if let Some(verification) = verification {
        writeln!(out)?;
        write_verification_table(&mut out, verification)?;
    }
    Ok(())
}

/// Prints what came of verifying.
pub fn print_verification(report: &VerifyReport, format: OutputFormat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        OutputFormat::Json => write_json(&mut out, report),
        OutputFormat::Table => write_verification_table(&mut out, report),
    }
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn write_load_table(out: &mut impl Write, load: &LoadReport) -> io::Result<()> {
    writeln!(out, "messages      {} of {} acknowledged", load.acknowledged, load.messages)?;
    writeln!(out, "duration      {:.3} s", load.seconds)?;
    writeln!(out, "throughput    {:.0} messages/s", load.throughput())?;
    if let Some(latency) = load.latency {
        write_percentiles(out, "latency", latency, "from when it was due")?;
    }
    write_percentiles(out, "service time", load.service_time, "from when it was sent")?;
    let after = |millis: Option<f64>| match millis {
        Some(millis) => format!("{millis:.1} ms after the last 201"),
        None => "not seen".to_owned(),
    };
    writeln!(out, "readable      {}", after(load.visibility.readable_after_ms))?;
    writeln!(out, "searchable    {}", after(load.visibility.searchable_after_ms))?;
    for (title, tally) in [("retried", &load.retried), ("failed", &load.failed)] {
        writeln!(out, "{title:<13} {}", tally.total())?;
        for (kind, count) in tally.iter() {
            writeln!(out, "              {count} × {kind}")?;
        }
    }
    load.visibility.problems.iter().try_for_each(|problem| writeln!(out, "problem       {problem}"))
}

fn write_percentiles(out: &mut impl Write, title: &str, of: Percentiles, note: &str) -> io::Result<()> {
    let shown = [("p50", of.p50), ("p90", of.p90), ("p99", of.p99), ("p99.9", of.p99_9), ("max", of.max)]
        .map(|(name, micros)| format!("{name} {}.{:03}", micros / 1_000, micros % 1_000));
    writeln!(out, "{title:<13} {} ms, {note}", shown.join("  "))
}

fn write_verification_table(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    let width = report.apps.iter().map(|app| app.app.chars().count()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "{:<width$} {:>6} {:>9} {:>6} {:>6} {:>6} {:>7} {:>8} {:>8}",
        "app", "chats", "messages", "pages", "words", "starts", "insides", "hits", "findings"
    )?;
    let mut total = AppReport { app: "total".to_owned(), ..AppReport::default() };
    for app in &report.apps {
        write_app_row(out, width, app)?;
        total.chats += app.chats;
        total.messages += app.messages;
        total.pages += app.pages;
        total.words += app.words;
        total.starts += app.starts;
        total.insides += app.insides;
        total.hits += app.hits;
        total.findings.extend(app.findings.iter().cloned());
    }
    write_app_row(out, width, &total)?;
    for app in &report.apps {
        for finding in app.findings.iter().take(MAX_FINDINGS_PER_APP) {
            writeln!(out, "{}: {finding}", app.app)?;
        }
        if let Some(more) = app.findings.len().checked_sub(MAX_FINDINGS_PER_APP).filter(|more| *more > 0) {
            writeln!(out, "{}: and {more} more", app.app)?;
        }
    }
    Ok(())
}

fn write_app_row(out: &mut impl Write, width: usize, app: &AppReport) -> io::Result<()> {
    writeln!(
        out,
        "{:<width$} {:>6} {:>9} {:>6} {:>6} {:>6} {:>7} {:>8} {:>8}",
        app.app,
        app.chats,
        app.messages,
        app.pages,
        app.words,
        app.starts,
        app.insides,
        app.hits,
        app.findings.len()
    )
}
