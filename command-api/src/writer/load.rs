//! Folding a stream's state from the log, reading as little of it as deciding needs.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::DecodeError;
use chat_domain::{AppToken, ChatNumber, Event, Revision, StreamId, Unfoldable, Version, application, chat};
use chat_ports::event_store::{EventStore, EventStoreError, ReadFrom, RecordedEvent, Select, StreamRead};
use thiserror::Error;
use tokio::time::Instant;

use super::known::{Depth, Known, State};
use crate::command::{CommandError, Rejection};

/// How long a writer waits for numbers before its own to appear in the log. Whoever was given them either appends them
/// within a few milliseconds or is dead.
const PREDECESSOR_PATIENCE: Duration = Duration::from_millis(400);

/// How often it looks.
const PREDECESSOR_POLL: Duration = Duration::from_millis(5);

/// Events to read at once when a chat's edits and deletions are folded.
const PAGE: usize = 1_000;

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
    Unfoldable(#[from] Unfoldable),
    #[error("an event of another kind than was asked for")]
    OtherKind,
    #[error("loading the stream panicked")]
    Panicked,
}

impl From<LoadError> for CommandError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Rejected(rejection) => Self::Rejected(rejection),
            LoadError::Store(error) if error.retryable() => Self::EventStoreUnavailable(Arc::new(error)),
            error => Self::Internal(Arc::new(error)),
        }
    }
}

/// Folds the state of an app's or a chat's stream. `chat_exists` saves looking for the chat in its app's stream.
pub(super) async fn load(
    log: &dyn EventStore,
    stream: StreamId,
    depth: Depth,
    chat_exists: bool,
) -> Result<Known, LoadError> {
    match stream {
        StreamId::App(app) => load_app(log, app).await,
        StreamId::Chat(app, number) => {
            if !chat_exists {
                check_chat(log, app, number).await?;
            }
            load_chat(log, stream, depth).await
        }
    }
}

/// The state as it was remembered, where the stream still ends there.
pub(super) async fn still_latest(
    log: &dyn EventStore,
    stream: StreamId,
    remembered: Known,
) -> Result<Option<Known>, LoadError> {
    let name: Arc<str> = stream.to_string().into();
    let last = last_event(log, &name, ReadFrom::End, Select::All).await?;
    Ok((last.map(|event| event.revision) == remembered.last).then_some(remembered))
}

/// As [`load`], once the log holds the numbers before `first`, or once patience is at its end.
pub(super) async fn load_after_predecessor(
    log: &dyn EventStore,
    stream: StreamId,
    depth: Depth,
    first: u64,
) -> Result<Known, LoadError> {
    let started = Instant::now();
    let deadline = started + PREDECESSOR_PATIENCE;
    loop {
        let known = load(log, stream, depth, true).await?;
        if known.next_number() >= first || Instant::now() >= deadline {
            metrics::histogram!("command_predecessor_wait_seconds").record(started.elapsed());
            return Ok(known);
        }
        tokio::time::sleep(PREDECESSOR_POLL).await;
    }
}

async fn load_app(log: &dyn EventStore, app: AppToken) -> Result<Known, LoadError> {
    let name: Arc<str> = StreamId::App(app).to_string().into();
    let Some(last) = last_event(log, &name, ReadFrom::End, Select::All).await? else {
        return Ok(Known::NO_APP);
    };
    let created = match last.decode()? {
        Event::ChatCreated(created) => Some(created),
        _ => match last_event(log, &name, until(&last), Select::Only("ChatCreated")).await? {
            Some(event) => match event.decode()? {
                Event::ChatCreated(created) => Some(created),
                _ => return Err(LoadError::OtherKind),
            },
            None => None,
        },
    };
    let state = application::State::Present {
        last_chat: created.map(|created| created.chat_number),
        version: Version::new(last.revision.next().get()),
    };
    Ok(Known { last: Some(last.revision), at: last.position, state: State::App(state) })
}

async fn check_chat(log: &dyn EventStore, app: AppToken, number: ChatNumber) -> Result<(), LoadError> {
    let Known { state: State::App(state), .. } = load_app(log, app).await? else {
        return Err(LoadError::OtherKind);
    };
    match state {
        application::State::Absent => Err(Rejection::AppNotFound.into()),
        present if present.has_chat(number) => Ok(()),
        application::State::Present { .. } => Err(Rejection::ChatNotFound.into()),
    }
}

async fn load_chat(log: &dyn EventStore, stream: StreamId, depth: Depth) -> Result<Known, LoadError> {
    let name: Arc<str> = stream.to_string().into();
    let Some(last) = last_event(log, &name, ReadFrom::End, Select::All).await? else {
        return Ok(Known::empty_chat());
    };
    let created = match last.decode()? {
        Event::MessageCreated(created) => Some(created),
        _ => match last_event(log, &name, until(&last), Select::Only("MessageCreated")).await? {
            Some(event) => match event.decode()? {
                Event::MessageCreated(created) => Some(created),
                _ => return Err(LoadError::OtherKind),
            },
            None => None,
        },
    };
    let last_message = created.map(|created| created.message_number);
    let state = chat::State::with_messages(last_message);
    // As many messages as events: none was edited or deleted.
    let untouched = last_message.is_some_and(|number| number.get() == last.revision.next().get());
    let (state, depth) = match depth {
        _ if untouched => (state, Depth::Full),
        Depth::Full => (fold_changes(log, &name, state, last.revision).await?, Depth::Full),
        Depth::Tail => (state, Depth::Tail),
    };
    Ok(Known { last: Some(last.revision), at: last.position, state: State::Chat(state, depth) })
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
                from: ReadFrom::Forwards(from),
                select: Select::Except("MessageCreated"),
                limit: PAGE,
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
fn until(last: &RecordedEvent) -> ReadFrom {
    ReadFrom::Backwards(last.revision)
}

async fn last_event(
    log: &dyn EventStore,
    name: &Arc<str>,
    from: ReadFrom,
    select: Select,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let read = StreamRead { stream: Arc::clone(name), from, select, limit: 1 };
    Ok(log.read_stream(read).await?.pop())
}
