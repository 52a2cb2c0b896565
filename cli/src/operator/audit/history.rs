//! `audit at` and `audit diff`

use chat_operations::audit::{self, Difference, LogPoint, StateThen};
use clap::Args;

use super::super::Stage;
use super::super::answer::Answer;
use super::super::table::table;
use super::super::text::cut;
use super::subject::{About, existence, words};
use super::{shown, unreadable};
use crate::failure::Failure;

/// `audit at`
#[derive(Args)]
pub(crate) struct At {
    /// After which event: its position, or a time, which stands for the last event recorded by then
    #[arg(value_name = "POSITION|TIME", value_parser = point)]
    point: LogPoint,
    #[command(subcommand)]
    pub(super) about: About,
}

/// `audit diff`
#[derive(Args)]
pub(crate) struct Diff {
    /// Where the difference begins: after the event at this position, or the last one recorded by this time
    #[arg(value_name = "A", value_parser = point)]
    from: LogPoint,
    /// Where it ends: with the event at this position, or the last one recorded by this time
    #[arg(value_name = "B", value_parser = point)]
    to: LogPoint,
    #[command(subcommand)]
    pub(super) about: About,
}

fn point(text: &str) -> Result<LogPoint, &'static str> {
    LogPoint::parse(text)
        .ok_or("neither a position, a whole number, nor a time such as 2026-09-21T14:13:20Z or 2026-09-21")
}

pub(super) async fn at(arguments: &At) -> Result<Answer, Failure> {
    let stage = Stage::open(arguments.about.common()).await?;
    let position = arguments.point.resolve(&*stage.log).await.map_err(unreadable)?;
    let then = audit::state_at(&*stage.log, position, arguments.about.subject()).await.map_err(unreadable)?;
    Answer::of(&then, text_of_state(&then))
}

fn text_of_state(then: &StateThen) -> String {
    let mut text =
        format!("{} at position {}: {}\n", words(&then.subject), then.position, existence(then.existence));
    if then.fields.is_empty() {
        return text;
    }
    let row = |field: &audit::Field| {
        [
            field.name.to_owned(),
            cut(&shown::value(field.name, &field.value), 40),
            shown::reference(&field.set_by),
        ]
    };
    let rows: Vec<[String; 3]> = then.fields.iter().map(row).collect();
    text.push_str(&table(["FIELD", "VALUE", "SET BY"], &rows));
    text
}

pub(super) async fn diff(arguments: &Diff) -> Result<Answer, Failure> {
    let stage = Stage::open(arguments.about.common()).await?;
    let from = arguments.from.resolve(&*stage.log).await.map_err(unreadable)?;
    let to = arguments.to.resolve(&*stage.log).await.map_err(unreadable)?;
    if from > to {
        return Err(Failure::new(format!("A is after B: position {from} comes after {to}")));
    }
    let subject = arguments.about.subject();
    let difference = audit::difference(&*stage.log, from, to, subject, u64::MAX).await.map_err(unreadable)?;
    Answer::of(&difference, text_of_difference(&difference))
}

fn text_of_difference(difference: &Difference) -> String {
    let (before, after) = (existence(difference.before), existence(difference.after));
    let standing =
        if before == after { format!("{before} at both") } else { format!("{before}, then {after}") };
    let mut text = format!(
        "{} from position {} to {}: {standing}\n",
        words(&difference.subject),
        difference.from,
        difference.to
    );
    if difference.changes.is_empty() {
        text.push_str("nothing changed\n");
    } else {
        let row = |change: &audit::Change| {
            let set_by = change.set_by.as_ref().map_or_else(|| "-".to_owned(), shown::reference);
            let value = |value| cut(&shown::value(change.name, value), 30);
            [change.name.to_owned(), value(&change.before), value(&change.after), set_by]
        };
        let rows: Vec<[String; 4]> = difference.changes.iter().map(row).collect();
        text.push_str(&table(["FIELD", "BEFORE", "AFTER", "SET BY"], &rows));
    }
    if !difference.events.is_empty() {
        text.push_str("\nEvents between:\n");
        text.push_str(&shown::events(&difference.events));
    }
    text
}
