//! Explains differences: the expected row or document, and the first event after which the stored one diverges.

use std::collections::HashMap;
use std::sync::Arc;

use chat_domain::operator_action;
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_domain::{Event, Position, StreamId};
use chat_ports::event_store::{EventStore, RecordedEvent};
use chat_ports::projection_contents::{Difference, EntityKey, EntityKind};
use chat_projector::projection::ProjectionStore;
use chat_search::TantivyIndex;
use serde::{Deserialize, Serialize};

use super::context::Projections;
use super::error::{ProjectionsError, projection_error};
use super::scratch_build::{EntityReader, ScratchBuild, read_app_and_chat_streams};
use crate::audit::Subject;
use crate::row_fields::Fields;

/// The maximal number of events that are applied one by one. If a subject has more, only the last ones are applied one
/// by one, and a divergence at an earlier event is attributed to the first of these last ones.
const MAX_STEPPED_EVENTS: usize = 200;
/// The number of events per read of the log.
const PAGE_EVENTS: usize = 4_096;

/// The explanation of a difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedDifference {
    /// The kind of row or document.
    pub kind: EntityKind,
    /// The position of the event that created it, or of the dead letter. In a sample, the position of `first_event`.
    pub began_at: Position,
    /// Whether only the live generation has it, only the other one, or both with different content.
    pub difference: Difference,
    /// The app's token.
    pub app_token: Option<String>,
    /// The chat's number.
    pub chat_number: Option<u64>,
    /// The message's number.
    pub message_number: Option<u64>,
    /// The live row or document.
    pub shown: Option<Fields>,
    /// The row or document that follows from the log.
    pub expected: Option<Fields>,
    /// The first event after which the live content does not follow from the log.
    pub first_event: Option<DivergingEvent>,
}

/// The event at which a row or document diverges from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergingEvent {
    /// Its position in the log.
    pub position: Position,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its stream.
    pub stream: String,
    /// Its revision in the stream.
    pub revision: u64,
    /// When it was recorded.
    pub recorded_at: String,
}

impl From<&RecordedEvent> for DivergingEvent {
    fn from(event: &RecordedEvent) -> Self {
        Self {
            position: event.position,
            event_type: event.event_type.clone(),
            stream: event.stream.to_string(),
            revision: event.revision.get(),
            recorded_at: event.recorded_at.to_string(),
        }
    }
}

/// Reads single rows or documents of the live generation.
pub(super) struct LiveReader {
    pub(super) reader: EntityReader,
    generation_id: ProjectionGeneration,
    store: Arc<dyn ProjectionStore>,
}

impl LiveReader {
    pub(super) fn open(
        projections: &Projections,
        generation_id: ProjectionGeneration,
    ) -> Result<Self, ProjectionsError> {
        let store = projections.store(generation_id);
        let reader = match generation_id.projection {
            ProjectionName::ReadModel => {
                EntityReader::Rows(projections.locations.read_model(generation_id.generation).reader())
            }
            ProjectionName::SearchIndex => {
                let index = TantivyIndex::open(&projections.locations.search_index(generation_id.generation));
                EntityReader::Documents(
                    index.map_err(|error| projection_error(generation_id, &store, error.into()))?,
                )
            }
        };
        Ok(Self { reader, generation_id, store })
    }

    /// Finds the content of a subject. Also returns the position that the content reflects.
    pub(super) async fn find(
        &self,
        subject: Subject,
    ) -> Result<(Position, Option<Fields>), ProjectionsError> {
        self.reader
            .find(subject)
            .await
            .map_err(|error| projection_error(self.generation_id, &self.store, error))
    }
}

/// Explains each difference.
pub(super) async fn explain(
    projections: &Projections,
    live_reader: &LiveReader,
    differences: &[(EntityKey, Difference)],
) -> Result<Vec<ExplainedDifference>, ProjectionsError> {
    let creating_events = read_events_at(&*projections.log, differences).await?;
    let mut explained = Vec::new();
    for (key, difference) in differences {
        let event = creating_events.get(&key.position);
        explained.push(explain_one(projections, live_reader, *key, *difference, event).await?);
    }
    Ok(explained)
}

