//! Text output of the dead-letter commands.

use chat_operations::counted::counted;
use chat_operations::dead_letters::dry_run::ResolutionDryRun;
use chat_operations::dead_letters::list::ProjectionDeadLetters;
use chat_operations::dead_letters::resolve::ResolutionOutcome;
use chat_operations::dead_letters::{BlockingEvent, DeadLetterView, RefusedCommands};

use crate::operator::projections::render::or_dash;
use crate::operator::table::{Column, table_with_wrapped_last_column};
use crate::operator::terminal_text::{abbreviated_stream, escaped};

/// Formats dead letters as a table. Returns an empty text if there are none.
pub(super) fn dead_letters_table(dead_letters: &[DeadLetterView]) -> String {
    if dead_letters.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = dead_letters
        .iter()
        .map(|dead_letter| {
            [
                dead_letter.position.to_string(),
                dead_letter.projection.as_str().to_owned(),
                dead_letter.state.as_str().to_owned(),
                dead_letter.event_type.clone(),
                dead_letter.waiting.to_string(),
                abbreviated_stream(&dead_letter.stream),
                format!("{}: {}", dead_letter.dead_lettered_at, dead_letter.reason),
            ]
        })
        .collect();
    table_with_wrapped_last_column(
        [
            Column::whole("POSITION"),
            Column::whole("PROJECTION"),
            Column::whole("STATE"),
            Column::shrinkable_to(10, "EVENT"),
            Column::whole("BEHIND"),
            Column::whole("STREAM"),
            Column::whole("SINCE, REASON"),
        ],
        &rows,
    )
}

/// Says which commands on the stream of a dead letter are refused, if any are.
pub(super) fn refused_commands_line(dead_letter: &DeadLetterView) -> Option<String> {
    let refused = match dead_letter.refused_commands? {
        RefusedCommands::All => "all commands",
        RefusedCommands::EditsAndDeletions => "edits and deletions",
    };
    let stream = abbreviated_stream(&dead_letter.stream);
    let position = dead_letter.position;
    Some(format!("{stream}: {refused} are refused until the event at {position} is retried or discarded\n"))
}

/// Formats the counts of a projection on one line.
pub(super) fn counts_line(counts: &ProjectionDeadLetters) -> String {
    let pending =
        counts.pending.map_or_else(|| "- dead letters".to_owned(), |count| counted(count, "dead letter"));
    let discarded = or_dash(counts.discarded);
    format!("{}: {pending}, {discarded} discarded and not acknowledged\n", counts.projection.as_str())
}

/// Describes what an action would do to each stream.
pub(super) fn dry_runs_text(dry_runs: &[ResolutionDryRun]) -> String {
    if dry_runs.is_empty() {
        return NO_DEAD_LETTERS.to_owned();
    }
    dry_runs.iter().map(dry_run_text).collect()
}

/// Describes what an action did to each stream.
pub(super) fn outcomes_text(outcomes: &[ResolutionOutcome]) -> String {
    if outcomes.is_empty() {
        return NO_DEAD_LETTERS.to_owned();
    }
    outcomes.iter().map(outcome_text).collect()
}

const NO_DEAD_LETTERS: &str = "there are no dead letters\n";

/// Describes what an action would do to a stream.
pub(super) fn dry_run_text(tried: &ResolutionDryRun) -> String {
    let ResolutionDryRun { projection, position, pending, would_apply, would_discard, complete, .. } = tried;
    let discarded =
        if *would_discard { format!("the event at {position} would be discarded; ") } else { String::new() };
    // `pending` was counted before the dry run. Dead letters that were added since then may have been tried as well.
    let left = pending.saturating_sub(would_apply + u64::from(*would_discard));
    let rest = match (&tried.would_stop, complete) {
        (Some(stop), _) => {
            format!(", {} would be left\n  {}\n", counted(left, "dead letter"), stop_text(stop))
        }
        (None, true) => ", none would be left\n".to_owned(),
        (None, false) => format!(", {left} not tried\n"),
    };
    let (projection, stream) = (projection.as_str(), abbreviated_stream(&tried.stream));
    format!(
        "{projection}, {stream}: {discarded}{would_apply} of {} would be applied{rest}",
        counted(*pending, "dead letter")
    )
}

/// Describes what an action did to a stream.
fn outcome_text(outcome: &ResolutionOutcome) -> String {
    let (projection, stream) = (outcome.projection.as_str(), abbreviated_stream(&outcome.stream));
    let Some(retried) = &outcome.outcome else {
        return format!(
            "{projection}, {stream}: not yet applied (recorded at position {})\n",
            outcome.action_position
        );
    };
    let discarded = outcome
        .discarded
        .map_or_else(String::new, |position| format!("the event at {position} is discarded; "));
    let rest = match &retried.stopped {
        Some(stop) => {
            format!(", {} left\n  {}\n", counted(retried.pending, "dead letter"), stop_text(stop))
        }
        None => ", none is left\n".to_owned(),
    };
    let applied = counted(retried.applied, "event");
    format!("{projection}, {stream}: {discarded}{applied} applied{rest}")
}

fn stop_text(BlockingEvent { position, event_type, reason }: &BlockingEvent) -> String {
    format!("it stops at {position}, {}: {}", escaped(event_type), escaped(reason))
}
