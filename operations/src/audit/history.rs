//! The state as it was, and what changed between two points.

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::event::{AuditedEvent, EventReference};
use super::filter::EventFilter;
use super::scan::{Order, Scan};
use super::subject::{Subject, SubjectName};
use super::subject_state::{Existence, Field, subject_state};
use crate::envelope::{Diagnostic, Report};

/// Events of a difference that are shown.
const MAX_EVENTS: usize = 100;

/// A subject as it was.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StateThen {
    /// What was asked about.
    pub subject: SubjectName,
    /// After which event of the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Whether it was there.
    pub existence: Existence,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// What changed between two points.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Difference {
    /// What was asked about.
    pub subject: SubjectName,
    /// After which event of the log the difference begins.
    #[schema(value_type = u64)]
    pub from: Position,
    /// With which event it ends.
    #[schema(value_type = u64)]
    pub to: Position,
    /// Whether it was there at first.
    pub before: Existence,
    /// Whether it was there at last.
    pub after: Existence,
    /// The fields that have other values.
    pub changes: Vec<Change>,
    /// The events between that are about it, oldest first: the first hundred, of those that are looked at.
    pub events: Vec<AuditedEvent>,
    /// Whether there may be more.
    pub more: bool,
}

/// A field that has another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Change {
    /// Its name.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// Its value at first; `null` where there was none.
    pub before: Value,
    /// Its value at last; `null` where there is none.
    pub after: Value,
    /// The event that set it last.
    pub set_by: Option<EventReference>,
}

/// Says how a subject was after the event at a position.
pub async fn state_at(
    log: &dyn EventStore,
    position: Position,
    subject: Subject,
) -> Result<StateThen, EventStoreError> {
    let then = subject_state(log, subject, position).await?;
    Ok(StateThen { subject: subject.into(), position, existence: then.existence, fields: then.fields })
}

/// Says what changed after the event at one position, up to that at another. To show the events between, no more than
/// `look_at_most` are looked at.
pub async fn difference(
    log: &dyn EventStore,
    from: Position,
    to: Position,
    subject: Subject,
    max_scanned_events: u64,
) -> Result<Difference, EventStoreError> {
    let before = subject_state(log, subject, from).await?;
    let after = subject_state(log, subject, to).await?;
    let mut changes = Vec::new();
    for field in &after.fields {
        let was = before.field(field.name).map(|field| field.value.clone()).unwrap_or_default();
        if was != field.value {
            let set_by = Some(field.set_by.clone());
            changes.push(Change { name: field.name, before: was, after: field.value.clone(), set_by });
        }
    }
    for gone in before.fields.iter().filter(|field| after.field(field.name).is_none()) {
        let (before, after) = (gone.value.clone(), Value::Null);
        changes.push(Change { name: gone.name, before, after, set_by: None });
    }
    let (events, more) = events_between(log, from, to, subject, max_scanned_events).await?;
    let (before, after) = (before.existence, after.existence);
    Ok(Difference { subject: subject.into(), from, to, before, after, changes, events, more })
}

async fn events_between(
    log: &dyn EventStore,
    from: Position,
    to: Position,
    subject: Subject,
    max_scanned_events: u64,
) -> Result<(Vec<AuditedEvent>, bool), EventStoreError> {
    let (app, chat) = match subject {
        Subject::App(app) => (app, None),
        Subject::Chat(app, chat) | Subject::Message(app, chat, _) => (app, Some(chat)),
    };
    let filter = EventFilter {
        // An app's chats have streams of their own, which say nothing of the app itself.
        stream: chat.is_none().then(|| subject.stream()),
        app: Some(app),
        chat,
        after: Some(from),
        before: Some(Position::new(to.get().saturating_add(1))),
        ..EventFilter::default()
    };
    let (mut events, mut looked_at) = (Vec::new(), 0);
    let mut scan = Scan::new(filter, Order::OldestFirst);
    while let Some(found) = scan.next_batch(log).await? {
        for event in found.events.iter().filter(|event| is_about(event, subject)) {
            if events.len() == MAX_EVENTS {
                return Ok((events, true));
            }
            events.push(event.into());
        }
        looked_at += found.scanned_events;
        if looked_at >= max_scanned_events && found.last_scanned < to {
            return Ok((events, true));
        }
    }
    Ok((events, false))
}

fn is_about(event: &RecordedEvent, subject: Subject) -> bool {
    let Subject::Message(_, _, message) = subject else { return true };
    event.decode().is_ok_and(|event| event.message_number() == Some(message))
}

impl Report for StateThen {}

impl Report for Difference {
    fn diagnostics(&self) -> Vec<Diagnostic> {
        if self.more {
            let shown = self.events.len();
            return vec![Diagnostic::note(format!("only the first {shown} events are shown"))];
        }
        Vec::new()
    }
}
