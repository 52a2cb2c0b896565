//! `chat-api replay`: delivers the log's events to other systems.

mod destination;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chat_domain::Position;
use chat_operations::audit::time::parse_time;
use chat_operations::audit::unknown_type_diagnostics;
use chat_operations::counted::counted;
use chat_operations::replay::rate_limit::Rate;
use chat_operations::replay::{
    self, BodyFormat, Destination, EndpointOptions, ReplayError, ReplayOptions, ReplayOutcome, StopSignal,
};
use chat_ports::event_store::LogId;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::answer::{self, Answer, Severity};
use super::filter::{self, FilterOptions};
use super::progress::Progress;
use crate::data_owner::file_failure;
use crate::failure::Failure;
use crate::operator::common_args::{CommonArgs, OutputFormat};
use crate::operator::context::CommandContext;
use crate::signals::{COMMAND_GRACE_PERIOD, ShutdownSignal};
use destination::DestinationArg;

/// How long a batch is retried if neither `--give-up-after` nor `--follow` is given.
const DEFAULT_GIVE_UP_AFTER: Duration = Duration::from_mins(5);

/// Arguments of `replay`.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// Destination: https://… or http://… is an endpoint that batches are POSTed to; a name that ends in .jsonl or
    /// .ndjson is a file that lines are appended to; anything else is a shell command that reads lines from its
    /// standard input. file:NAME and cmd:PROGRAM are unambiguous
    #[arg(long, value_name = "CMD|FILE|URL", value_parser = DestinationArg::parse)]
    to: DestinationArg,
    /// File that stores the last delivered position; the same command continues from there
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Follow new events until SIGTERM or Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Maximum rate: 100/s, 600/m or 10000/h
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Endpoints: maximum number of events in a request
    #[arg(long, value_name = "EVENTS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Endpoints: format of a request's body
    #[arg(long, value_name = "SHAPE", default_value = "lines")]
    body: BodyShape,
    /// Endpoints: value of the Authorization header, such as `Bearer …`
    #[arg(long, env = "REPLAY_AUTHORIZATION", value_name = "VALUE", hide_env_values = true)]
    authorization: Option<String>,
    /// Endpoints: seconds after which a request that is not accepted ends the replay [default: 300, with --follow
    /// never]
    #[arg(long, value_name = "SECONDS")]
    give_up_after: Option<u64>,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    filter: FilterOptions,
    /// Only events recorded at this time or earlier
    #[arg(long, value_name = "TIME", help_heading = "Which events")]
    until: Option<String>,
}

/// Format of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BodyShape {
    /// One event a line: application/x-ndjson
    Lines,
    /// An array of events: application/json
    Array,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  chat-api replay --to 'jq -c .type'
  chat-api replay --to events.jsonl --checkpoint events.position
  chat-api replay --to https://example.com/log --checkpoint position --follow

Each event is a JSON object: position, stream, revision, id, type, schema_version, recorded_at, data, metadata.
Programs and endpoints may get events again after an interruption; a file with a checkpoint does not.";

pub(super) async fn run(command: ReplayArgs) -> ExitCode {
    answer::print(command.common.output, replay(&command).await)
}

