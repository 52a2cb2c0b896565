//! Past states of a subject, and the difference between two of them.

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use serde::Serialize;
use utoipa::ToSchema;

use super::event::{AuditedEvent, EventReference};
use super::filter::EventFilter;
use super::scan::{Order, Scan};
use super::subject::{Subject, SubjectName};
use super::subject_state::{Existence, Field, subject_state};
use crate::envelope::{Diagnostic, Report};
use crate::row_fields::FieldValue;

/// The maximal number of events that a difference lists.
const MAX_EVENTS: usize = 100;

/// The state of a subject at a position.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PastState {
    /// The subject.
    pub subject: SubjectName,
    /// The state includes all events of the subject up to and including this position.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Whether the subject existed.
    pub existence: Existence,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// The difference between the states at two positions.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = StateDifference)]
pub struct Difference {
    /// The subject.
    pub subject: SubjectName,
    /// The position after which the difference begins.
    #[schema(value_type = u64)]
    pub from: Position,
    /// The position at which the difference ends. An event at this position is included.
    #[schema(value_type = u64)]
    pub to: Position,
    /// Whether the subject existed at the start.
    pub before: Existence,
    /// Whether the subject existed at the end.
    pub after: Existence,
    /// The fields whose values differ.
    pub changes: Vec<Change>,
    /// The subject's events after `from`, up to and including `to`, oldest first: the first hundred of those that were
    /// scanned.
    pub events: Vec<AuditedEvent>,
    /// Whether the subject may have more events in this range than `events` lists.
    pub more: bool,
}

/// A field whose value differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FieldChange)]
pub struct Change {
    /// Its name.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// Its value at the start; `null` if there was none.
    #[schema(value_type = Value)]
    pub before: FieldValue,
    /// Its value at the end; `null` if there is none.
    #[schema(value_type = Value)]
    pub after: FieldValue,
    /// The event that set the value at the end; `null` if the field has no value there.
    pub set_by: Option<EventReference>,
}

/// Computes the state of a subject after the event at a position.
pub async fn state_at(
    log: &dyn EventStore,
    position: Position,
    subject: Subject,
) -> Result<PastState, EventStoreError> {
    let state = subject_state(log, subject, position).await?;
    Ok(PastState { subject: subject.into(), position, existence: state.existence, fields: state.fields })
}

/// Computes the changes of a subject after `from`, up to and including `to`. Scans at most about `max_scanned_events`
/// events to list the events of the subject in this range.
pub async fn difference(
    log: &dyn EventStore,
    from: Position,
    to: Position,
    subject: Subject,
    max_scanned_events: u64,
) -> Result<Difference, EventStoreError> {
    let state_before = subject_state(log, subject, from).await?;
    let state_after = subject_state(log, subject, to).await?;
    let mut changes = Vec::new();
    for field in &state_after.fields {
        let old_value = state_before.field(field.name).map(|old| old.value.clone()).unwrap_or_default();
        if old_value != field.value {
            let set_by = Some(field.set_by.clone());
            changes.push(Change { name: field.name, before: old_value, after: field.value.clone(), set_by });
        }
    }
    for removed in state_before.fields.iter().filter(|field| state_after.field(field.name).is_none()) {
        let (before, after) = (removed.value.clone(), FieldValue::NULL);
        changes.push(Change { name: removed.name, before, after, set_by: None });
    }
    let (events, more) = events_between(log, from, to, subject, max_scanned_events).await?;
    let (before, after) = (state_before.existence, state_after.existence);
    Ok(Difference { subject: subject.into(), from, to, before, after, changes, events, more })
}

async fn events_between(
    log: &dyn EventStore,
    from: Position,
    to: Position,
    subject: Subject,
    max_scanned_events: u64,
) -> Result<(Vec<AuditedEvent>, bool), EventStoreError> {
    let chat = subject.chat();
    let filter = EventFilter {
        // Only events of the app's own stream change the app. Events of its chats' streams do not.
        stream: chat.is_none().then(|| subject.stream()),
        app: Some(subject.app()),
        chat,
        after: Some(from),
        before: Some(Position::new(to.get().saturating_add(1))),
        ..EventFilter::default()
    };
    let (mut events, mut scanned) = (Vec::new(), 0);
    let mut scan = Scan::new(filter, Order::OldestFirst);
    while let Some(batch) = scan.next_batch(log).await? {
        for event in batch.events.iter().filter(|event| concerns_subject(event, subject)) {
            if events.len() == MAX_EVENTS {
                return Ok((events, true));
            }
            events.push(event.into());
        }
        scanned += batch.scanned_events;
        if scanned >= max_scanned_events && batch.last_scanned < to {
            return Ok((events, true));
        }
    }
    Ok((events, false))
}

fn concerns_subject(event: &RecordedEvent, subject: Subject) -> bool {
    let Subject::Message(_, _, message) = subject else { return true };
    event.decode().is_ok_and(|event| event.message_number() == Some(message))
}

impl Report for PastState {}

impl Report for Difference {
    fn diagnostics(&self) -> Vec<Diagnostic> {
        if self.more {
            let shown = self.events.len();
            return vec![Diagnostic::note(format!(
                "the list of events ends after {shown}; there may be more"
            ))];
        }
        Vec::new()
    }
}
