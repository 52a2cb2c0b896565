//! Events of the log, decoded and grouped by stream: the input of a fold.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use chat_domain::{Event, MessageNumber, Position, Revision, StreamId, Timestamp, operator_action};
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{LogId, RecordedEvent};

use crate::dead_letters::reason::{DeadLetterReason, replace_nul};

/// Batches of at least this many events are decoded on two threads.
const PARALLEL_DECODE_EVENTS: usize = 16_384;

/// Decoded events: either consecutive events of the log, without the operator actions, or the events of dead letters
/// that are retried.
#[derive(Debug)]
pub struct DecodedBatch {
    /// The log of the events.
    pub log: LogId,
    /// The position after which the events start. For a retry, the projection's checkpoint.
    pub from: Position,
    /// The position up to which the log is read. For a retry, the projection's checkpoint.
    pub to: Position,
    /// The streams of the events.
    pub streams: Vec<BatchStream>,
    /// The events, by position.
    pub events: Vec<BatchEvent>,
}

/// A stream with events in a batch.
#[derive(Debug)]
pub struct BatchStream {
    /// Its name.
    pub name: Arc<str>,
    /// The app or chat that the name stands for.
    pub id: Result<StreamId, DeadLetterReason>,
    /// Whether a dead letter blocks it.
    pub is_blocked: bool,
}

/// An event of a batch, which may be unreadable.
#[derive(Debug)]
pub struct BatchEvent {
    /// Its position in the log.
    pub position: Position,
    /// The index of its stream in [`DecodedBatch::streams`].
    pub stream_index: usize,
    /// Its revision in the stream.
    pub revision: Revision,
    /// The time at which it was decided.
    pub recorded_at: Timestamp,
    /// The name of its type, as stored.
    pub event_type: String,
    /// The event, if it can be decoded.
    pub event: Result<Event, DeadLetterReason>,
    /// Whether an operator discarded it: the stream continues without it.
    pub is_discarded: bool,
}

/// A decoded event.
#[derive(Debug)]
pub struct DecodedEvent {
    /// Its position in the log.
    pub position: Position,
    /// Its revision in the stream.
    pub revision: Revision,
    /// The time at which it was decided.
    pub recorded_at: Timestamp,
    /// The event.
    pub event: Event,
}

/// A discarded event. It still uses up its revision, and the number of the chat or message that it would have created.
#[derive(Debug)]
pub struct SkippedEvent {
    /// Its revision in the stream.
    pub revision: Revision,
    /// The time at which it was decided.
    pub recorded_at: Timestamp,
    /// The name of its type, as stored.
    pub event_type: String,
    /// The event, if it can be decoded.
    pub event: Option<Event>,
}

/// The state of a fold over a batch.
pub(crate) trait BatchFold {
    /// Returns whether events of the stream change the projection. Events of other streams are ignored, even if they
    /// can't be decoded.
    fn selects(&self, stream: &StreamId) -> bool;

    /// Applies an event; on an error, the event becomes a dead letter.
    fn apply(&mut self, stream: StreamId, event: DecodedEvent) -> Result<(), DeadLetterReason>;

    /// Continues a stream after a discarded event.
    fn skip(&mut self, stream: StreamId, event: &SkippedEvent);
}

impl DecodedBatch {
    /// Decodes events that follow `from` and go up to `to`.
    pub fn decode(log: LogId, from: Position, to: Position, mut recorded: Vec<RecordedEvent>) -> Self {
        let mut streams: Vec<BatchStream> = Vec::new();
        let mut index_by_name: HashMap<Arc<str>, usize> = HashMap::new();
        let mut stream_indexes = Vec::with_capacity(recorded.len());
        // Operator actions do not concern apps, chats and messages.
        recorded.retain(|event| *event.stream != *operator_action::STREAM);
        for event in &recorded {
            let stream_index = *index_by_name.entry(Arc::clone(&event.stream)).or_insert_with_key(|name| {
                streams.push(BatchStream::new(Arc::clone(name)));
                streams.len() - 1
            });
            stream_indexes.push(stream_index);
        }
        Self { log, from, to, streams, events: decode_events(recorded, &stream_indexes) }
    }