async fn explain_one(
    projections: &Projections,
    live_reader: &LiveReader,
    key: EntityKey,
    difference: Difference,
    creating_event: Option<&RecordedEvent>,
) -> Result<ExplainedDifference, ProjectionsError> {
    let subject = creating_event.and_then(created_subject);
    let mut explained = ExplainedDifference {
        kind: key.kind,
        began_at: key.position,
        difference,
        app_token: subject.map(|subject| subject.app().expose().to_owned()),
        chat_number: subject.and_then(Subject::chat).map(chat_domain::ChatNumber::get),
        message_number: subject.and_then(Subject::message).map(chat_domain::MessageNumber::get),
        shown: None,
        expected: None,
        first_event: creating_event.map(DivergingEvent::from),
    };
    let Some(subject) = subject.filter(|_| key.kind != EntityKind::DeadLetter) else { return Ok(explained) };
    let Divergence { shown, expected, first_event } =
        find_divergence(projections, live_reader, subject).await?;
    (explained.shown, explained.expected) = (shown, expected);
    explained.first_event = first_event.or(explained.first_event);
    Ok(explained)
}

/// The divergence of a subject's live content from the log.
pub(super) struct Divergence {
    /// The live content.
    pub(super) shown: Option<Fields>,
    /// The content that follows from the log at the same position.
    pub(super) expected: Option<Fields>,
    /// The first event after which the two differ.
    pub(super) first_event: Option<DivergingEvent>,
}

/// Finds the divergence of a subject.
pub(super) async fn find_divergence(
    projections: &Projections,
    live_reader: &LiveReader,
    subject: Subject,
) -> Result<Divergence, ProjectionsError> {
    let (position, shown) = live_reader.find(subject).await?;
    let mut events = read_app_and_chat_streams(&*projections.log, subject.app(), subject.chat()).await?;
    events.retain(|event| event.position <= position);
    let affecting: Vec<RecordedEvent> =
        events.iter().filter(|event| affects(event, subject)).cloned().collect();
    let log_id = projections.log.log_id().await?;
    let mut scratch = ScratchBuild::new(&live_reader.reader, &projections.log, log_id, events).await?;
    let (skipped, stepped) = affecting.split_at(affecting.len().saturating_sub(MAX_STEPPED_EVENTS));
    if let Some(last) = skipped.last() {
        scratch.advance(last.position).await?;
    }
    let mut states = Vec::with_capacity(stepped.len());
    for event in stepped {
        scratch.advance(event.position).await?;
        states.push(scratch.find(subject).await?);
    }
    let expected = states.last().cloned().flatten();
    let first = find_first_divergence(shown.as_ref(), &states).and_then(|index| stepped.get(index));
    Ok(Divergence { shown, expected, first_event: first.map(DivergingEvent::from) })
}

/// Finds the index of the first event after which the live content is wrong. `states` has the expected content after
/// each event.
fn find_first_divergence(shown: Option<&Fields>, states: &[Option<Fields>]) -> Option<usize> {
    let expected = states.last()?;
    if shown == expected.as_ref() {
        // The difference is in a field that queries do not return.
        return Some(states.len() - 1);
    }
    if let Some(last_good) = states.iter().rposition(|state| state.as_ref() == shown) {
        // The row has the content that it had to have after an earlier event, so the event after that one was not
        // applied.
        return Some(last_good + 1);
    }
    let (Some(shown), Some(expected)) = (shown, expected) else {
        // The row should have been deleted, or was never created.
        return Some(if shown.is_some() { states.len() - 1 } else { 0 });
    };
    let is_wrong = |field: &&str| shown.get(*field) != expected.get(*field);
    // The index of the event that gave a field its expected value.
    let set_at = |field: &str| {
        let value = expected.get(field);
        let differs = |state: &Option<Fields>| state.as_ref().and_then(|fields| fields.get(field)) != value;
        states.iter().rposition(differs).map_or(0, |last| last + 1)
    };
    expected.keys().map(AsRef::as_ref).filter(is_wrong).map(set_at).min().or(Some(states.len() - 1))
}

/// Whether an event may affect a subject.
fn affects(event: &RecordedEvent, subject: Subject) -> bool {
    // Operator actions on dead letters may affect any subject.
    if *event.stream == *operator_action::STREAM {
        return true;
    }
    let decoded = event.decode();
    match subject {
        Subject::App(app) => *event.stream == *StreamId::App(app).to_string(),
        Subject::Chat(app, chat) => match decoded {
            Ok(Event::ChatCreated(created)) => created.chat_number == chat,
            _ => *event.stream == *StreamId::Chat(app, chat).to_string(),
        },
        Subject::Message(_, _, message) => decoded.is_ok_and(|event| event.message_number() == Some(message)),
    }
}

