//! Answers as lines for people.

use chat_operations::dead_letters::{DeadLetterView, BlockingEvent};
use chat_operations::dead_letters::dry_run::RetryDryRun;
use chat_operations::dead_letters::list::ProjectionDeadLetters;
use chat_operations::dead_letters::resolve::ResolutionOutcome;

use crate::operator::projections::shown::or_dash;
use crate::operator::table::whole_table;
use crate::operator::text::{escaped, stream};

/// Letters as rows; nothing where there is none.
pub(super) fn letters(letters: &[DeadLetterView]) -> String {
    if letters.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = letters
        .iter()
        .map(|letter| {
            [
                letter.position.to_string(),
                letter.projection.as_str().to_owned(),
                letter.state.as_str().to_owned(),
                letter.event_type.clone(),
                letter.parked_at.clone(),
                letter.waiting.to_string(),
                stream(&letter.stream),
                letter.reason.clone(),
            ]
        })
        .collect();
    whole_table(
        ["POSITION", "PROJECTION", "STATE", "EVENT", "PARKED AT", "BEHIND", "STREAM", "REASON"],
        &rows,
    )
}

/// How many letters a projection has.
pub(super) fn counted(of: &ProjectionDeadLetters) -> String {
    let (parked, discarded) = (or_dash(of.parked), or_dash(of.discarded));
    format!("{}: {parked} parked, {discarded} discarded and not acknowledged\n", of.name.as_str())
}

/// What an act would come to.
pub(super) fn tried(tried: &RetryDryRun) -> String {
    let RetryDryRun { projection, position, parked, would_apply, would_discard, complete, .. } = tried;
    let given_up =
        if *would_discard { format!("the event at {position} would be given up; ") } else { String::new() };
    // They were counted before the trial: more may have been parked since.
    let left = parked.saturating_sub(would_apply + u64::from(*would_discard));
    let rest = match (&tried.would_stop, complete) {
        (Some(stop), _) => format!(", {left} would stay parked\n  {}\n", stops(stop)),
        (None, true) => ", none would stay parked\n".to_owned(),
        (None, false) => format!(", and {left} more were not tried\n"),
    };
    let (projection, stream) = (projection.as_str(), stream(&tried.stream));
    format!(
        "{projection}, {stream}: {given_up}{would_apply} of {parked} parked events would be applied{rest}"
    )
}

/// What an act came to.
pub(super) fn done(done: &ResolutionOutcome) -> String {
    let (projection, stream) = (done.projection.as_str(), stream(&done.stream));
    let Some(left) = &done.outcome else {
        return format!("{projection}, {stream}: not yet carried out (recorded at position {})\n", done.act);
    };
    let given_up = done.discarded.map_or_else(String::new, |at| format!("the event at {at} is given up; "));
    let rest = match &left.stopped {
        Some(stop) => format!(", {} stay parked\n  {}\n", left.parked, stops(stop)),
        None => ", none is parked any more\n".to_owned(),
    };
    let applied = left.applied;
    format!("{projection}, {stream}: {given_up}{applied} events were applied{rest}")
}

fn stops(BlockingEvent { position, event_type, reason }: &BlockingEvent) -> String {
    format!("it stops at {position}, {}: {}", escaped(event_type), escaped(reason))
}
