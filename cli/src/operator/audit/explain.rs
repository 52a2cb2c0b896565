//! `audit explain`

use chat_operations::audit::{
    Effect, EventSelector, ExplainError, Explanation, Touched, TouchedProjection, event_effects, explain,
};
use clap::{Args, Subcommand};

use super::super::answer::Answer;
use super::super::table::table;
use super::super::{Common, Output, Stage};
use super::subject::{About, existence, words};
use super::{show, shown, unreadable};
use crate::failure::Failure;

/// `audit explain`
#[derive(Subcommand)]
pub(crate) enum Explain {
    #[command(flatten)]
    Row(About),
    /// What an event touches: rows, documents, and what of that still holds
    #[command(after_help = "Example:\n  chat-api audit explain event 17 --data-dir ./data")]
    Event(OfEvent),
}

/// `audit explain event`
#[derive(Args)]
pub(crate) struct OfEvent {
    /// Its position in the log, or its id
    #[arg(value_name = "POSITION|EVENT_ID", value_parser = show::which)]
    which: EventSelector,
    #[command(flatten)]
    common: Common,
}

impl Explain {
    pub(super) fn output(&self) -> Output {
        match self {
            Self::Row(about) => about.common().output,
            Self::Event(event) => event.common.output,
        }
    }
}

pub(super) async fn run(arguments: &Explain) -> Result<Answer, Failure> {
    match arguments {
        Explain::Row(about) => of_row(about).await,
        Explain::Event(event) => of_event(event).await,
    }
}

async fn of_row(about: &About) -> Result<Answer, Failure> {
    let stage = Stage::open(about.common()).await?;
    let (read_model, place) = stage.read_model().await?;
    let explained =
        explain(&*stage.log, &*read_model, about.subject()).await.map_err(|error| match error {
            ExplainError::EventStore(error) => unreadable(error),
            ExplainError::ReadModel(error) => {
                Failure::because(format!("the read model {place} can't be read"), &error)
            }
        })?;
    Answer::of(&explained, text_of_row(&explained))
}

fn text_of_row(explained: &Explanation) -> String {
    let (row, log) = (existence(explained.row), existence(explained.log));
    let standing = if row == log { row.to_owned() } else { format!("{row} for readers, {log} by the log") };
    let mut text = format!("{}: {standing}\n", words(&explained.subject));
    if explained.fields.is_empty() {
        return text;
    }
    let row = |field: &chat_operations::audit::ExplainedField| {
        let differs = match &field.by_the_log {
            Some(value) => format!("{} by the log; ", shown::value(field.name, value)),
            None => String::new(),
        };
        let set_by = field.set_by.as_ref().map_or_else(|| "no event".to_owned(), shown::reference);
        [
            field.name.to_owned(),
            super::super::text::cut(&shown::value(field.name, &field.value), 40),
            differs + &set_by,
        ]
    };
    let rows: Vec<[String; 3]> = explained.fields.iter().map(row).collect();
    text.push_str(&table(["FIELD", "VALUE", "SET BY"], &rows));
    text
}

async fn of_event(arguments: &OfEvent) -> Result<Answer, Failure> {
    let stage = Stage::open(&arguments.common).await?;
    let event = show::found(&stage, arguments.which).await?;
    let touched = event_effects(&*stage.log, &event).await.map_err(unreadable)?;
    Answer::of(&touched, text_of_event(&touched))
}

fn text_of_event(touched: &Touched) -> String {
    let mut text = show::event(&touched.event);
    if touched.touches.is_empty() {
        return text;
    }
    let row = |touch: &chat_operations::audit::Touch| {
        let what = match touch.projection {
            TouchedProjection::ReadModel => "row",
            TouchedProjection::SearchIndex => "document",
        };
        let effect = match touch.effect {
            Effect::Created => "created",
            Effect::Changed => "changed",
            Effect::Removed => "removed",
        };
        // An asterisk says that no later event has set it.
        let field =
            |name: &&str| if touch.still.contains(name) { format!("{name}*") } else { (*name).to_owned() };
        let fields: Vec<String> = touch.fields.iter().map(field).collect();
        [format!("{what} of {}", words(&touch.subject)), effect.to_owned(), fields.join(" ")]
    };
    let rows: Vec<[String; 3]> = touched.touches.iter().map(row).collect();
    text.push('\n');
    text.push_str(&table(["TOUCHES", "EFFECT", "SETS (*: still as it set it)"], &rows));
    text
}
