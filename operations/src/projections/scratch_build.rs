//! A fold off to one side: of a few streams, in a folder that is removed afterwards.

use std::sync::Arc;

use chat_domain::operator_action::{self, ProjectionName};
use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Revision, StreamId};
use chat_ports::event_store::{EventStore, EventTypeFilter, LogId, ReadStart, RecordedEvent, StreamRead};
use chat_ports::read_model::{Missing, ReadModel, Snapshot};
use chat_ports::search_index::MessageKey;
use chat_projector::dead_letters::{DeadLetterAction, advance_projection};
use chat_projector::projection::{Projection, ProjectionError, ProjectionStore};
use chat_projector::read_model::SqliteReadModelStore;
use chat_projector::search::SearchIndexStore;
use chat_search::TantivyIndex;
use chat_sqlite::SqliteReadModel;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ProjectionsError;

/// Events that are read of a stream at once.
const PAGE_EVENTS: usize = 1_024;

/// What a row or document is about, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    App(AppToken),
    Chat(AppToken, ChatNumber),
    Message(AppToken, ChatNumber, MessageNumber),
}

impl Subject {
    pub(super) fn app(self) -> AppToken {
        match self {
            Self::App(app) | Self::Chat(app, _) | Self::Message(app, ..) => app,
        }
    }

    pub(super) fn chat(self) -> Option<ChatNumber> {
        match self {
            Self::App(_) => None,
            Self::Chat(_, chat) | Self::Message(_, chat, _) => Some(chat),
        }
    }

    pub(super) fn message(self) -> Option<MessageNumber> {
        match self {
            Self::Message(_, _, message) => Some(message),
            Self::App(_) | Self::Chat(..) => None,
        }
    }
}

/// What answers for single rows or documents.
pub(super) enum EntityReader {
    Rows(Arc<dyn ReadModel>),
    Documents(TantivyIndex),
}

impl EntityReader {
    /// What is there of a name, as of which position.
    pub(super) async fn find(&self, name: Subject) -> Result<(Position, Option<Value>), ProjectionError> {
        match self {
            Self::Rows(rows) => read_row(&**rows, name).await,
            Self::Documents(index) => {
                let Subject::Message(app, chat, message) = name else { return Ok((index.position(), None)) };
                let index = index.clone();
                let look = move || {
                    // As of the snapshot's position or later.
                    let position = index.position();
                    let key = MessageKey { app, chat, message };
                    Ok::<_, chat_ports::search_index::SearchError>((
                        position,
                        index.documents(&[key])?.remove(&key),
                    ))
                };
                let ended = |error| ProjectionError::Unavailable(Box::new(error));
                let (position, found) = tokio::task::spawn_blocking(look).await.map_err(ended)??;
                Ok((
                    position,
                    found.map(|document| {
                        json!({
                            "body": document.body,
                            "version": document.version.get(),
                            "created_at": document.created_at.to_string(),
                            "updated_at": document.updated_at.to_string(),
                        })
                    }),
                ))
            }
        }
    }
}

async fn read_row(rows: &dyn ReadModel, name: Subject) -> Result<(Position, Option<Value>), ProjectionError> {
    let found = match name {
        Subject::App(token) => {
            let Snapshot { position, value } = rows.app(token).await?;
            let shown = value.map(|app| {
                json!({
                    "name": app.name.as_str(),
                    "chat_count": app.chat_count,
                    "version": app.version.get(),
                    "created_at": app.created_at.to_string(),
                    "updated_at": app.updated_at.to_string(),
                })
            });
            (position, shown)
        }
        Subject::Chat(token, number) => {
            let Snapshot { position, value } = rows.chat(token, number).await?;
            let shown = value.map(|chat| {
                json!({
                    "message_count": chat.message_count,
                    "version": chat.version.get(),
                    "created_at": chat.created_at.to_string(),
                    "updated_at": chat.updated_at.to_string(),
                })
            });
            (position, shown)
        }
        Subject::Message(token, chat, number) => {
            let Snapshot { position, value } = rows.message(token, chat, number).await?;
            let shown = value.map(|message| {
                json!({
                    "body": message.body,
                    "version": message.version.get(),
                    "created_at": message.created_at.to_string(),
                    "updated_at": message.updated_at.to_string(),
                })
            });
            (position, shown)
        }
    };
    Ok(match found {
        (position, Ok(shown)) => (position, Some(shown)),
        (position, Err(Missing::Deleted)) => (position, Some(json!({ "deleted": true }))),
        (position, Err(Missing::App | Missing::Chat | Missing::Message)) => (position, None),
    })
}

