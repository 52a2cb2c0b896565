//! Loading of stream states: reads as few events of the log as the decisions need.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::DecodeError;
use chat_domain::{AppToken, ChatNumber, Event, EvolveError, Revision, StreamId, Version, app, chat};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead,
};
use thiserror::Error;
use tokio::time::Instant;

use super::stream_state::{AggregateState, FoldDepth, StreamState};
use crate::command::{CommandError, Rejection};

/// How long a writer waits until the log holds the numbers before its own. The process that reserved them appends them
/// within milliseconds, or has died.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_millis(400);

/// How often a waiting writer reads the stream.
const PREDECESSOR_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The number of edits and deletions in one read.
const READ_BATCH: usize = 1_000;

/// The reason why a stream's state could not be loaded.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Store(#[from] EventStoreError),
    #[error("an event of the log can't be read")]
    Decode(#[from] DecodeError),
    #[error("the log is inconsistent")]
    Evolve(#[from] EvolveError),
    #[error("the event store returned an event of another type")]
    UnexpectedEventType,
    #[error("loading the stream panicked")]
    Panicked,
}

impl From<LoadError> for CommandError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Rejected(rejection) => Self::Rejected(rejection),
            LoadError::Store(error) if error.is_retryable() => Self::EventStoreUnavailable(Arc::new(error)),
            error => Self::Internal(Arc::new(error)),
        }
    }
}

impl StreamState {
    /// Loads the state of an app's or a chat's stream. `chat_exists` saves the search for the chat in its app's stream.
    pub(super) async fn load(
        event_store: &dyn EventStore,
        stream: StreamId,
        depth: FoldDepth,
        chat_exists: bool,
    ) -> Result<Self, LoadError> {
        match stream {
            StreamId::App(app) => load_app(event_store, app).await,
            StreamId::Chat(app, number) => {
                if !chat_exists {
                    require_chat(event_store, app, number).await?;
                }
                load_chat(event_store, stream, depth).await
            }
        }
    }

    /// Loads a chat's or an app's state as soon as the log holds the numbers before `first`, or after a timeout.
    pub(super) async fn load_after_predecessor(
        event_store: &dyn EventStore,
        stream: StreamId,
        depth: FoldDepth,
        first: u64,
    ) -> Result<Self, LoadError> {
        let started = Instant::now();
        let deadline = started + PREDECESSOR_TIMEOUT;
        loop {
            // Numbers are reserved only for an existing chat.
            let state = Self::load(event_store, stream, depth, true).await?;
            if state.next_number() >= first || Instant::now() >= deadline {
                metrics::histogram!("command_predecessor_wait_seconds").record(started.elapsed());
                return Ok(state);
            }
            tokio::time::sleep(PREDECESSOR_POLL_INTERVAL).await;
        }
    }

    /// Returns the cached state if the stream still ends at the same revision.
    pub(super) async fn revalidate(
        self,
        event_store: &dyn EventStore,
        stream: StreamId,
    ) -> Result<Option<Self>, LoadError> {
        let last = last_event(event_store, stream).await?;
        Ok((last.map(|event| event.revision) == self.last_revision).then_some(self))
    }
}

async fn load_app(event_store: &dyn EventStore, app: AppToken) -> Result<StreamState, LoadError> {
    let Some(last) = last_event(event_store, StreamId::App(app)).await? else {
        return Ok(StreamState::ABSENT_APP);
    };
    let last_chat = match last_of_type(event_store, &last, "ChatCreated").await? {
        Some(Event::ChatCreated(created)) => Some(created.chat_number),
        Some(_) => return Err(LoadError::UnexpectedEventType),
        None => None,
    };
    let state = app::State::Present { last_chat, version: Version::new(last.revision.next().get()) };
    Ok(StreamState {
        last_revision: Some(last.revision),
        position: last.position,
        aggregate: AggregateState::App(state),
    })
}

async fn require_chat(
    event_store: &dyn EventStore,
    app: AppToken,
    number: ChatNumber,
) -> Result<(), LoadError> {
    let StreamState { aggregate: AggregateState::App(state), .. } = load_app(event_store, app).await? else {
        return Err(LoadError::UnexpectedEventType);
    };
    match state {
        app::State::Absent => Err(Rejection::AppNotFound.into()),
        present if present.has_chat(number) => Ok(()),
        app::State::Present { .. } => Err(Rejection::ChatNotFound.into()),
    }
}

async fn load_chat(
    event_store: &dyn EventStore,
    stream: StreamId,
    depth: FoldDepth,
) -> Result<StreamState, LoadError> {
    let Some(last) = last_event(event_store, stream).await? else {
        return Ok(StreamState::empty_chat());
    };
    let last_message = match last_of_type(event_store, &last, "MessageCreated").await? {
        Some(Event::MessageCreated(created)) => Some(created.message_number),
        Some(_) => return Err(LoadError::UnexpectedEventType),
        None => None,
    };
    let state = chat::State::with_messages(last_message);
    // If there are as many messages as events, none was edited or deleted.
    let unchanged = last_message.is_some_and(|number| number.get() == last.revision.next().get());
    let (state, depth) = match depth {
        _ if unchanged => (state, FoldDepth::Full),
        FoldDepth::Full => (fold_changes(event_store, &last, state).await?, FoldDepth::Full),
        FoldDepth::LastNumber => (state, FoldDepth::LastNumber),
    };
    Ok(StreamState {
        last_revision: Some(last.revision),
        position: last.position,
        aggregate: AggregateState::Chat(state, depth),
    })
}

/// Folds the edits and deletions of a stream up to and including its event `last`.
async fn fold_changes(
    event_store: &dyn EventStore,
    last: &RecordedEvent,
    mut state: chat::State,
) -> Result<chat::State, LoadError> {
    let mut from = Revision::FIRST;
    loop {
        let read = StreamRead::all(last.stream.clone(), ReadStart::Forwards(from), READ_BATCH)
            .filtered(EventTypeFilter::Except("MessageCreated"));
        let events = event_store.read_stream(read).await?;
        let Some(end) = events.last() else { return Ok(state) };
        from = end.revision.next();
        for event in events.iter().filter(|event| event.revision <= last.revision) {
            state = chat::evolve(state, &event.decode()?)?;
        }
    }
}

async fn last_event(
    event_store: &dyn EventStore,
    stream: StreamId,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    Ok(event_store.read_stream(StreamRead::last_event(stream.to_string())).await?.pop())
}

/// Finds the last event of one type in the stream up to and including its event `last`. Events that another process
/// appends between the two reads are not part of the result.
async fn last_of_type(
    event_store: &dyn EventStore,
    last: &RecordedEvent,
    event_type: &'static str,
) -> Result<Option<Event>, LoadError> {
    // Decoded even if it has another type, so that a damaged event is an error.
    let event = last.decode()?;
    if last.event_type == event_type {
        return Ok(Some(event));
    }
    let read = StreamRead::all(last.stream.clone(), ReadStart::Backwards(last.revision), 1)
        .filtered(EventTypeFilter::Only(event_type));
    Ok(event_store.read_stream(read).await?.pop().map(|event| event.decode()).transpose()?)
}