    /// Returns a batch of dead letters of one stream, which are retried while the projection is at `checkpoint`.
    pub fn for_retry(log: LogId, checkpoint: Position, stream: &str, events: Vec<BatchEvent>) -> Self {
        let streams = vec![BatchStream::new(stream.into())];
        Self { log, from: checkpoint, to: checkpoint, streams, events }
    }

    /// Applies the events in order. Returns a dead letter for each event that can't be applied, and for each later
    /// event of its stream.
    pub(crate) fn apply(self, fold: &mut impl BatchFold, now: Timestamp) -> Vec<DeadLetter> {
        let mut dead_letters = Vec::new();
        let mut streams = self.streams;
        for batch_event in self.events {
            let BatchEvent { position, stream_index, revision, recorded_at, event_type, event, is_discarded } =
                batch_event;
            let stream = &mut streams[stream_index];
            let applied = match &stream.id {
                Ok(id) if !fold.selects(id) => continue,
                _ if stream.is_blocked => Err(DeadLetterReason::BEHIND_DEAD_LETTER),
                Ok(id) if is_discarded => {
                    let event_type = event_type.clone();
                    fold.skip(*id, &SkippedEvent { revision, recorded_at, event_type, event: event.ok() });
                    Ok(())
                }
                Err(_) if is_discarded => Ok(()),
                Err(reason) => Err(reason.clone()),
                Ok(id) => event.and_then(|event| {
                    fold.apply(*id, DecodedEvent { position, revision, recorded_at, event })
                }),
            };
            if let Err(reason) = applied {
                stream.is_blocked = true;
                dead_letters.push(DeadLetter {
                    position,
                    stream: replace_nul(&stream.name),
                    revision,
                    event_type: replace_nul(&event_type),
                    reason: reason.as_str().to_owned(),
                    dead_lettered_at: now,
                    discarded: None,
                });
            }
        }
        dead_letters
    }
}

/// Decodes events, each with the index of its stream. Large batches are decoded on two threads.
fn decode_events(mut recorded: Vec<RecordedEvent>, stream_indexes: &[usize]) -> Vec<BatchEvent> {
    let decode = |events: Vec<RecordedEvent>, indexes: &[usize]| -> Vec<BatchEvent> {
        events.into_iter().zip(indexes).map(|(event, index)| BatchEvent::decode(event, *index)).collect()
    };
    if recorded.len() < PARALLEL_DECODE_EVENTS {
        return decode(recorded, stream_indexes);
    }
    let half = recorded.len() / 2;
    let second_half = recorded.split_off(half);
    let (first_indexes, second_indexes) = stream_indexes.split_at(half);
    thread::scope(|scope| {
        let second_half = scope.spawn(move || decode(second_half, second_indexes));
        let mut events = decode(recorded, first_indexes);
        events.extend(second_half.join().unwrap_or_else(|panic| resume_unwind(panic)));
        events
    })
}

impl BatchStream {
    fn new(name: Arc<str>) -> Self {
        let id = StreamId::parse(&name).map_err(|_| DeadLetterReason::UNKNOWN_STREAM);
        Self { name, id, is_blocked: false }
    }
}

impl BatchEvent {
    /// Decodes an event of the stream with this index.
    pub fn decode(event: RecordedEvent, stream_index: usize) -> Self {
        let decoded = Event::decode(&event.event_type, event.schema_version, &event.data);
        Self {
            position: event.position,
            stream_index,
            revision: event.revision,
            recorded_at: event.recorded_at,
            event_type: event.event_type,
            event: decoded.map_err(|error| DeadLetterReason::from(&error)),
            is_discarded: false,
        }
    }

    /// Returns the number of the message that the event edits or deletes.
    pub fn modified_message(&self) -> Option<MessageNumber> {
        match self.event.as_ref().ok()? {
            Event::MessageEdited(edited) => Some(edited.message_number),
            Event::MessageDeleted(deleted) => Some(deleted.message_number),
            _ => None,
        }
    }
}
