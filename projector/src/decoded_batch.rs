//! A stretch of the log, decoded and sorted by stream: what a fold works on.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use chat_domain::{Event, MessageNumber, Position, Revision, StreamId, Timestamp, operator_action};
use chat_ports::event_store::{LogId, RecordedEvent};

use crate::dead_letters::{BlockedStreams, DeadLetterReason, DeadLetters};

/// Events from which on two threads share the decoding.
const PARALLEL_DECODE_EVENTS: usize = 16_384;

/// Consecutive events of the log.
#[derive(Debug)]
pub struct DecodedBatch {
    /// The log they are of.
    pub log: LogId,
    /// After which position they start.
    pub from: Position,
    /// Up to where the log is read with them.
    pub to: Position,
    /// The streams they belong to.
    pub streams: Vec<BatchStream>,
    /// The events, in order of position.
    pub events: Vec<BatchEvent>,
}

/// A stream that a stretch touches.
#[derive(Debug)]
pub struct BatchStream {
    /// Its name.
    pub name: Arc<str>,
    /// What the name says.
    pub id: Result<StreamId, DeadLetterReason>,
    /// Whether one of its events is parked.
    pub is_blocked: bool,
}

/// An event on its way into a projection.
#[derive(Debug)]
pub struct BatchEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its stream, as an index into [`DecodedBatch::streams`].
    pub stream: usize,
    /// Its place in the stream.
    pub revision: Revision,
    /// When its writer decided it.
    pub recorded_at: Timestamp,
    /// The type's name, as stored.
    pub event_type: String,
    /// The event, if it can be read.
    pub event: Result<Event, DeadLetterReason>,
    /// Whether an operator gave it up: the stream goes on without it.
    pub is_discarded: bool,
}

impl DecodedBatch {
    /// Decodes events that follow `from` and go up to `to`.
    pub fn decode(log: LogId, from: Position, to: Position, mut recorded: Vec<RecordedEvent>) -> Self {
        let mut streams: Vec<BatchStream> = Vec::new();
        let mut index: HashMap<Arc<str>, usize> = HashMap::new();
        let mut indexes = Vec::with_capacity(recorded.len());
        // What operators do says nothing of apps, chats and messages.
        recorded.retain(|event| *event.stream != *operator_action::STREAM);
        for event in &recorded {
            let stream = *index.entry(Arc::clone(&event.stream)).or_insert_with_key(|name| {
                let id = StreamId::parse(name).map_err(|_| DeadLetterReason::UNKNOWN_STREAM);
                streams.push(BatchStream { name: Arc::clone(name), id, is_blocked: false });
                streams.len() - 1
            });
            indexes.push(stream);
        }
        Self { log, from, to, streams, events: decode_events(recorded, &indexes) }
    }

    /// Events of one stream that were parked, to be tried again where the projection stands.
    pub fn for_retry(log: LogId, at: Position, stream: &str, events: Vec<BatchEvent>) -> Self {
        let id = StreamId::parse(stream).map_err(|_| DeadLetterReason::UNKNOWN_STREAM);
        let streams = vec![BatchStream { name: stream.into(), id, is_blocked: false }];
        Self { log, from: at, to: at, streams, events }
    }

    /// Marks the streams with a parked event from earlier.
    pub fn mark_blocked_streams(&mut self, parked: &BlockedStreams) {
        for stream in &mut self.streams {
            stream.is_blocked = parked.contains(&stream.name);
        }
    }

