//! Standard output: text, tables and JSON.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::latency::Percentiles;

/// The format of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes a text to standard output and flushes it.
pub fn write_stdout(text: &str) -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Writes a value as indented JSON and a line break.
pub fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Writes percentiles as one row in milliseconds. The note says at which moment the measured times begin.
pub fn write_percentiles(
    out: &mut impl Write,
    title: &str,
    percentiles: Percentiles,
    note: &str,
) -> io::Result<()> {
    let Percentiles { p50, p90, p99, p99_9, max } = percentiles;
    let columns = [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p99_9), ("max", max)]
        .map(|(name, micros)| format!("{name} {}.{:03}", micros / 1_000, micros % 1_000));
    writeln!(out, "{title:<13} {} ms, {note}", columns.join("  "))
}
