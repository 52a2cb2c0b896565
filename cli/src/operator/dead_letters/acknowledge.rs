//! `dead-letters acknowledge`: confirms that events were discarded.

use chat_domain::Position;
use chat_operations::dead_letters::DeadLetterView;
use chat_operations::dead_letters::resolve::{acknowledge, unacknowledged_discards};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::render::dead_letters_table;
use super::scope::{ScopeArgs, WaitArgs};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::common_args::ExecutionArgs;
use crate::operator::projections::common::projections_failure;
use crate::operator::server::{self, ServerAction, ServerArgs};

#[derive(Args)]
pub(crate) struct Options {
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

/// Arguments that select discarded events.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct SelectionArgs {
    /// The event's position
    position: Option<u64>,
    /// All discarded events that are not acknowledged
    #[arg(long)]
    all: bool,
}

/// A report of a server on discarded events.
#[derive(Deserialize)]
struct Discards {
    letters: Vec<DeadLetterView>,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let SelectionArgs { position, all } = &options.selection;
    let names = server::projection_names(&options.scope.names());
    let at_server = ServerAction {
        path: "dead-letters/acknowledgements",
        options: json!({ "projections": names, "position": position, "all": all }),
        dry_run_text: |discards: &Discards| acknowledgement_text(&discards.letters, false),
        report_text: |discards: &Discards| acknowledgement_text(&discards.letters, true),
    };
    if let Some(answer) = options.server.act(at_server, &options.execution).await {
        return answer;
    }
    let scope = options.scope.open_for_action().await?;
    let position = options.selection.position.map(Position::new);
    let found = unacknowledged_discards(&scope.projections, &scope.names, position)
        .await
        .map_err(projections_failure)?;
    let execute = options.execution.execute && !found.is_empty();
    let data = json!({ "executed": execute, "letters": found });
    if let Some(position) = position
        && found.is_empty()
    {
        return Err(Failure::new(format!(
            "no discarded event at position {position} waits to be acknowledged"
        )));
    }
    let text = acknowledgement_text(&found, execute);
    if found.is_empty() {
        return Answer::new(&data, text);
    }
    if execute {
        let (operator, reason) = (options.execution.action.operator(), options.execution.action.reason()?);
        let applied =
            acknowledge(&scope.projections, &operator, &reason, &found, options.wait.timeout()).await;
        let answer = Answer::new(&data, text)?;
        Ok(if applied.map_err(projections_failure)? {
            answer
        } else {
            answer.with_diagnostic(
                Severity::Warning,
                "the acknowledgement is recorded; the projection has not applied it yet",
            )
        })
    } else {
        Ok(Answer::new(&data, text)?
            .with_finding_if_log_is_closed(&*scope.projections.log)
            .with_diagnostic(Severity::Note, "nothing was changed; --execute with --reason does it"))
    }
}

fn acknowledgement_text(discards: &[DeadLetterView], was_executed: bool) -> String {
    let listed = dead_letters_table(discards);
    match (discards, was_executed) {
        ([], _) => "every discarded event is acknowledged\n".to_owned(),
        (_, true) => format!("acknowledged:\n{listed}"),
        (_, false) => format!("would be acknowledged:\n{listed}"),
    }
}
