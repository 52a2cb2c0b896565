//! Folding a stream's state from the log, reading as little of it as deciding needs.

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

/// How long a writer waits for numbers before its own to appear in the log. Whoever was given them either appends them
/// within a few milliseconds or is dead.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_millis(400);

/// How often it looks.
const PREDECESSOR_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Events to read at once when a chat's edits and deletions are folded.
const READ_BATCH: usize = 1_000;

/// Why a stream's state is not known.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Store(#[from] EventStoreError),
    #[error("an event of the log can't be read")]
    Decode(#[from] DecodeError),
    #[error("the log contradicts itself")]
    Unfoldable(#[from] EvolveError),
    #[error("an event of another kind than was asked for")]
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

/// Folds the state of an app's or a chat's stream. `chat_exists` saves looking for the chat in its app's stream.
pub(super) async fn load_state(
    log: &dyn EventStore,
    stream: StreamId,
    depth: FoldDepth,
    chat_exists: bool,
) -> Result<StreamState, LoadError> {
    match stream {
        StreamId::App(app) => load_app(log, app).await,
        StreamId::Chat(app, number) => {
            if !chat_exists {
                require_chat(log, app, number).await?;
            }
            load_chat(log, stream, depth).await
        }
    }
}

/// The state as it was remembered, where the stream still ends there.
pub(super) async fn revalidate_cached_state(
    log: &dyn EventStore,
    stream: StreamId,
    cached_state: StreamState,
) -> Result<Option<StreamState>, LoadError> {
    let name: Arc<str> = stream.to_string().into();
    let last = last_event(log, &name, ReadStart::End, EventTypeFilter::All).await?;
    Ok((last.map(|event| event.revision) == cached_state.last_revision).then_some(cached_state))
}

/// As [`load`], once the log holds the numbers before `first`, or once patience is at its end.
pub(super) async fn load_after_predecessor(
    log: &dyn EventStore,
    stream: StreamId,
    depth: FoldDepth,
    first: u64,
) -> Result<StreamState, LoadError> {
    let started = Instant::now();
    let deadline = started + PREDECESSOR_TIMEOUT;
    loop {
        let known = load_state(log, stream, depth, true).await?;
        if known.next_number() >= first || Instant::now() >= deadline {
            metrics::histogram!("command_predecessor_wait_seconds").record(started.elapsed());
            return Ok(known);
        }
        tokio::time::sleep(PREDECESSOR_POLL_INTERVAL).await;
    }
}

async fn load_app(log: &dyn EventStore, app: AppToken) -> Result<StreamState, LoadError> {
    let name: Arc<str> = StreamId::App(app).to_string().into();
    let Some(last) = last_event(log, &name, ReadStart::End, EventTypeFilter::All).await? else {
        return Ok(StreamState::ABSENT_APP);
    };
    let created = match last.decode()? {
        Event::ChatCreated(created) => Some(created),
        _ => {
            match last_event(log, &name, backwards_from(&last), EventTypeFilter::Only("ChatCreated")).await? {
                Some(event) => match event.decode()? {
                    Event::ChatCreated(created) => Some(created),
                    _ => return Err(LoadError::UnexpectedEventType),
                },
                None => None,
            }
        }
    };
    let state = app::State::Present {
        last_chat: created.map(|created| created.chat_number),
        version: Version::new(last.revision.next().get()),
    };
    Ok(StreamState {
        last_revision: Some(last.revision),
        position: last.position,
        aggregate: AggregateState::App(state),
    })
}

async fn require_chat(log: &dyn EventStore, app: AppToken, number: ChatNumber) -> Result<(), LoadError> {
    let StreamState { aggregate: AggregateState::App(state), .. } = load_app(log, app).await? else {
        return Err(LoadError::UnexpectedEventType);
    };
    match state {
        app::State::Absent => Err(Rejection::AppNotFound.into()),
        present if present.has_chat(number) => Ok(()),
        app::State::Present { .. } => Err(Rejection::ChatNotFound.into()),
    }
}

async fn load_chat(
    log: &dyn EventStore,
    stream: StreamId,
    depth: FoldDepth,
) -> Result<StreamState, LoadError> {
    let name: Arc<str> = stream.to_string().into();
    let Some(last) = last_event(log, &name, ReadStart::End, EventTypeFilter::All).await? else {
        return Ok(StreamState::empty_chat());
    };
    let created = match last.decode()? {
        Event::MessageCreated(created) => Some(created),
        _ => match last_event(log, &name, backwards_from(&last), EventTypeFilter::Only("MessageCreated"))
            .await?
        {
            Some(event) => match event.decode()? {
                Event::MessageCreated(created) => Some(created),
                _ => return Err(LoadError::UnexpectedEventType),
            },
            None => None,
        },
    };
    let last_message = created.map(|created| created.message_number);
    let state = chat::State::with_messages(last_message);
    // As many messages as events: none was edited or deleted.
    let untouched = last_message.is_some_and(|number| number.get() == last.revision.next().get());
    let (state, depth) = match depth {
        _ if untouched => (state, FoldDepth::Full),
        FoldDepth::Full => (fold_changes(log, &name, state, last.revision).await?, FoldDepth::Full),
        FoldDepth::LastNumber => (state, FoldDepth::LastNumber),
    };
    Ok(StreamState {
        last_revision: Some(last.revision),
        position: last.position,
        aggregate: AggregateState::Chat(state, depth),
    })
}

/// Folds the edits and deletions up to and including `last`.
async fn fold_changes(
    log: &dyn EventStore,
    name: &Arc<str>,
    mut state: chat::State,
    last: Revision,
) -> Result<chat::State, LoadError> {
    let mut from = Revision::FIRST;
    loop {
        let page = log
            .read_stream(StreamRead {
                stream: Arc::clone(name),
                start: ReadStart::Forwards(from),
                filter: EventTypeFilter::Except("MessageCreated"),
                limit: READ_BATCH,
            })
            .await?;
        let Some(end) = page.last() else { return Ok(state) };
        from = end.revision.next();
        for event in page.iter().filter(|event| event.revision <= last) {
            state = chat::evolve(state, &event.decode()?)?;
        }
    }
}

/// Up to an event: what another process appends between two reads stays out of the second.
fn backwards_from(last: &RecordedEvent) -> ReadStart {
    ReadStart::Backwards(last.revision)
}

async fn last_event(
    log: &dyn EventStore,
    name: &Arc<str>,
    from: ReadStart,
    select: EventTypeFilter,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let read = StreamRead { stream: Arc::clone(name), start: from, filter: select, limit: 1 };
    Ok(log.read_stream(read).await?.pop())
}
