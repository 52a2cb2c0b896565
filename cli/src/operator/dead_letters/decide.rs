//! `dead-letters retry` and `dead-letters discard`

use std::time::Duration;

use chat_domain::Position;
use chat_operations::dead_letters::dry_run::{MAX_STREAMS, dry_run};
use chat_operations::dead_letters::resolve::{
    DeadLetterSelection, Resolution, ResolutionOutcome, blocked_streams, plan_discard, resolve,
};
use clap::Args;
use serde_json::json;

use super::shown::{done, tried};
use super::{Execution, Meant, Where, note_unreadable};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::projections::failure;

#[derive(Args)]
pub(crate) struct RetryOptions {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    pub(super) place: Where,
}

/// Which parked events.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Those of the stream of the event at this position
    position: Option<u64>,
    /// Those of this stream; with an app's go those of its chats
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub(crate) struct DiscardOptions {
    /// The event's position
    position: u64,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    pub(super) place: Where,
}

pub(super) async fn retry(options: &RetryOptions) -> Result<Answer, Failure> {
    let meant = options.place.open().await?;
    let letters = match &options.which {
        Which { position: Some(position), .. } => DeadLetterSelection::Event(Position::new(*position)),
        Which { stream: Some(stream), .. } => DeadLetterSelection::Stream(stream.clone()),
        Which { .. } => DeadLetterSelection::All,
    };
    let parked = blocked_streams(&meant.projections, &meant.names, &letters).await.map_err(failure)?;
    let steps: Vec<_> = parked.into_iter().map(|parked| Resolution { blocked_stream: parked, discards_first: false }).collect();
    if steps.is_empty() {
        let nothing = json!({ "executed": false, "steps": [] });
        return Ok(note_unreadable(Answer::new(&nothing, "nothing is parked there\n")?, &meant.unreadable));
    }
    go(meant, steps, &options.execution).await
}

pub(super) async fn discard(options: &DiscardOptions) -> Result<Answer, Failure> {
    let meant = options.place.open().await?;
    let steps = plan_discard(&meant.projections, &meant.names, Position::new(options.position)).await;
    go(meant, steps.map_err(failure)?, &options.execution).await
}

async fn go(meant: Meant, steps: Vec<Resolution>, execution: &Execution) -> Result<Answer, Failure> {
    let answer = if execution.execute {
        execute(&meant, steps, execution).await?
    } else {
        try_first(&meant, &steps).await?
    };
    Ok(note_unreadable(answer, &meant.unreadable))
}

async fn try_first(meant: &Meant, steps: &[Resolution]) -> Result<Answer, Failure> {
    let all = dry_run(&meant.projections, steps).await.map_err(failure)?;
    let text: String = all.iter().map(tried).collect();
    let mut answer = Answer::new(&json!({ "executed": false, "steps": all }), text)?
        .finding(all.iter().any(|tried| tried.would_stop.is_some()))
        .note(Severity::Note, "nothing was changed; --execute with --reason does it");
    if all.len() < steps.len() {
        let more = format!(
            "{} more streams have parked events; {MAX_STREAMS} of a projection are tried at once",
            steps.len() - all.len()
        );
        answer = answer.note(Severity::Note, more);
    }
    Ok(answer)
}

async fn execute(meant: &Meant, steps: Vec<Resolution>, execution: &Execution) -> Result<Answer, Failure> {
    let (operator, reason) = (execution.deed.operator(), execution.deed.reason()?);
    let patience = Duration::from_secs(execution.wait);
    let all = resolve(&meant.projections, &operator, &reason, steps, patience).await.map_err(failure)?;
    let text: String = all.iter().map(done).collect();
    let held_up = |done: &ResolutionOutcome| done.outcome.as_ref().is_none_or(|left| left.stopped.is_some());
    let mut answer =
        Answer::new(&json!({ "executed": true, "steps": all }), text)?.finding(all.iter().any(held_up));
    if all.iter().any(|done| done.outcome.is_none()) {
        let waits =
            "it is recorded, and carried out when the projection comes to it; `dead-letters list` shows it";
        answer = answer.note(Severity::Warning, waits);
    }
    Ok(answer)
}