/// Returns the subject that an event created.
fn created_subject(event: &RecordedEvent) -> Option<Subject> {
    let stream = StreamId::parse(&event.stream).ok()?;
    Some(match (stream, event.decode().ok()?) {
        (StreamId::App(app), Event::AppCreated(_)) => Subject::App(app),
        (StreamId::App(app), Event::ChatCreated(created)) => Subject::Chat(app, created.chat_number),
        (StreamId::Chat(app, chat), Event::MessageCreated(created)) => {
            Subject::Message(app, chat, created.message_number)
        }
        _ => return None,
    })
}

/// Reads the events at the positions of the differences. Omits positions without an event.
async fn read_events_at(
    log: &dyn EventStore,
    differences: &[(EntityKey, Difference)],
) -> Result<HashMap<Position, RecordedEvent>, ProjectionsError> {
    let mut positions: Vec<Position> = differences.iter().map(|(key, _)| key.position).collect();
    positions.sort_unstable();
    positions.dedup();
    let mut events_by_position = HashMap::new();
    if log.has_contiguous_positions() {
        for position in positions {
            let before = Position::new(position.get().saturating_sub(1));
            let event = log.read_all(before, 1).await?.pop().filter(|event| event.position == position);
            events_by_position.extend(event.map(|event| (position, event)));
        }
        return Ok(events_by_position);
    }
    // A read can only start at the position of an event, so the log is read from its start up to the last position.
    let mut from = Position::START;
    while positions.last().is_some_and(|last| from < *last) {
        let events = log.read_all(from, PAGE_EVENTS).await?;
        let Some(last) = events.last() else { break };
        from = last.position;
        let hits = events.into_iter().filter(|event| positions.binary_search(&event.position).is_ok());
        events_by_position.extend(hits.map(|event| (event.position, event)));
    }
    Ok(events_by_position)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::row_fields::{attribute_fields, json_fields};

    fn row(body: &str, version: u64) -> Fields {
        json_fields([("body", json!(body)), ("version", json!(version))]).collect()
    }

    fn first_divergence(shown: Option<&Fields>, states: Vec<Fields>) -> Option<usize> {
        find_first_divergence(shown, &states.into_iter().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn an_outdated_row_diverges_at_the_next_event() {
        let states = vec![row("a", 1), row("b", 2), row("c", 3)];
        assert_eq!(first_divergence(Some(&row("a", 1)), states.clone()), Some(1));
        assert_eq!(first_divergence(Some(&row("b", 2)), states), Some(2));
    }

    #[test]
    fn a_missing_row_diverges_at_its_creation() {
        assert_eq!(first_divergence(None, vec![row("a", 1), row("b", 2)]), Some(0));
    }

    #[test]
    fn a_wrong_field_diverges_at_the_event_that_set_it() {
        let states = vec![row("a", 1), row("b", 2), row("b", 3)];
        assert_eq!(first_divergence(Some(&row("altered", 3)), states.clone()), Some(1));
        assert_eq!(first_divergence(Some(&row("b", 9)), states), Some(2));
    }

    #[test]
    fn data_that_differs_beyond_64_bits_diverges() {
        let with_data = |version: u64, data: &str| -> Fields {
            let data = data.parse().unwrap();
            row("a", version).into_iter().chain(attribute_fields(None, Some(&data))).collect()
        };
        for (shown, expected) in [
            (r#"{"n":12345678901234567890123}"#, r#"{"n":12345678901234567890124}"#),
            (r#"{"n":0.10000000000000000001}"#, r#"{"n":0.10000000000000000002}"#),
        ] {
            let states = vec![row("a", 1), with_data(2, expected), with_data(3, expected)];
            assert_eq!(first_divergence(Some(&with_data(3, shown)), states), Some(1));
        }
    }

    #[test]
    fn an_undeleted_row_diverges_at_its_deletion() {
        assert_eq!(find_first_divergence(Some(&row("x", 1)), &[Some(row("a", 1)), None]), Some(1));
    }
}
