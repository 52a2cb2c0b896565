//! `audit tail`: shows the last events, and with `--follow` also new ones.

use std::process::ExitCode;
use std::sync::Arc;

use chat_operations::audit::{self, AuditedEvent, unknown_type_diagnostics, unmatched_names};
use clap::Args;
use serde_json::json;

use super::super::answer::{self, Diagnostic, Status};
use super::super::table::Table;
use super::filter::AuditFilterArgs;
use super::render;
use crate::failure::Failure;
use crate::operator::common_args::{CommonArgs, OutputFormat};
use crate::operator::context::{CommandContext, event_store_failure};
use crate::operator::stdout;
use crate::signals::{PRINTING_GRACE_PERIOD, ShutdownSignal};

/// Arguments of `audit tail`.
#[derive(Args)]
pub(crate) struct TailArgs {
    /// Follow new events until Ctrl-C or SIGTERM
    #[arg(short, long)]
    follow: bool,
    /// Number of past events to begin with
    #[arg(short = 'n', long, value_name = "EVENTS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    last: u64,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    filter: AuditFilterArgs,
}

pub(super) async fn run(arguments: &TailArgs) -> ExitCode {
    match tail(arguments).await {
        Ok(code) => code,
        Err(failure) => answer::print(arguments.common.output, Err(failure)),
    }
}

async fn tail(arguments: &TailArgs) -> Result<ExitCode, Failure> {
    arguments.filter.check()?;
    // Without --follow, no handler is installed, so a signal ends the process at once.
    let signal = arguments.follow.then(|| ShutdownSignal::listen(PRINTING_GRACE_PERIOD)).transpose()?;
    let stop = async move {
        match signal {
            Some(signal) => signal.received().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stop);
    let count = usize::try_from(arguments.last).unwrap_or(usize::MAX);
    let opening = async {
        let context = CommandContext::open(&arguments.common).await?;
        let log = &context.event_store;
        let filter = arguments.filter.parse(&**log).await?;
        let unknown_types: Vec<String> = filter.unknown_types().map(str::to_owned).collect();
        let mut warnings = unknown_type_diagnostics(&unknown_types);
        let max_scanned_events = u64::MAX;
        let started =
            audit::Tail::start_at_end(Arc::clone(log), filter.clone(), count, max_scanned_events).await;
        let (last_events, tail) = started.map_err(event_store_failure)?;
        if last_events.is_empty() && count > 0 {
            warnings.extend(unmatched_names(&**log, &filter).await.map_err(event_store_failure)?);
        }
        Ok::<_, Failure>((context, last_events, tail, warnings))
    };
    let (_context, last_events, mut tail, warnings) = tokio::select! {
        opened = opening => opened?,
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    let output = arguments.common.output;
    if output == OutputFormat::Table {
        answer::report_diagnostics(&warnings);
    }
    let mut writer = EventWriter { output, has_written: false, diagnostics: warnings };
    if let Err(exit_code) = writer.write(&last_events) {
        return Ok(exit_code);
    }
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let batch = tokio::select! {
            batch = tail.next_batch() => batch.map_err(event_store_failure)?,
            () = &mut stop => return Ok(ExitCode::SUCCESS),
            () = stdout::closed() => return Ok(stdout::broken_pipe_exit_code()),
        };
        if let Err(exit_code) = writer.write(&batch.events) {
            return Ok(exit_code);
        }
    }
}

/// Writes events to standard output: as rows of a table, or as one line of JSON for each batch.
struct EventWriter {
    output: OutputFormat,
    /// Whether anything was written: the headings of the table, or a line of JSON.
    has_written: bool,
    /// Warnings about the filter, for the first line of JSON.
    diagnostics: Vec<Diagnostic>,
}

impl EventWriter {
    /// Writes events. If standard output can't be written, fails with the exit code of the process.
    fn write(&mut self, events: &[AuditedEvent]) -> Result<(), ExitCode> {
        let text = match self.output {
            OutputFormat::Table => {
                let Table { headings, rows } = render::events_table_parts(events);
                if self.has_written { rows } else { headings + &rows }
            }
            // A line without events is written only as the first one, because that one carries the diagnostics.
            OutputFormat::Json if events.is_empty() && self.has_written => String::new(),
            OutputFormat::Json => {
                let diagnostics = std::mem::take(&mut self.diagnostics);
                answer::envelope(Status::Ok, &json!({ "events": events }), &diagnostics) + "\n"
            }
        };
        self.has_written = true;
        stdout::write(text.as_bytes())
    }
}
