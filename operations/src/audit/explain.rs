//! Explains a row of the read model: each field with the event that set it, and whether row and log agree.

use std::sync::Arc;

use chat_domain::{ChatNumber, MessageNumber, Position};
use chat_ports::dead_letter::{DeadLetter, DeadLetterFilter, DeadLetterQuery, DiscardRecord};
use chat_ports::event_store::{
    EventStore, EventStoreError, LogMismatch, ReadStart, RecordedEvent, StreamRead,
};
use chat_ports::read_model::{ReadModel, ReadModelError};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use utoipa::ToSchema;

use super::event::EventReference;
use super::read_model_row::{self, Row};
use super::seek;
use super::subject::{Subject, SubjectName};
use super::subject_state::{AFTER_ALL_EVENTS, Existence, SubjectState, subject_state};
use crate::envelope::{Diagnostic, Report};
use crate::projections::find_mismatch;
use crate::row_fields::FieldValue;

/// The maximal number of dead letters that one read of a stream's dead letters returns.
const DEAD_LETTERS_PER_PAGE: usize = 1_000;

/// The maximal number of dead letters of the subject that are listed.
const MAX_LISTED_DEAD_LETTERS: usize = 10;

/// The explanation of a row.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// The subject.
    pub subject: SubjectName,
    /// Whether the row exists.
    pub row: Existence,
    /// Whether the subject exists in the log, up to the position of the read model.
    pub log: Existence,
    /// Whether row and log agree.
    pub agrees: bool,
    /// The fields.
    pub fields: Vec<ExplainedField>,
    /// The position of the read model.
    #[schema(value_type = u64)]
    pub read_model_position: Position,
    /// Why the read model has events that the log has not, if it has any. Programs find this in the diagnostics.
    #[serde(skip)]
    #[schema(ignore)]
    pub mismatch: Option<LogMismatch>,
    /// The number of events of the subject's stream after the position of the read model. The row does not include them
    /// yet.
    pub newer_events: u64,
    /// The first pending dead letters of the subject's stream and of its app's stream. The read model has applied
    /// neither these events nor later ones of the same stream.
    #[serde(rename = "parked")]
    pub dead_letters: Vec<ExplainedDeadLetter>,
    /// Discarded events about the subject, a part of it, its chat or its app. Programs find them in the diagnostics.
    #[serde(skip)]
    #[schema(ignore)]
    pub discarded: Vec<DiscardedEvent>,
}

/// An event that the read model could not apply, and that an operator discarded.
#[derive(Clone, Debug)]
pub struct DiscardedEvent {
    /// Its position in the log.
    pub position: Position,
    /// Its type's name.
    pub event_type: String,
    /// The operator action that discarded it.
    pub record: DiscardRecord,
}

/// A field, the event that set it, and whether row and log agree on it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExplainedField {
    /// Its name.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// Its value in the row, or in the log if the message is deleted in both; `null` if there is none.
    #[schema(value_type = Value)]
    pub value: FieldValue,
    /// Its value in the log, if that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub by_the_log: Option<FieldValue>,
    /// The event that set it; `null` if the log has none.
    pub set_by: Option<EventReference>,
}

impl ExplainedField {
    /// Whether row and log differ on the field.
    pub fn differs(&self) -> bool {
        self.by_the_log.is_some()
    }
}

/// An event that the read model could not apply.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExplainedDeadLetter {
    /// Its position in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its type's name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Why it could not be applied.
    pub reason: String,
}

/// Why a row could not be explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// The log could not be read.
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    /// The read model could not be read.
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
}

/// Explains the row of a subject, compared with the log up to the position of the read model.
pub async fn explain(
    log: &dyn EventStore,
    read_model: &dyn ReadModel,
    subject: Subject,
) -> Result<Explanation, ExplainError> {
    let row = read_model_row::read_row(read_model, subject).await?;
    let dead_letters = read_dead_letters(log, read_model, subject).await?;
    let expected = subject_state(log, subject, row.position).await?;
    let newer_events = count_newer_events(log, subject, row.position).await?;
    let checkpoint = read_model.checkpoint().await?;
    // After the checkpoint: a projector may have applied later events meanwhile.
    let mismatch = find_mismatch(&checkpoint, &log.lineage().await?, log.head().await?);
    let fields = compare_fields(&row, &expected);
    let agrees = row.existence == expected.existence && !fields.iter().any(ExplainedField::differs);
    Ok(Explanation {
        subject: subject.into(),
        row: row.existence,
        log: expected.existence,
        agrees,
        fields,
        read_model_position: row.position,
        mismatch,
        newer_events,
        dead_letters: dead_letters.pending,
        discarded: dead_letters.discarded,
    })
}

fn compare_fields(row: &Row, expected: &SubjectState) -> Vec<ExplainedField> {
    let row_value =
        |name: &str| row.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
    let mut fields: Vec<ExplainedField> = expected
        .fields
        .iter()
        .map(|field| {
            let value = row_value(field.name).unwrap_or_default();
            // The read model returns no fields of deleted messages.
            let is_deleted_in_both =
                row.existence == Existence::Deleted && expected.existence == Existence::Deleted;
            let value = if is_deleted_in_both { field.value.clone() } else { value };
            let by_the_log = (value != field.value).then(|| field.value.clone());
            ExplainedField { name: field.name, value, by_the_log, set_by: Some(field.set_by.clone()) }
        })
        .collect();
    for (name, value) in row.fields.iter().filter(|(name, _)| expected.field(name).is_none()) {
        fields.push(ExplainedField {
            name,
            value: value.clone(),
            by_the_log: Some(FieldValue::NULL),
            set_by: None,
        });
    }
    fields
}

