//! `dead-letters acknowledge`

use std::time::Duration;

use chat_domain::Position;
use chat_operations::dead_letters::resolve::{acknowledge, unacknowledged_discards};
use clap::Args;
use serde_json::json;

use super::shown::letters;
use super::{Execution, Where, note_unreadable};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::projections::failure;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    pub(super) place: Where,
}

/// Which discarded events.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The event's position
    position: Option<u64>,
    /// All that nobody has acknowledged
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let meant = options.place.open().await?;
    let position = options.which.position.map(Position::new);
    let found = unacknowledged_discards(&meant.projections, &meant.names, position).await.map_err(failure)?;
    let execute = options.execution.execute && !found.is_empty();
    let data = json!({ "executed": execute, "letters": found });
    if found.is_empty() {
        let answer = Answer::new(&data, "no discarded event waits to be acknowledged there\n")?;
        return Ok(note_unreadable(answer, &meant.unreadable));
    }
    let listed = letters(&found);
    let answer = if execute {
        let (operator, reason) = (options.execution.deed.operator(), options.execution.deed.reason()?);
        let patience = Duration::from_secs(options.execution.wait);
        let reached = acknowledge(&meant.projections, &operator, &reason, &found, patience).await;
        let answer = Answer::new(&data, format!("acknowledged:\n{listed}"))?;
        if reached.map_err(failure)? {
            answer
        } else {
            answer.note(Severity::Warning, "it is recorded, and shows when the projection comes to it")
        }
    } else {
        Answer::new(&data, format!("would be acknowledged:\n{listed}"))?
            .note(Severity::Note, "nothing was changed; --execute with --reason does it")
    };
    Ok(note_unreadable(answer, &meant.unreadable))
}
