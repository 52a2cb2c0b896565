//! The result of a verification, as a table or as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::output::{OutputFormat, write_json};
use crate::verdict::Verdict;

/// The maximal number of findings of one app in a table. JSON output has all findings.
const MAX_FINDINGS_PER_APP: usize = 5;

/// The result of a verification.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// The result of each app, in the manifest's order.
    pub apps: Vec<AppReport>,
}

/// The result of verifying one app.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AppReport {
    /// The app's name.
    pub app: String,
    /// Chats that were checked.
    pub chats: usize,
    /// Messages of the chats that read the same forwards and backwards.
    pub messages: usize,
    /// Pages of messages that were read, in both directions.
    pub pages: usize,
    /// Searches for whole words: one for each spelling and scope.
    pub words: usize,
    /// Searches for prefixes.
    #[serde(rename = "starts")]
    pub prefixes: usize,
    /// Searches for substrings.
    #[serde(rename = "insides")]
    pub substrings: usize,
    /// Hits of those searches that had no finding.
    pub hits: usize,
    /// Errors that were found.
    pub findings: Vec<String>,
}

impl VerifyReport {
    /// Returns [`Verdict::Passed`] if there are no findings.
    pub fn verdict(&self) -> Verdict {
        Verdict::from_passed(self.apps.iter().all(|app| app.findings.is_empty()))
    }

    /// Prints the result.
    pub fn print(&self, format: OutputFormat) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match format {
            OutputFormat::Json => write_json(&mut out, self),
            OutputFormat::Table => write_verification_table(&mut out, self),
        }
    }
}

/// Writes a row for each app, a row with the totals, and the first findings of each app.
pub fn write_verification_table(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    let width = report.apps.iter().map(|app| app.app.chars().count()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "{:<width$} {:>6} {:>9} {:>6} {:>6} {:>8} {:>10} {:>8} {:>8}",
        "app", "chats", "messages", "pages", "words", "prefixes", "substrings", "hits", "findings"
    )?;
    let mut total = AppReport { app: "total".to_owned(), ..AppReport::default() };
    for app in &report.apps {
        write_app_row(out, width, app)?;
        total.chats += app.chats;
        total.messages += app.messages;
        total.pages += app.pages;
        total.words += app.words;
        total.prefixes += app.prefixes;
        total.substrings += app.substrings;
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
        "{:<width$} {:>6} {:>9} {:>6} {:>6} {:>8} {:>10} {:>8} {:>8}",
        app.app,
        app.chats,
        app.messages,
        app.pages,
        app.words,
        app.prefixes,
        app.substrings,
        app.hits,
        app.findings.len()
    )
}
