//! `dead-letters retry` applies dead letters again. `dead-letters discard` excludes one from the projections.

use std::time::Duration;

use chat_domain::Position;
use chat_operations::counted::counted;
use chat_operations::dead_letters::dry_run::{MAX_STREAMS, dry_run};
use chat_operations::dead_letters::missing_dead_letter;
use chat_operations::dead_letters::resolve::{
    DeadLetterSelection, Resolution, ResolutionOutcome, blocked_streams, plan_discard, resolve,
};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::render::{dry_runs_text, outcomes_text};
use super::scope::{
    Scope, ScopeArgs, WaitArgs, describe_unknown_stream, refuse_abbreviated_stream, resolve_stream,
};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::common_args::ExecutionArgs;
use crate::operator::projections::common::projections_failure;
use crate::operator::server::{self, ServerAction, ServerArgs};
use crate::operator::terminal_text::abbreviated_stream;

#[derive(Args)]
pub(crate) struct RetryOptions {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    execution: ExecutionArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    pub(super) scope: ScopeArgs,
}

/// A report of a server on blocked streams.
#[derive(Deserialize)]
struct Steps<T> {
    steps: Vec<T>,
}

/// Arguments that select dead letters.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct SelectionArgs {
    /// The dead letters of the stream of the event at this position; for an app's stream, also those of its chats
    position: Option<u64>,
    /// The dead letters of this stream; for an app's stream, also those of its chats
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub(crate) struct DiscardOptions {
    /// The event's position
    position: u64,
    #[command(flatten)]
    execution: ExecutionArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    pub(super) scope: ScopeArgs,
}

pub(super) async fn retry(options: &RetryOptions) -> Result<Answer, Failure> {
    let SelectionArgs { position, stream, all } = &options.selection;
    if options.server.is_named() {
        refuse_abbreviated_stream(stream.as_deref())?;
    }
    let at_server = ServerAction {
        path: "dead-letters/retries",
        options: json!({
            "projections": server::projection_names(&options.scope.names()),
            "position": position,
            "stream": stream,
            "all": all,
        }),
        dry_run_text: |dry_runs: &Steps<_>| dry_runs_text(&dry_runs.steps),
        report_text: |outcomes: &Steps<_>| outcomes_text(&outcomes.steps),
    };
    if let Some(answer) = options.server.act(at_server, &options.execution).await {
        return answer;
    }
    let scope = options.scope.open_for_action().await?;
    let stream = resolve_stream(&scope.projections, options.selection.stream.as_deref()).await?;
    let dead_letters = match &options.selection {
        SelectionArgs { position: Some(position), .. } => {
            DeadLetterSelection::Event(Position::new(*position))
        }
        SelectionArgs { .. } => stream.map_or(DeadLetterSelection::All, DeadLetterSelection::Stream),
    };
    let blocked_streams = blocked_streams(&scope.projections, &scope.names, &dead_letters)
        .await
        .map_err(projections_failure)?;
    let steps: Vec<_> = blocked_streams
        .into_iter()
        .map(|blocked_stream| Resolution { blocked_stream, discards_first: false })
        .collect();
    if steps.is_empty() {
        return no_dead_letters(&scope, dead_letters).await;
    }
    execute_or_dry_run(scope, steps, &options.execution, options.wait.timeout()).await
}

/// Answers that there is nothing to retry: a failure if the arguments name a dead letter or a stream.
async fn no_dead_letters(scope: &Scope, selection: DeadLetterSelection) -> Result<Answer, Failure> {
    match selection {
        DeadLetterSelection::Event(position) => {
            let missing = missing_dead_letter(&scope.projections, &scope.names, position).await;
            Err(Failure::new(missing.map_err(projections_failure)?))
        }
        DeadLetterSelection::Stream(stream) => {
            let unknown = describe_unknown_stream(&scope.projections, &stream).await?;
            Err(Failure::new(unknown.unwrap_or_else(|| {
                format!("the stream {} has no dead letters", abbreviated_stream(&stream))
            })))
        }
        DeadLetterSelection::All => {
            let no_steps = json!({ "executed": false, "steps": [] });
            Answer::new(&no_steps, dry_runs_text(&[]))
        }
    }
}

pub(super) async fn discard(options: &DiscardOptions) -> Result<Answer, Failure> {
    let names = server::projection_names(&options.scope.names());
    let at_server = ServerAction {
        path: "dead-letters/discards",
        options: json!({ "projections": names, "position": options.position }),
        dry_run_text: |dry_runs: &Steps<_>| dry_runs_text(&dry_runs.steps),
        report_text: |outcomes: &Steps<_>| outcomes_text(&outcomes.steps),
    };
    if let Some(answer) = options.server.act(at_server, &options.execution).await {
        return answer;
    }
    let scope = options.scope.open_for_action().await?;
    let steps = plan_discard(&scope.projections, &scope.names, Position::new(options.position)).await;
    execute_or_dry_run(scope, steps.map_err(projections_failure)?, &options.execution, options.wait.timeout())
        .await
}

async fn execute_or_dry_run(
    scope: Scope,
    steps: Vec<Resolution>,
    execution: &ExecutionArgs,
    timeout: Duration,
) -> Result<Answer, Failure> {
    if execution.execute {
        execute_steps(&scope, steps, execution, timeout).await
    } else {
        dry_run_steps(&scope, &steps).await
    }
}

async fn dry_run_steps(scope: &Scope, steps: &[Resolution]) -> Result<Answer, Failure> {
    let dry_runs = dry_run(&scope.projections, steps).await.map_err(projections_failure)?;
    let mut answer = Answer::new(&json!({ "executed": false, "steps": dry_runs }), dry_runs_text(&dry_runs))?
        .with_finding(dry_runs.iter().any(|dry_run| dry_run.would_stop.is_some()))
        .with_finding_if_log_is_closed(&*scope.projections.log)
        .with_diagnostic(Severity::Note, "nothing was changed; --execute with --reason does it");
    if dry_runs.len() < steps.len() {
        let more = format!(
            "not tried: {}; a dry run tries at most {MAX_STREAMS} for each projection",
            counted((steps.len() - dry_runs.len()) as u64, "stream")
        );
        answer = answer.with_diagnostic(Severity::Note, more);
    }
    Ok(answer)
}

async fn execute_steps(
    scope: &Scope,
    steps: Vec<Resolution>,
    execution: &ExecutionArgs,
    timeout: Duration,
) -> Result<Answer, Failure> {
    let (operator, reason) = (execution.action.operator(), execution.action.reason()?);
    let outcomes =
        resolve(&scope.projections, &operator, &reason, steps, timeout).await.map_err(projections_failure)?;
    let is_incomplete =
        |step: &ResolutionOutcome| step.outcome.as_ref().is_none_or(|outcome| outcome.stopped.is_some());
    let mut answer = Answer::new(&json!({ "executed": true, "steps": outcomes }), outcomes_text(&outcomes))?
        .with_finding(outcomes.iter().any(is_incomplete));
    if outcomes.iter().any(|step| step.outcome.is_none()) {
        let not_applied = "the action is recorded, but the projection has not applied it yet; `dead-letters list` shows its state";
        answer = answer.with_diagnostic(Severity::Warning, not_applied);
    }
    Ok(answer)
}
