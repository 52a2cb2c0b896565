//! `audit tail`

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use chat_operations::audit::{self, AuditedEvent, unknown_type_diagnostics};
use clap::Args;

use super::super::{Common, Output, Stage};
use super::filter::Filter;
use super::{shown, unreadable};
use crate::failure::Failure;
use crate::signals;

/// `audit tail`
#[derive(Args)]
pub(crate) struct Tail {
    /// Go on with what comes, until Ctrl-C or SIGTERM
    #[arg(short, long)]
    follow: bool,
    /// How many events to begin with
    #[arg(short = 'n', long, value_name = "EVENTS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    last: u64,
    /// As with other verbs, but json is one event a line, without an envelope
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    filter: Filter,
}

pub(super) async fn run(arguments: &Tail) -> ExitCode {
    match tail(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn tail(arguments: &Tail) -> Result<(), Failure> {
    let filter = arguments.filter.parse()?;
    let misspelt: Vec<String> = filter.unknown_types().map(str::to_owned).collect();
    for said in unknown_type_diagnostics(&misspelt) {
        let _ = writeln!(io::stderr(), "warning: {}", said.message);
    }
    // Who doesn't follow is ended by the signal itself.
    let stop = arguments.follow.then(signals::stop).transpose()?;
    let stop = async move {
        match stop {
            Some(stop) => stop.await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stop);
    let count = usize::try_from(arguments.last).unwrap_or(usize::MAX);
    let opening = async {
        let stage = Stage::open(&arguments.common).await?;
        let last = audit::Tail::start_at_end(Arc::clone(&stage.log), filter, count, u64::MAX).await;
        Ok::<_, Failure>((stage, last.map_err(unreadable)?))
    };
    let (_stage, (last, mut tail)) = tokio::select! {
        opened = opening => opened?,
        () = &mut stop => return Ok(()),
    };
    let mut lines = Lines { output: arguments.common.output, begun: false };
    if !lines.write(&last)? || !arguments.follow {
        return Ok(());
    }
    loop {
        let news = tokio::select! {
            news = tail.next_batch() => news.map_err(unreadable)?,
            () = &mut stop => return Ok(()),
        };
        if !lines.write(&news.events)? {
            return Ok(());
        }
    }
}

/// Events, line by line.
struct Lines {
    output: Output,
    begun: bool,
}

impl Lines {
    /// Writes events; whether anybody still reads them.
    fn write(&mut self, events: &[AuditedEvent]) -> Result<bool, Failure> {
        let text = match self.output {
            Output::Table if events.is_empty() && self.begun => String::new(),
            Output::Table => {
                let table = shown::events(events);
                // The names of the columns are told once.
                let lines = table.split_once('\n').filter(|_| self.begun);
                lines.map_or_else(|| table.clone(), |(_, lines)| lines.to_owned())
            }
            Output::Json => json_lines(events)?,
        };
        self.begun = true;
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