    /// Applies event after event, and parks those that can't be, with the rest of their streams. Streams that the
    /// projection does not claim are passed over.
    pub fn apply(
        self,
        now: Timestamp,
        mut select: impl FnMut(&StreamId) -> StreamSelection,
        mut apply: impl FnMut(StreamId, Step) -> Result<(), DeadLetterReason>,
    ) -> DeadLetters {
        let mut letters = DeadLetters::default();
        let mut streams = self.streams;
        for incoming in self.events {
            let stream = &mut streams[incoming.stream];
            let BatchEvent {
                position,
                revision,
                recorded_at,
                event_type,
                event,
                is_discarded: discarded,
                ..
            } = incoming;
            let applied = match &stream.id {
                Ok(id) if select(id) == StreamSelection::Ignore => continue,
                _ if stream.is_blocked => Err(DeadLetterReason::BEHIND_DEAD_LETTER),
                Ok(id) if discarded => {
                    let event = event.ok();
                    apply(
                        *id,
                        Step::Gap(SkippedEvent {
                            revision,
                            recorded_at,
                            event_type: event_type.clone(),
                            event,
                        }),
                    )
                }
                Err(_) if discarded => Ok(()),
                Err(reason) => Err(reason.clone()),
                Ok(id) => event.and_then(|event| {
                    apply(*id, Step::Fact(DecodedEvent { position, revision, recorded_at, event }))
                }),
            };
            if let Err(reason) = applied {
                stream.is_blocked = true;
                letters.push(position, &stream.name, revision, &event_type, &reason, now);
            }
        }
        letters
    }
}

/// Decodes events, whose streams have these indexes; many of them on two threads.
fn decode_events(mut recorded: Vec<RecordedEvent>, streams: &[usize]) -> Vec<BatchEvent> {
    let read = |events: Vec<RecordedEvent>, streams: &[usize]| -> Vec<BatchEvent> {
        events.into_iter().zip(streams).map(|(event, stream)| BatchEvent::decode(event, *stream)).collect()
    };
    if recorded.len() < PARALLEL_DECODE_EVENTS {
        return read(recorded, streams);
    }
    let half = recorded.len() / 2;
    let later = recorded.split_off(half);
    let (first, second) = streams.split_at(half);
    thread::scope(|scope| {
        let later = scope.spawn(move || read(later, second));
        let mut events = read(recorded, first);
        events.extend(later.join().unwrap_or_else(|panic| resume_unwind(panic)));
        events
    })
}

impl BatchEvent {
    /// The message that it edits or deletes.
    pub fn modified_message(&self) -> Option<MessageNumber> {
        match self.event.as_ref().ok()? {
            Event::MessageEdited(edited) => Some(edited.message_number),
            Event::MessageDeleted(deleted) => Some(deleted.message_number),
            _ => None,
        }
    }

    /// Decodes an event of the stream with this index.
    pub fn decode(event: RecordedEvent, stream: usize) -> Self {
        let decoded = Event::decode(&event.event_type, event.schema_version, &event.data);
        Self {
            position: event.position,
            stream,
            revision: event.revision,
            recorded_at: event.recorded_at,
            event_type: event.event_type,
            event: decoded.map_err(|error| DeadLetterReason::from(&error)),
            is_discarded: false,
        }
    }
}

/// Whether a projection is about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamSelection {
    /// It is: an event of it is applied or parked.
    Fold,
    /// It is not: whatever its events are, they change nothing.
    Ignore,
}

/// A step of a stream.
#[derive(Debug)]
pub enum Step {
    /// To be applied, or parked.
    Fact(DecodedEvent),
    /// To be left out.
    Gap(SkippedEvent),
}

/// The place of an event that an operator gave up. It uses up what it was given: its revision, and the number of the
/// chat or message that it would have created.
#[derive(Debug)]
pub struct SkippedEvent {
    /// Its place in the stream.
    pub revision: Revision,
    /// When its writer decided it.
    pub recorded_at: Timestamp,
    /// The type's name, as stored.
    pub event_type: String,
    /// The event, if it can be read.
    pub event: Option<Event>,
}

/// An event that could be read.
#[derive(Debug)]
pub struct DecodedEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its place in the stream.
    pub revision: Revision,
    /// When its writer decided it.
    pub recorded_at: Timestamp,
    /// The event.
    pub event: Event,
}
