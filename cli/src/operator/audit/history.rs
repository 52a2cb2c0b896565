//! `audit at` shows the state of an app, chat or message at a point of the log. `audit diff` shows the changes between
//! two points.

use chat_operations::audit::{self, Difference, LogPoint, PastState};
use clap::Args;

use super::super::answer::Answer;
use super::super::table::table_with_wrapped_last_column;
use super::super::terminal_text::truncated;
use super::render;
use super::subject::{SubjectCommand, describe_existence, describe_subject};
use crate::failure::Failure;
use crate::operator::context::{CommandContext, event_store_failure};

/// Arguments of `audit at`.
#[derive(Args)]
pub(crate) struct AtArgs {
    /// State after the event at this position, or after the last one recorded by this time
    #[arg(value_name = "POSITION|TIME", value_parser = parse_point)]
    point: LogPoint,
    #[command(subcommand)]
    pub(super) subject: SubjectCommand,
}

/// Arguments of `audit diff`.
#[derive(Args)]
pub(crate) struct DiffArgs {
    /// Start of the difference: after the event at this position, or after the last one recorded by this time
    #[arg(value_name = "A", value_parser = parse_point)]
    from: LogPoint,
    /// End of the difference: the event at this position, or the last one recorded by this time
    #[arg(value_name = "B", value_parser = parse_point)]
    to: LogPoint,
    #[command(subcommand)]
    pub(super) subject: SubjectCommand,
}

fn parse_point(text: &str) -> Result<LogPoint, &'static str> {
    LogPoint::parse(text)
        .ok_or("neither a position (a whole number) nor a time such as 2026-09-21T14:13:20Z or 2026-09-21")
}

pub(super) async fn state_at(arguments: &AtArgs) -> Result<Answer, Failure> {
    let context = CommandContext::open(arguments.subject.common()).await?;
    let log = &*context.event_store;
    let point = arguments.point.resolve_up_to_head(log).await.map_err(event_store_failure)?;
    let subject = arguments.subject.subject(log).await?;
    let state = audit::state_at(log, point.position, subject).await.map_err(event_store_failure)?;
    Ok(Answer::from_report(&state, state_text(&state))?.with_diagnostics(point.remark))
}

fn state_text(past_state: &PastState) -> String {
    let mut text = format!(
        "{} at position {}: {}\n",
        describe_subject(&past_state.subject),
        past_state.position,
        describe_existence(past_state.existence)
    );
    if past_state.fields.is_empty() {
        return text;
    }
    let row = |field: &audit::Field| {
        [
            field.name.to_owned(),
            truncated(&render::value_text(field.name, &field.value), 40),
            render::reference_line(&field.set_by),
        ]
    };
    let rows: Vec<[String; 3]> = past_state.fields.iter().map(row).collect();
    text.push_str(&table_with_wrapped_last_column(["FIELD", "VALUE", "SET BY"], &rows));
    text
}

pub(super) async fn diff(arguments: &DiffArgs) -> Result<Answer, Failure> {
    let context = CommandContext::open(arguments.subject.common()).await?;
    let log = &*context.event_store;
    let from = arguments.from.resolve_up_to_head(log).await.map_err(event_store_failure)?;
    let to = arguments.to.resolve_up_to_head(log).await.map_err(event_store_failure)?;
    if from.unclamped_position > to.unclamped_position {
        let (from, to) = (from.unclamped_position, to.unclamped_position);
        return Err(Failure::new(format!("A is after B: position {from} comes after {to}")));
    }
    let subject = arguments.subject.subject(log).await?;
    let difference = audit::difference(log, from.position, to.position, subject, u64::MAX)
        .await
        .map_err(event_store_failure)?;
    let answer = Answer::from_report(&difference, difference_text(&difference))?;
    // If both points have the same remark, it is printed once.
    let to_remark = to.remark.filter(|remark| from.remark.as_ref() != Some(remark));
    Ok(answer.with_diagnostics(from.remark.into_iter().chain(to_remark)))
}

fn difference_text(difference: &Difference) -> String {
    let (before, after) = (describe_existence(difference.before), describe_existence(difference.after));
    let state = if before == after { format!("{before} at both") } else { format!("{before}, then {after}") };
    let mut text = format!(
        "{} from position {} to {}: {state}\n",
        describe_subject(&difference.subject),
        difference.from,
        difference.to
    );
    if difference.changes.is_empty() {
        text.push_str("nothing changed\n");
    } else {
        let row = |change: &audit::Change| {
            let set_by = change.set_by.as_ref().map_or_else(|| "-".to_owned(), render::reference_line);
            let cell = |value| truncated(&render::value_text(change.name, value), 30);
            [change.name.to_owned(), cell(&change.before), cell(&change.after), set_by]
        };
        let rows: Vec<[String; 4]> = difference.changes.iter().map(row).collect();
        text.push_str(&table_with_wrapped_last_column(["FIELD", "BEFORE", "AFTER", "SET BY"], &rows));
    }
    if !difference.events.is_empty() {
        text.push_str("\nEvents between:\n");
        text.push_str(&render::events_table(&difference.events));
    }
    text
}
