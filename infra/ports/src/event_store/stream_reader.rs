//! Reads streams for commands. Passes over unreadable events that operators have discarded.

use std::collections::HashSet;
use std::sync::Arc;

use chat_domain::event::DecodeError;
use chat_domain::operator_action;
use chat_domain::projection::ProjectionName;
use chat_domain::{Event, EvolveError, OperatorAction, Position, Revision};
use thiserror::Error;

use super::{EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead};

/// The limit of one read of operator actions, and of one read of the creation events before a discarded one.
const READ_EVENTS: usize = 256;

/// The positions of the events that operators have discarded from the read model. Commands pass over
/// those that they can't read, so that commands and the read model assign the same numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscardedEvents(HashSet<Position>);

impl DiscardedEvents {
    /// Reads the discards among the operator actions of the log.
    pub async fn load(log: &dyn EventStore) -> Result<Self, EventStoreError> {
        let (mut positions, mut from) = (HashSet::new(), Revision::FIRST);
        loop {
            let read = StreamRead::all(operator_action::STREAM, ReadStart::Forwards(from), READ_EVENTS)
                .filtered(EventTypeFilter::Only("DeadLetterDiscarded"));
            let actions = log.read_stream(read).await?;
            let Some(last) = actions.last() else { return Ok(Self(positions)) };
            from = last.revision.next();
            positions.extend(actions.iter().filter_map(discarded_position));
        }
    }

    /// Whether the event at this position is discarded.
    pub fn contains(&self, position: Position) -> bool {
        self.0.contains(&position)
    }
}

/// The position of the event that an operator action discards from the read model; `None` if it discards none. An
/// action that can't be decoded does nothing, as in the projections.
fn discarded_position(action: &RecordedEvent) -> Option<Position> {
    match OperatorAction::decode(&action.event_type, action.schema_version, &action.data).ok()? {
        OperatorAction::DeadLetterDiscarded(discarded) => {
            (discarded.projection == ProjectionName::ReadModel).then_some(discarded.position)
        }
        _ => None,
    }
}

/// An event that commands can't pass over: it can't be read, and no operator has discarded it.
#[derive(Debug, Error)]
#[error("the event at position {position} can't be read, and no operator has discarded it")]
pub struct UnreadableEvent {
    /// The event's position.
    pub position: Position,
    /// Why it can't be read.
    #[source]
    pub cause: UnreadableCause,
}

/// The reason why an event can't be read.
#[derive(Debug, Error)]
pub enum UnreadableCause {
    /// It can't be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It does not follow from the events before it.
    #[error(transparent)]
    Evolve(#[from] EvolveError),
    /// It creates a chat or a message whose number is higher than the number of events in the stream up to and
    /// including this one.
    #[error("its number is higher than its revision allows")]
    NumberTooHigh,
    /// The store returned an event of another type than it was asked for.
    #[error("it is of another type than the store says")]
    OtherType,
}

/// An error of [`StreamReader`].
#[derive(Debug, Error)]
pub enum StreamReadError {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] EventStoreError),
    /// An event can't be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableEvent),
}

/// Reads streams and decodes their events. Reads the operator actions once, at the first event that can't be
/// read.
pub struct StreamReader<'a> {
    log: &'a dyn EventStore,
    discarded: Option<DiscardedEvents>,
}

impl<'a> StreamReader<'a> {
    /// Creates a reader of this log.
    pub fn new(log: &'a dyn EventStore) -> Self {
        Self { log, discarded: None }
    }

    /// The log.
    pub fn log(&self) -> &'a dyn EventStore {
        self.log
    }

    /// Returns the last event of a stream.
    pub async fn last_event(
        &self,
        stream: impl Into<Arc<str>>,
    ) -> Result<Option<RecordedEvent>, EventStoreError> {
        Ok(self.log.read_stream(StreamRead::last_event(stream)).await?.pop())
    }

    /// Decodes an event. `None` if it can't be decoded and an operator has discarded it.
    pub async fn decode(&mut self, event: &RecordedEvent) -> Result<Option<Event>, StreamReadError> {
        match event.decode() {
            Ok(decoded) => Ok(Some(decoded)),
            Err(cause) => self.require_discarded(event, cause.into()).await.map(|()| None),
        }
    }

    /// Succeeds if an operator has discarded the event. Fails with `cause` otherwise.
    pub async fn require_discarded(
        &mut self,
        event: &RecordedEvent,
        cause: UnreadableCause,
    ) -> Result<(), StreamReadError> {
        let discarded = match &mut self.discarded {
            Some(discarded) => discarded,
            not_loaded => not_loaded.insert(DiscardedEvents::load(self.log).await?),
        };
        if discarded.contains(event.position) {
            return Ok(());
        }
        Err(UnreadableEvent { position: event.position, cause }.into())
    }

    /// Finds the highest number among the stream's events of the type `creation_type`; `None` if it has none. A
    /// discarded creation event counts: its number is one more than that of the creation event before it, as in the
    /// read model.
    ///
    /// `last` is the last event of the stream that the caller has read. Ignores events that other processes append
    /// after it.
    pub async fn last_number(
        &mut self,
        last: &RecordedEvent,
        creation_type: &'static str,
    ) -> Result<Option<u64>, StreamReadError> {
        // Decoded even if its type is not `creation_type`, so that an unreadable event is an error.
        let decoded = self.decode(last).await?;
        let mut discarded_count = 0;
        let mut start = last.revision;
        // One creation event is enough, unless it is discarded.
        let mut limit = 1;
        if last.event_type == creation_type {
            match self.created_number(last, decoded).await? {
                Some(number) => return Ok(Some(number)),
                None => discarded_count += 1,
            }
            let Some(earlier) = previous(start) else { return Ok(Some(discarded_count)) };
            (start, limit) = (earlier, READ_EVENTS);
        }
        loop {
            let read = StreamRead::all(Arc::clone(&last.stream), ReadStart::Backwards(start), limit)
                .filtered(EventTypeFilter::Only(creation_type));
            let events = self.log.read_stream(read).await?;
            for event in &events {
                let decoded = self.decode(event).await?;
                match self.created_number(event, decoded).await? {
                    Some(number) => return Ok(Some(number + discarded_count)),
                    None => discarded_count += 1,
                }
            }
            let Some(earlier) = events.last().and_then(|event| previous(event.revision)) else {
                return Ok((discarded_count > 0).then_some(discarded_count));
            };
            (start, limit) = (earlier, READ_EVENTS);
        }
    }

    /// Returns the number of a creation event; `None` if the event is discarded.
    async fn created_number(
        &mut self,
        event: &RecordedEvent,
        decoded: Option<Event>,
    ) -> Result<Option<u64>, StreamReadError> {
        let number = match decoded {
            Some(Event::ChatCreated(created)) => created.chat_number.get(),
            Some(Event::MessageCreated(created)) => created.message_number.get(),
            Some(_) => return self.require_discarded(event, UnreadableCause::OtherType).await.map(|()| None),
            None => return Ok(None),
        };
        if number > event.revision.next().get() {
            return self.require_discarded(event, UnreadableCause::NumberTooHigh).await.map(|()| None);
        }
        Ok(Some(number))
    }
}

fn previous(revision: Revision) -> Option<Revision> {
    revision.get().checked_sub(1).map(Revision::new)
}
