//! `audit tail`: shows the last events, and with `--follow` also new ones.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use chat_operations::audit::{self, AuditedEvent, unknown_type_diagnostics};
use clap::Args;

use super::filter::AuditFilterArgs;
use super::render;
use crate::failure::Failure;
use crate::operator::common_args::{CommonArgs, OutputFormat};
use crate::operator::context::{CommandContext, event_store_failure};
use crate::signals;

/// Arguments of `audit tail`.
#[derive(Args)]
pub(crate) struct TailArgs {
    /// Follow new events until Ctrl-C or SIGTERM
    #[arg(short, long)]
    follow: bool,
    /// Number of past events to begin with
    #[arg(short = 'n', long, value_name = "EVENTS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    last: u64,
    /// As with the other commands, but json is one event a line without an envelope
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    filter: AuditFilterArgs,
}

pub(super) async fn run(arguments: &TailArgs) -> ExitCode {
    match tail(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn tail(arguments: &TailArgs) -> Result<(), Failure> {
    let filter = arguments.filter.parse()?;
    let unknown_types: Vec<String> = filter.unknown_types().map(str::to_owned).collect();
    for diagnostic in unknown_type_diagnostics(&unknown_types) {
        let _ = writeln!(io::stderr(), "warning: {}", diagnostic.message);
    }
    // Without --follow, no handler is installed, so a signal ends the process at once.
    let stop = arguments.follow.then(signals::shutdown_signal).transpose()?;
    let stop = async move {
        match stop {
            Some(stop) => stop.await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stop);
    let count = usize::try_from(arguments.last).unwrap_or(usize::MAX);
    let opening = async {
        let context = CommandContext::open(&arguments.common).await?;
        let last = audit::Tail::start_at_end(Arc::clone(&context.event_store), filter, count, u64::MAX).await;
        Ok::<_, Failure>((context, last.map_err(event_store_failure)?))
    };
    let (_context, (last, mut tail)) = tokio::select! {
        opened = opening => opened?,
        () = &mut stop => return Ok(()),
    };
    let mut writer = EventWriter { output: arguments.common.output, header_written: false };
    if !writer.write(&last)? || !arguments.follow {
        return Ok(());
    }
    loop {
        let batch = tokio::select! {
            batch = tail.next_batch() => batch.map_err(event_store_failure)?,
            () = &mut stop => return Ok(()),
        };
        if !writer.write(&batch.events)? {
            return Ok(());
        }
    }
}

/// Writes events to standard output, one on each line.
struct EventWriter {
    output: OutputFormat,
    header_written: bool,
}

impl EventWriter {
    /// Writes events. Returns `false` once the reader has closed the pipe.
    fn write(&mut self, events: &[AuditedEvent]) -> Result<bool, Failure> {
        let text = match self.output {
            OutputFormat::Table if events.is_empty() && self.header_written => String::new(),
            OutputFormat::Table => {
                let table = render::events_table(events);
                // The header is written only once.
                let lines = table.split_once('\n').filter(|_| self.header_written);
                lines.map_or_else(|| table.clone(), |(_, lines)| lines.to_owned())
            }
            OutputFormat::Json => json_lines(events)?,
        };
        self.header_written = true;
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::because("the events can't be written", &error)),
        }
    }
}

fn json_lines(events: &[AuditedEvent]) -> Result<String, Failure> {
    let mut lines = String::new();
    for event in events {
        let line = serde_json::to_string(event)
            .map_err(|error| Failure::because("an event can't be written as JSON", &error))?;
        lines.push_str(&line);
        lines.push('\n');
    }
    Ok(lines)
}