/// Counts the events of the subject's stream after a position.
async fn count_newer_events(
    log: &dyn EventStore,
    subject: Subject,
    position: Position,
) -> Result<u64, EventStoreError> {
    let stream = subject.stream();
    let count = |revision: Option<chat_domain::Revision>| revision.map_or(0, |revision| revision.get() + 1);
    let included = count(seek::last_revision_up_to(log, &stream, position).await?);
    let total = count(seek::last_revision_up_to(log, &stream, AFTER_ALL_EVENTS).await?);
    Ok(total - included.min(total))
}

/// The dead letters of the subject's stream and its app's stream.
#[derive(Default)]
struct DeadLettersOfSubject {
    /// Pending dead letters, whatever they are about.
    pending: Vec<ExplainedDeadLetter>,
    /// Discarded dead letters that are about the subject, as [`concerns`] says.
    discarded: Vec<DiscardedEvent>,
}

/// Reads the first [`MAX_LISTED_DEAD_LETTERS`] pending and as many discarded dead letters.
async fn read_dead_letters(
    log: &dyn EventStore,
    read_model: &dyn ReadModel,
    subject: Subject,
) -> Result<DeadLettersOfSubject, ExplainError> {
    let mut found = DeadLettersOfSubject::default();
    for stream in streams_of(subject) {
        let (mut pending, mut discarded) = (Vec::new(), Vec::new());
        let mut after = Position::START;
        // Only the first pending dead letter of a stream can be discarded, so no discarded one comes after a pending
        // one. So no discarded one is missed when the loop ends because `pending` is full.
        while pending.len() < MAX_LISTED_DEAD_LETTERS {
            let page = read_model.dead_letter_page(stream_query(&stream, after)).await?.dead_letters;
            let Some(last) = page.last().map(|listed| listed.dead_letter.position) else { break };
            after = last;
            for listed in page {
                let DeadLetter { position, revision, event_type, reason, discarded: record, .. } =
                    listed.dead_letter;
                let Some(record) = record else {
                    if pending.len() < MAX_LISTED_DEAD_LETTERS {
                        pending.push(ExplainedDeadLetter { position, event_type, reason });
                    }
                    continue;
                };
                if discarded.len() >= MAX_LISTED_DEAD_LETTERS {
                    continue;
                }
                let read = StreamRead::all(&*stream, ReadStart::Forwards(revision), 1);
                let event = log.read_stream(read).await?.pop();
                if event.is_none_or(|event| concerns(&event, subject)) {
                    discarded.push(DiscardedEvent { position, event_type, record });
                }
            }
        }
        found.pending.append(&mut pending);
        found.discarded.append(&mut discarded);
    }
    found.pending.sort_by_key(|dead_letter| dead_letter.position);
    found.pending.truncate(MAX_LISTED_DEAD_LETTERS);
    found.discarded.sort_by_key(|event| event.position);
    found.discarded.truncate(MAX_LISTED_DEAD_LETTERS);
    Ok(found)
}

/// The subject's stream and its app's stream.
fn streams_of(subject: Subject) -> Vec<Arc<str>> {
    let mut streams = vec![subject.stream()];
    let app_stream = Subject::App(subject.app()).stream();
    if !streams.contains(&app_stream) {
        streams.push(app_stream);
    }
    streams
}

/// A query for a page of the dead letters of a stream after a position, both pending and discarded ones.
fn stream_query(stream: &str, after: Position) -> DeadLetterQuery {
    DeadLetterQuery {
        after,
        limit: DEAD_LETTERS_PER_PAGE,
        filter: DeadLetterFilter::All,
        stream: Some(stream.to_owned()),
    }
}

/// Whether an event of a subject's streams is about the subject, a part of it, its chat or its app. A damaged event
/// that names no message or chat counts as an event about the subject.
fn concerns(event: &RecordedEvent, subject: Subject) -> bool {
    let payload: Value = serde_json::from_slice(&event.data).unwrap_or_default();
    let is_about = |field: &str, number: Option<u64>| {
        let named = payload[field].as_u64();
        named.is_none() || number.is_none() || named == number
    };
    is_about("message_number", subject.message().map(MessageNumber::get))
        && is_about("chat_number", subject.chat().map(ChatNumber::get))
}

impl Report for Explanation {
    fn has_findings(&self) -> bool {
        !self.agrees
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut diagnostics = Vec::new();
        if !self.agrees {
            let position = self.read_model_position;
            diagnostics.push(Diagnostic::warning(match self.mismatch {
                Some(mismatch) => {
                    format!("the row differs from the log, and the read model has events that the log has not: {mismatch}")
                }
                None => {
                    format!("the row differs from the log up to position {position}, the position of the read model")
                }
            }));
        }
        if let Some(first) = self.dead_letters.first() {
            diagnostics.push(Diagnostic::warning(format!(
                "events of its stream are dead letters of the read model, the first at position {}: {}",
                first.position, first.reason
            )));
        }
        for DiscardedEvent { position, event_type, record } in &self.discarded {
            diagnostics.push(Diagnostic::note(format!(
                "the event at position {position}, {event_type}, was discarded by the operator action at position {}: {}",
                record.by, record.reason
            )));
        }
        match self.newer_events {
            0 => {}
            1 => diagnostics.push(Diagnostic::note("the log has a later event of its stream")),
            more => {
                diagnostics.push(Diagnostic::note(format!("the log has {more} later events of its stream")));
            }
        }
        diagnostics
    }
}