/// A projection in a folder of its own, which folds the streams of one app and one of its chats.
pub(super) struct ScratchBuild {
    projection: Box<dyn Projection>,
    /// Where an operator's act reads parked events again.
    event_store: Arc<dyn EventStore>,
    log: LogId,
    /// All events of the streams, in order of position, from the next one on.
    events: std::vec::IntoIter<RecordedEvent>,
    next: Option<RecordedEvent>,
    reader: EntityReader,
    _folder: TempDir,
}

impl ScratchBuild {
    /// A fold of the same kind as what `like` answers from, at the start.
    pub(super) async fn new(
        like: &EntityReader,
        event_store: &Arc<dyn EventStore>,
        log: LogId,
        events: Vec<RecordedEvent>,
    ) -> Result<Self, ProjectionsError> {
        let event_store = Arc::clone(event_store);
        let folder = tempfile::tempdir().map_err(ProjectionsError::ScratchFolder)?;
        let (kind, shelf) =
            open_scratch_projection(like, &folder).await.map_err(ProjectionsError::ScratchBuild)?;
        let mut events = events.into_iter();
        let next = events.next();
        Ok(Self { projection: kind, event_store, log, events, next, reader: shelf, _folder: folder })
    }

    /// Folds everything up to a position.
    pub(super) async fn advance(&mut self, up_to: Position) -> Result<(), ProjectionsError> {
        let mut due = Vec::new();
        while let Some(event) = self.next.take_if(|event| event.position <= up_to) {
            due.push(event);
            self.next = self.events.next();
        }
        let (log, store) = (self.log, &*self.event_store);
        if self.projection.checkpoint().position >= up_to {
            return Ok(());
        }
        advance_projection(&mut *self.projection, store, log, due, up_to)
            .await
            .map_err(ProjectionsError::ScratchBuild)
    }

    /// What was folded so far of a name.
    pub(super) async fn find(&self, name: Subject) -> Result<Option<Value>, ProjectionsError> {
        if let EntityReader::Documents(index) = &self.reader {
            index.refresh().map_err(|error| ProjectionsError::ScratchBuild(error.into()))?;
        }
        self.reader.find(name).await.map(|(_, found)| found).map_err(ProjectionsError::ScratchBuild)
    }
}

async fn open_scratch_projection(
    like: &EntityReader,
    folder: &TempDir,
) -> Result<(Box<dyn Projection>, EntityReader), ProjectionError> {
    match like {
        EntityReader::Rows(_) => {
            let path = folder.path().join("rows.db");
            let projection = SqliteReadModelStore { path: path.clone() }.open().await?.0;
            Ok((projection, EntityReader::Rows(Arc::new(SqliteReadModel::with_connections(path, 1)))))
        }
        EntityReader::Documents(_) => {
            let dir = folder.path().join("documents");
            let projection = SearchIndexStore { dir: dir.clone() }.open().await?.0;
            Ok((projection, EntityReader::Documents(TantivyIndex::open(&dir)?)))
        }
    }
}

/// All events of an app's stream, and of one of its chats, and what operators decided about parked events, in order of
/// position.
pub(super) async fn read_app_and_chat_streams(
    log: &dyn EventStore,
    app: AppToken,
    chat: Option<ChatNumber>,
) -> Result<Vec<RecordedEvent>, ProjectionsError> {
    // Of what operators did, only what they decided about parked events changes rows.
    let mut events = read_stream(log, operator_action::STREAM.to_owned(), Revision::FIRST).await?;
    events.retain(|event| {
        ProjectionName::ALL.iter().any(|name| DeadLetterAction::from_event(event, *name).is_some())
    });
    events.extend(read_stream(log, StreamId::App(app).to_string(), Revision::FIRST).await?);
    if let Some(chat) = chat {
        events.extend(read_stream(log, StreamId::Chat(app, chat).to_string(), Revision::FIRST).await?);
    }
    events.sort_unstable_by_key(|event| event.position);
    Ok(events)
}

async fn read_stream(
    log: &dyn EventStore,
    name: String,
    from: Revision,
) -> Result<Vec<RecordedEvent>, ProjectionsError> {
    let (name, mut from, mut all): (Arc<str>, _, _) = (name.into(), from, Vec::new());
    loop {
        let read = StreamRead {
            stream: Arc::clone(&name),
            start: ReadStart::Forwards(from),
            filter: EventTypeFilter::All,
            limit: PAGE_EVENTS,
        };
        let events = log.read_stream(read).await?;
        let Some(last) = events.last() else { return Ok(all) };
        from = last.revision.next();
        all.extend(events);
    }
}
