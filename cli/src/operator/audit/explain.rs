//! `audit explain`

use chat_operations::audit::{
    AffectedProjection, Effect, EventEffects, EventSelector, ExplainError, Explanation, event_effects,
    explain,
};
use clap::{Args, Subcommand};

use super::super::answer::Answer;
use super::super::table::table;
use super::subject::{SubjectCommand, describe_existence, describe_subject};
use super::{render, show};
use crate::failure::Failure;
use crate::operator::common_args::{CommonArgs, OutputFormat};
use crate::operator::context::{CommandContext, event_store_failure};

/// `audit explain`
#[derive(Subcommand)]
pub(crate) enum ExplainCommand {
    #[command(flatten)]
    Subject(SubjectCommand),
    /// List the rows and documents that an event changed, and which of its values are current
    #[command(after_help = "Example:\n  chat-api audit explain event 17 --data-dir ./data")]
    Event(ExplainEventArgs),
}

/// `audit explain event`
#[derive(Args)]
pub(crate) struct ExplainEventArgs {
    /// The event's position in the log, or its id
    #[arg(value_name = "POSITION|EVENT_ID", value_parser = show::parse_event_selector)]
    which: EventSelector,
    #[command(flatten)]
    common: CommonArgs,
}

impl ExplainCommand {
    pub(super) fn output(&self) -> OutputFormat {
        match self {
            Self::Subject(about) => about.common().output,
            Self::Event(event) => event.common.output,
        }
    }
}

pub(super) async fn run(arguments: &ExplainCommand) -> Result<Answer, Failure> {
    match arguments {
        ExplainCommand::Subject(about) => explain_row(about).await,
        ExplainCommand::Event(event) => explain_event(event).await,
    }
}

async fn explain_row(about: &SubjectCommand) -> Result<Answer, Failure> {
    let context = CommandContext::open(about.common()).await?;
    let read_model = context.read_model().await?;
    let explained =
        explain(&*context.event_store, &*read_model.reader(), about.subject()).await.map_err(|error| {
            match error {
                ExplainError::EventStore(error) => event_store_failure(error),
                ExplainError::ReadModel(error) => {
                    Failure::because(format!("the read model {read_model} can't be read"), &error)
                }
            }
        })?;
    Answer::from_report(&explained, row_text(&explained))
}

fn row_text(explained: &Explanation) -> String {
    let (row, log) = (describe_existence(explained.row), describe_existence(explained.log));
    let state =
        if row == log { row.to_owned() } else { format!("{row} in the read model, {log} in the log") };
    let mut text = format!("{}: {state}\n", describe_subject(&explained.subject));
    if explained.fields.is_empty() {
        return text;
    }
    let row = |field: &chat_operations::audit::ExplainedField| {
        let differs = match &field.by_the_log {
            Some(value) => format!("{} in the log; ", render::value_text(field.name, value)),
            None => String::new(),
        };
        let set_by = field.set_by.as_ref().map_or_else(|| "no event".to_owned(), render::reference_line);
        [
            field.name.to_owned(),
            super::super::terminal_text::truncated(&render::value_text(field.name, &field.value), 40),
            differs + &set_by,
        ]
    };
    let rows: Vec<[String; 3]> = explained.fields.iter().map(row).collect();
    text.push_str(&table(["FIELD", "VALUE", "SET BY"], &rows));
    text
}

async fn explain_event(arguments: &ExplainEventArgs) -> Result<Answer, Failure> {
    let context = CommandContext::open(&arguments.common).await?;
    let event = show::find_event(&context, arguments.which).await?;
    let touched = event_effects(&*context.event_store, &event).await.map_err(event_store_failure)?;
    Answer::from_report(&touched, event_text(&touched))
}

fn event_text(touched: &EventEffects) -> String {
    let mut text = show::event_text(&touched.event);
    if touched.effects.is_empty() {
        return text;
    }
    let row = |touch: &chat_operations::audit::EntityEffect| {
        let what = match touch.projection {
            AffectedProjection::ReadModel => "row",
            AffectedProjection::SearchIndex => "document",
        };
        let effect = match touch.effect {
            Effect::Created => "created",
            Effect::Changed => "changed",
            Effect::Removed => "removed",
        };
        // An asterisk marks a field that no later event has set.
        let field = |name: &&str| {
            if touch.current_fields.contains(name) { format!("{name}*") } else { (*name).to_owned() }
        };
        let fields: Vec<String> = touch.fields.iter().map(field).collect();
        [format!("{what} of {}", describe_subject(&touch.subject)), effect.to_owned(), fields.join(" ")]
    };
    let rows: Vec<[String; 3]> = touched.effects.iter().map(row).collect();
    text.push('\n');
    text.push_str(&table(["TOUCHES", "EFFECT", "SETS (*: still current)"], &rows));
    text
}