async fn replay(command: &ReplayArgs) -> Result<Answer, Failure> {
    command.check_filter()?;
    let context = CommandContext::open_unless_backup(&command.common).await?;
    answer::report_log_warning();
    let filter_params = command.filter.resolve(command.until.as_deref(), &*context.event_store).await?;
    let filter_json = serde_json::to_string(&filter_params);
    let filter_json =
        filter_json.map_err(|error| Failure::because("the filter can't be written as JSON", &error))?;
    let filter = filter::parse(filter_params)?;
    let log = context.event_store.log_id().await;
    let log = log.map_err(|error| Failure::because("the event log can't be read", &error))?;
    let answers_in_json = command.common.output == OutputFormat::Json;
    let destination = command.destination(log, answers_in_json)?;
    let head = context.event_store.head().await;
    let head = head.map_err(|error| Failure::because("the event log can't be read", &error))?;
    let after = filter.after.unwrap_or(Position::START);
    let measures_positions = context.event_store.has_contiguous_positions() && !command.follow;
    let mut progress =
        Progress::start("Replaying", measures_positions.then(|| head.get().saturating_sub(after.get())));
    let (sender, mut stop) = StopSignal::channel();
    let signal = ShutdownSignal::listen(COMMAND_GRACE_PERIOD)?.received();
    let signal_task = tokio::spawn(async move {
        signal.await;
        // Fails only if the replay has already ended.
        let _ = sender.send(true);
    });
    let replay_options = ReplayOptions {
        after,
        until: filter.before.map(|before| Position::new(before.get().saturating_sub(1))),
        filter: &|event| filter.matches(event),
        filter_description: &filter_json,
        rate: command.rate,
        follow: command.follow,
        checkpoint: command.checkpoint.clone(),
        on_status: &|sentence| {
            // Standard error may be closed.
            let _ = writeln!(std::io::stderr(), "{sentence}");
        },
    };
    let mut on_progress = |events, position: Position| {
        progress.set_done(if measures_positions {
            position.get().saturating_sub(after.get())
        } else {
            events
        });
    };
    let outcome =
        replay::run(&*context.event_store, &replay_options, &destination, &mut stop, &mut on_progress).await;
    drop(progress);
    signal_task.abort();
    match outcome {
        Ok(outcome) => {
            let unknown_types: Vec<String> = filter.unknown_types().map(str::to_owned).collect();
            let (events, stopped) = (outcome.events, outcome.stopped);
            let answer = command.answer(outcome)?.with_diagnostics(unknown_type_diagnostics(&unknown_types));
            if events > 0 || stopped {
                return Ok(answer);
            }
            filter::warn_of_unmatched_names(answer, &*context.event_store, &filter).await
        }
        Err((error, outcome)) => {
            let problem = outcome.map_or_else(
                || "nothing was replayed".to_owned(),
                |ReplayOutcome { events, position, .. }| {
                    let checkpoint_note =
                        if command.checkpoint.is_some() { ", as the checkpoint says" } else { "" };
                    format!(
                        "the replay is incomplete; {} sent, delivered up to position {position}{checkpoint_note}",
                        counted(events, "event")
                    )
                },
            );
            Err(match &error {
                ReplayError::File { path, source } => {
                    file_failure(&format!("{problem}: {}", path.display()), path, source)
                }
                _ => Failure::because(problem, &error),
            })
        }
    }
}

impl ReplayArgs {
    fn check_filter(&self) -> Result<(), Failure> {
        if let Some(until) = &self.until
            && parse_time(until).is_none()
        {
            return Err(Failure::new("--until must be a time such as 2026-09-21T14:13:20Z, or a date"));
        }
        self.filter.check(self.until.as_deref())
    }

    fn destination(&self, log: LogId, answers_in_json: bool) -> Result<Destination, Failure> {
        let url = match &self.to {
            DestinationArg::Endpoint(url) => url,
            // Of the options for endpoints, only --give-up-after is refused. REPLAY_AUTHORIZATION may be set for other
            // replays, and --batch and --body have defaults, so their values do not show whether they were given.
            DestinationArg::Program(_) | DestinationArg::File(_) if self.give_up_after.is_some() => {
                return Err(Failure::new("--give-up-after is for endpoints: http://… or https://…"));
            }
            // With `-o json`, standard output contains only the answer, so the program writes to standard error.
            DestinationArg::Program(command) => {
                return Ok(Destination::Program { command: command.clone(), to_stderr: answers_in_json });
            }
            DestinationArg::File(path) => return Ok(Destination::File(path.clone())),
        };
        let unusable = |error| Failure::because("--to can't be used", &error);
        let format = match self.body {
            BodyShape::Lines => BodyFormat::NdJson,
            BodyShape::Array => BodyFormat::JsonArray,
        };
        let mut options = EndpointOptions::new(url, log)
            .map_err(unusable)?
            .body_format(format)
            .max_batch_events(self.batch);
        if let Some(authorization) = &self.authorization {
            options = options.authorization(authorization).map_err(unusable)?;
        }
        if let Some(time) = self.endpoint_give_up_after() {
            options = options.give_up_after(time);
        }
        Ok(Destination::Endpoint(options))
    }

    fn answer(&self, outcome: ReplayOutcome) -> Result<Answer, Failure> {
        let ReplayOutcome { events, position, stopped } = outcome;
        let text = format!("{}, up to position {position}", counted(events, "event"));
        let data = json!({ "events": events, "position": position, "stopped": stopped });
        // Standard output already contains the program's output.
        let mut answer = if matches!(self.to, DestinationArg::Program(_)) {
            Answer::new(&data, "")?.with_diagnostic(Severity::Note, text)
        } else {
            Answer::new(&data, text)?
        };
        if stopped {
            let advice = match self.checkpoint {
                Some(_) => "it was stopped; the same command continues from there",
                None => "it was stopped; --after continues from there",
            };
            answer = answer.with_diagnostic(Severity::Note, advice);
        }
        Ok(answer)
    }

    fn endpoint_give_up_after(&self) -> Option<Duration> {
        match self.give_up_after {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => (!self.follow).then_some(DEFAULT_GIVE_UP_AFTER),
        }
    }
}
