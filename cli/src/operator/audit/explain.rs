//! `audit explain`: shows each field of a row with the event that set it, or the rows and documents that an event
//! changed.

use chat_operations::audit::{
    AffectedProjection, Effect, EventEffects, EventSelector, Existence, ExplainError, Explanation,
    event_effects, explain, state_at,
};
use clap::{Args, Subcommand};

use super::super::answer::Answer;
use super::super::table::table_with_wrapped_last_column;
use super::super::terminal_text::truncated;
use super::subject::{SubjectCommand, describe_existence, describe_subject};
use super::{render, show};
use crate::failure::Failure;
use crate::operator::common_args::{CommonArgs, OutputFormat};
use crate::operator::context::{CommandContext, event_store_failure};

/// Arguments of `audit explain`.
#[derive(Subcommand)]
pub(crate) enum ExplainCommand {
    #[command(flatten)]
    Subject(SubjectCommand),
    /// List the rows and documents that an event changed, and which of the event's values are still current
    #[command(after_help = "Example:\n  chat-api audit explain event 17 --data-dir ./data")]
    Event(ExplainEventArgs),
}

/// Arguments of `audit explain event`.
#[derive(Args)]
pub(crate) struct ExplainEventArgs {
    /// The event's position in the log, or its id
    #[arg(value_name = "POSITION|EVENT_ID", value_parser = show::parse_event_selector)]
    event: EventSelector,
    #[command(flatten)]
    common: CommonArgs,
}

impl ExplainCommand {
    pub(super) fn output(&self) -> OutputFormat {
        match self {
            Self::Subject(command) => command.common().output,
            Self::Event(arguments) => arguments.common.output,
        }
    }
}

pub(super) async fn run(arguments: &ExplainCommand) -> Result<Answer, Failure> {
    match arguments {
        ExplainCommand::Subject(command) => explain_row(command).await,
        ExplainCommand::Event(arguments) => explain_event(arguments).await,
    }
}

async fn explain_row(command: &SubjectCommand) -> Result<Answer, Failure> {
    let context = CommandContext::open(command.common()).await?;
    let subject = command.subject(&*context.event_store).await?;
    let read_model = context.read_model().await?;
    let explanation = explain(&*context.event_store, &*read_model.reader(), subject).await.map_err(
        |error| match error {
            ExplainError::EventStore(error) => event_store_failure(error),
            ExplainError::ReadModel(error) => {
                Failure::because(format!("the read model {read_model} can't be read"), &error)
            }
        },
    )?;
    // Pending and discarded events may have created the subject: the answer names them.
    let has_unapplied_events = !explanation.dead_letters.is_empty() || !explanation.discarded.is_empty();
    let is_absent = explanation.row == Existence::Absent && explanation.log == Existence::Absent;
    if is_absent && !has_unapplied_events {
        // `explanation.log` is the state at the read model's position. A newer event may have created the subject.
        let log = &*context.event_store;
        let head = log.head().await.map_err(event_store_failure)?;
        let state = state_at(log, head, subject).await.map_err(event_store_failure)?;
        if state.existence == Existence::Absent {
            let name = describe_subject(&explanation.subject);
            return Err(Failure::new(format!("there is no {name}, in the read model or in the log")));
        }
    }
    Answer::from_report(&explanation, row_text(&explanation))
}

fn row_text(explanation: &Explanation) -> String {
    let (in_row, in_log) = (describe_existence(explanation.row), describe_existence(explanation.log));
    let state = if in_row == in_log {
        in_row.to_owned()
    } else {
        format!("{in_row} in the read model, {in_log} in the log")
    };
    let mut text = format!("{}: {state}\n", describe_subject(&explanation.subject));
    if explanation.fields.is_empty() {
        return text;
    }
    let row = |field: &chat_operations::audit::ExplainedField| {
        let value_in_log = match &field.by_the_log {
            Some(value) => format!("{} in the log; ", render::value_text(field.name, value)),
            None => String::new(),
        };
        let set_by = field.set_by.as_ref().map_or_else(|| "no event".to_owned(), render::reference_line);
        [
            field.name.to_owned(),
            truncated(&render::value_text(field.name, &field.value), 40),
            value_in_log + &set_by,
        ]
    };
    let rows: Vec<[String; 3]> = explanation.fields.iter().map(row).collect();
    text.push_str(&table_with_wrapped_last_column(["FIELD", "VALUE", "SET BY"], &rows));
    text
}

async fn explain_event(arguments: &ExplainEventArgs) -> Result<Answer, Failure> {
    let context = CommandContext::open(&arguments.common).await?;
    let event = show::find_event(&context, arguments.event).await?;
    let event_effects = event_effects(&*context.event_store, &event).await.map_err(event_store_failure)?;
    Answer::from_report(&event_effects, event_text(&event_effects))
}

fn event_text(event_effects: &EventEffects) -> String {
    let mut text = show::event_text(&event_effects.event);
    if event_effects.effects.is_empty() {
        return text;
    }
    let row = |effect: &chat_operations::audit::EntityEffect| {
        let entity = match effect.projection {
            AffectedProjection::ReadModel => "row",
            AffectedProjection::SearchIndex => "document",
        };
        let verb = match effect.effect {
            Effect::Created => "created",
            Effect::Changed => "changed",
            Effect::Removed => "removed",
        };
        // An asterisk marks a field that no later event has set.
        let field = |name: &&str| {
            if effect.current_fields.contains(name) { format!("{name}*") } else { (*name).to_owned() }
        };
        let fields: Vec<String> = effect.fields.iter().map(field).collect();
        [format!("{entity} of {}", describe_subject(&effect.subject)), verb.to_owned(), fields.join(" ")]
    };
    let rows: Vec<[String; 3]> = event_effects.effects.iter().map(row).collect();
    text.push('\n');
    text.push_str(&table_with_wrapped_last_column(["TOUCHES", "EFFECT", "SETS (*: still current)"], &rows));
    text
}
