//! Loading of stream states: reads as few events of the log as the decisions need.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Revision, StreamId, Version, app, chat};
use chat_ports::event_store::stream_reader::{
    StreamReadError, StreamReader, UnreadableCause, UnreadableEvent,
};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead,
};
use thiserror::Error;
use tokio::time::Instant;

use super::stream_state::{AggregateState, FoldDepth, StreamState};
use crate::command::{CommandError, Rejection};

/// How long a writer waits until the log holds the numbers before its own. The process that reserved them usually
/// appends them within milliseconds, unless it has died.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_millis(400);

/// How often a waiting writer reads the stream.
const PREDECESSOR_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The maximal number of edits and deletions in one read.
const READ_BATCH: usize = 1_000;

/// The reason why a stream's state could not be loaded.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Store(#[from] EventStoreError),
    #[error(transparent)]
    Unreadable(Arc<UnreadableEvent>),
    #[error("loading the stream panicked")]
    Panicked,
}

impl From<StreamReadError> for LoadError {
    fn from(error: StreamReadError) -> Self {
        match error {
            StreamReadError::Store(error) => Self::Store(error),
            StreamReadError::Unreadable(event) => Self::Unreadable(Arc::new(event)),
        }
    }
}

impl From<LoadError> for CommandError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Rejected(rejection) => Self::Rejected(rejection),
            LoadError::Store(EventStoreError::StreamTruncated(stream)) => {
                Self::StreamTruncated(Arc::new(stream))
            }
            LoadError::Store(error) => Self::EventStoreUnavailable(Arc::new(error)),
            LoadError::Unreadable(event) => Self::UnreadableEvent(event),
            error @ LoadError::Panicked => Self::Internal(Arc::new(error)),
        }
    }
}

impl StreamState {
    /// Loads the state of an app's or a chat's stream. A chat without events is looked up in its app's stream, unless
    /// `chat_is_known` says that the chat is already known to exist.
    pub(super) async fn load(
        event_store: &dyn EventStore,
        stream: StreamId,
        depth: FoldDepth,
        chat_is_known: bool,
    ) -> Result<Self, LoadError> {
        match stream {
            StreamId::App(app) => load_app(event_store, app).await,
            StreamId::Chat(app, number) => {
                let reader = StreamReader::new(event_store);
                match reader.last_event(stream.to_string()).await? {
                    // A chat with messages exists, whether its app's stream can be read or not.
                    Some(last) => load_chat(reader, last, depth).await,
                    None if chat_is_known => Ok(Self::empty_chat()),
                    None => require_chat(event_store, app, number).await.map(|()| Self::empty_chat()),
                }
            }
        }
    }

    /// Loads the state of an app's or a chat's stream. Waits until the log holds the numbers before `first`, the first
    /// reserved number, but no longer than a timeout.
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
                metrics::histogram!("chat_command_predecessor_wait_seconds").record(started.elapsed());
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
        let last = StreamReader::new(event_store).last_event(stream.to_string()).await?;
        Ok((last.map(|event| event.revision) == self.last_revision).then_some(self))
    }
}

async fn load_app(event_store: &dyn EventStore, app: AppToken) -> Result<StreamState, LoadError> {
    let mut reader = StreamReader::new(event_store);
    let Some(last) = reader.last_event(StreamId::App(app).to_string()).await? else {
        return Ok(StreamState::ABSENT_APP);
    };
    let last_number = reader.last_number(&last, "ChatCreated").await?;
    let last_chat =
        last_number.map(|number| ChatNumber::try_from(number).map_err(|_| number_too_high(&last)));
    let state = if last.revision == Revision::FIRST && last.decode().is_err() {
        // The app's creation is the only event of the stream, and an operator has discarded it. So no projection has
        // the app. If other events follow an undecodable creation, the creation was decodable when they were appended,
        // and projections that folded it at that time have the app.
        app::State::Absent
    } else {
        app::State::Present {
            last_chat: last_chat.transpose()?,
            version: Version::new(last.revision.next().get()),
        }
    };
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
        return Err(Rejection::AppNotFound.into());
    };
    match state {
        app::State::Absent => Err(Rejection::AppNotFound.into()),
        present if present.has_chat(number) => Ok(()),
        app::State::Present { .. } => Err(Rejection::ChatNotFound.into()),
    }
}

async fn load_chat(
    mut reader: StreamReader<'_>,
    last: RecordedEvent,
    depth: FoldDepth,
) -> Result<StreamState, LoadError> {
    let last_number = reader.last_number(&last, "MessageCreated").await?;
    let last_message =
        last_number.map(|number| MessageNumber::try_from(number).map_err(|_| number_too_high(&last)));
    let last_message = last_message.transpose()?;
    let state = chat::State::with_messages(last_message);
    // If there are as many messages as events, none was edited or deleted.
    let unchanged = last_message.is_some_and(|number| number.get() == last.revision.next().get());
    let (state, depth) = match depth {
        _ if unchanged => (state, FoldDepth::Full),
        FoldDepth::Full => (fold_changes(&mut reader, &last, &state).await?, FoldDepth::Full),
        FoldDepth::LastNumber => (state, FoldDepth::LastNumber),
    };
    Ok(StreamState {
        last_revision: Some(last.revision),
        position: last.position,
        aggregate: AggregateState::Chat(state, depth),
    })
}

/// Folds the edits and deletions of a stream, up to and including its event `last`, into the state `unchanged`: the
/// state of the same messages without any edit or deletion. Skips discarded events.
async fn fold_changes(
    reader: &mut StreamReader<'_>,
    last: &RecordedEvent,
    unchanged: &chat::State,
) -> Result<chat::State, LoadError> {
    let mut skipped: HashSet<Position> = HashSet::new();
    // `evolve` consumes the state, also if it fails. So after a discarded event that can't be applied, the fold begins
    // again and skips the event.
    'fold: loop {
        let (mut state, mut from) = (unchanged.clone(), Revision::FIRST);
        loop {
            let read = StreamRead::all(last.stream.clone(), ReadStart::Forwards(from), READ_BATCH)
                .filtered(EventTypeFilter::Except("MessageCreated"));
            let events = reader.log().read_stream(read).await?;
            let Some(last_read) = events.last() else { return Ok(state) };
            from = last_read.revision.next();
            let up_to_last = events.iter().filter(|event| event.revision <= last.revision);
            for event in up_to_last.filter(|event| !skipped.contains(&event.position)) {
                let Some(decoded) = reader.decode(event).await? else { continue };
                state = match chat::evolve(state, &decoded) {
                    Ok(state) => state,
                    Err(error) => {
                        reader.require_discarded(event, error.into()).await?;
                        skipped.insert(event.position);
                        continue 'fold;
                    }
                };
            }
        }
    }
}

fn number_too_high(event: &RecordedEvent) -> LoadError {
    let cause = UnreadableCause::NumberTooHigh;
    LoadError::Unreadable(Arc::new(UnreadableEvent { position: event.position, cause }))
}
