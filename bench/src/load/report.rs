//! The result of a load, as a table or as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::visibility::Visibility;
use crate::latency::Percentiles;
use crate::output::{OutputFormat, write_json, write_percentiles};
use crate::tally::Tally;
use crate::verdict::Verdict;
use crate::verify::report::{VerifyReport, write_verification_table};

/// The result of a load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Messages of the corpus.
    pub messages: usize,
    /// Messages that were answered with 201.
    pub acknowledged: usize,
    /// Seconds from the start to the last acknowledgement.
    pub seconds: f64,
    /// The time until a message's 201, from when the message was due, in microseconds. `None` if no rate was set.
    #[serde(rename = "latency_us")]
    pub latency: Option<Percentiles>,
    /// The time until a message's 201, from when the message was sent, in microseconds.
    #[serde(rename = "service_time_us")]
    pub service_time: Percentiles,
    /// Repeated requests, by cause.
    pub retried: Tally,
    /// Messages that were not acknowledged, by cause.
    pub failed: Tally,
    /// Time until every message could be read and found.
    #[serde(flatten)]
    pub visibility: Visibility,
}

#[derive(Serialize)]
struct LoadJson<'a> {
    #[serde(flatten)]
    load: &'a LoadReport,
    messages_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<&'a VerifyReport>,
}

impl LoadReport {
    /// Returns [`Verdict::Passed`] if every message was acknowledged and the queries for visibility succeeded.
    pub fn verdict(&self) -> Verdict {
        Verdict::from_passed(self.acknowledged == self.messages && self.visibility.problems.is_empty())
    }

    /// Prints the result, and then the result of the verification.
    pub fn print(&self, verification: Option<&VerifyReport>, format: OutputFormat) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if format == OutputFormat::Json {
            let json = LoadJson { load: self, messages_per_second: self.throughput(), verification };
            return write_json(&mut out, &json);
        }
        self.write_table(&mut out)?;
        if let Some(verification) = verification {
            writeln!(out)?;
            write_verification_table(&mut out, verification)?;
        }
        Ok(())
    }

    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "messages      {} of {} acknowledged", self.acknowledged, self.messages)?;
        writeln!(out, "duration      {:.3} s", self.seconds)?;
        writeln!(out, "throughput    {:.0} messages/s", self.throughput())?;
        if let Some(latency) = self.latency {
            write_percentiles(out, "latency", latency, "from when it was due")?;
        }
        write_percentiles(out, "service time", self.service_time, "from when it was sent")?;
        let after = |millis: Option<f64>| match millis {
            Some(millis) => format!("{millis:.1} ms after the last 201"),
            None => "not seen".to_owned(),
        };
        writeln!(out, "readable      {}", after(self.visibility.readable_after_ms))?;
        writeln!(out, "searchable    {}", after(self.visibility.searchable_after_ms))?;
        for (title, tally) in [("retried", &self.retried), ("failed", &self.failed)] {
            writeln!(out, "{title:<13} {}", tally.total())?;
            for (cause, count) in tally.iter() {
                writeln!(out, "              {count} × {cause}")?;
            }
        }
        self.visibility.problems.iter().try_for_each(|problem| writeln!(out, "problem       {problem}"))
    }

    /// Returns acknowledged messages per second.
    #[expect(clippy::cast_precision_loss, reason = "printed with a few digits")]
    fn throughput(&self) -> f64 {
        if self.seconds > 0.0 { self.acknowledged as f64 / self.seconds } else { 0.0 }
    }
}
