//! Scratch builds: projections of a few streams, in a temporary folder.

use std::sync::Arc;

use chat_domain::operator_action;
use chat_domain::projection::ProjectionName;
use chat_domain::{AppToken, ChatNumber, Position, Revision, StreamId};
use chat_ports::event_store::{EventStore, LogId, ReadStart, RecordedEvent, StreamRead};
use chat_ports::read_model::{Missing, ReadModel, Snapshot};
use chat_ports::search_index::MessageKey;
use chat_projector::dead_letters::{DeadLetterAction, advance_projection};
use chat_projector::projection::{Projection, ProjectionError, ProjectionStore};
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::search::SearchIndexStore;
use chat_search::TantivyIndex;
use chat_sqlite::{SqliteReadModel, SqliteReadModelStorage};
use serde_json::json;
use tempfile::TempDir;

use super::error::ProjectionsError;
use crate::audit::Subject;
use crate::row_fields::{Fields, attribute_fields, json_fields};

/// The number of events per read of a stream.
const PAGE_EVENTS: usize = 1_024;

/// Reads single rows of a read model, or single documents of a search index.
pub(super) enum EntityReader {
    Rows(Arc<dyn ReadModel>),
    Documents(TantivyIndex),
}

impl EntityReader {
    /// Finds the content of a subject. Also returns the position that the content reflects.
    pub(super) async fn find(&self, subject: Subject) -> Result<(Position, Option<Fields>), ProjectionError> {
        match self {
            Self::Rows(rows) => read_row(&**rows, subject).await,
            Self::Documents(index) => {
                let Subject::Message(app, chat, message) = subject else {
                    return Ok((index.position(), None));
                };
                let index = index.clone();
                let find_document = move || {
                    // The position is read first, so the document may be newer than the position, but never older.
                    let position = index.position();
                    let key = MessageKey { app, chat, message };
                    Ok::<_, chat_ports::search_index::SearchError>((
                        position,
                        index.documents(&[key])?.remove(&key),
                    ))
                };
                let task_failed = |error| ProjectionError::Unavailable(Box::new(error));
                let (position, found) =
                    tokio::task::spawn_blocking(find_document).await.map_err(task_failed)??;
                Ok((
                    position,
                    found.map(|document| {
                        let fields = json_fields([
                            ("body", json!(document.body)),
                            ("version", json!(document.version.get())),
                            ("created_at", json!(document.created_at.to_string())),
                            ("updated_at", json!(document.updated_at.to_string())),
                        ]);
                        fields
                            .chain(attribute_fields(document.sender.as_ref(), document.data.as_ref()))
                            .collect()
                    }),
                ))
            }
        }
    }
}

async fn read_row(
    rows: &dyn ReadModel,
    subject: Subject,
) -> Result<(Position, Option<Fields>), ProjectionError> {
    let (position, found) = match subject {
        Subject::App(token) => {
            let Snapshot { position, value } = rows.app(token).await?;
            let fields = value.map(|app| {
                json_fields([
                    ("name", json!(app.name.as_str())),
                    ("chat_count", json!(app.chat_count)),
                    ("version", json!(app.version.get())),
                    ("created_at", json!(app.created_at.to_string())),
                    ("updated_at", json!(app.updated_at.to_string())),
                ])
                .collect()
            });
            (position, fields)
        }
        Subject::Chat(token, number) => {
            let Snapshot { position, value } = rows.chat(token, number).await?;
            let fields = value.map(|chat| {
                json_fields([
                    ("message_count", json!(chat.message_count)),
                    ("version", json!(chat.version.get())),
                    ("created_at", json!(chat.created_at.to_string())),
                    ("updated_at", json!(chat.updated_at.to_string())),
                ])
                .collect()
            });
            (position, fields)
        }
        Subject::Message(token, chat, number) => {
            let Snapshot { position, value } = rows.message(token, chat, number).await?;
            let fields = value.map(|message| {
                let own_fields = json_fields([
                    ("body", json!(message.body)),
                    ("version", json!(message.version.get())),
                    ("created_at", json!(message.created_at.to_string())),
                    ("updated_at", json!(message.updated_at.to_string())),
                ]);
                own_fields.chain(attribute_fields(message.sender.as_ref(), message.data.as_ref())).collect()
            });
            (position, fields)
        }
    };
    Ok(match found {
        Ok(fields) => (position, Some(fields)),
        Err(Missing::Deleted) => (position, Some(json_fields([("deleted", json!(true))]).collect())),
        Err(Missing::App | Missing::Chat | Missing::Message) => (position, None),
    })
}

/// A projection of the streams of one app and one of its chats, in a temporary folder.
pub(super) struct ScratchBuild {
    projection: Box<dyn Projection>,
    /// The log, from which operator actions on dead letters read events again.
    event_store: Arc<dyn EventStore>,
    log_id: LogId,
    /// The first event that is not applied yet.
    next: Option<RecordedEvent>,
    /// The events after `next`, in order of position.
    events: std::vec::IntoIter<RecordedEvent>,
    reader: EntityReader,
    _folder: TempDir,
}

impl ScratchBuild {
    /// Creates a scratch build of the kind of projection that `live_reader` reads. It is empty: [`Self::advance`]
    /// applies the `events`.
    pub(super) async fn new(
        live_reader: &EntityReader,
        event_store: &Arc<dyn EventStore>,
        log_id: LogId,
        events: Vec<RecordedEvent>,
    ) -> Result<Self, ProjectionsError> {
        let event_store = Arc::clone(event_store);
        let folder = tempfile::tempdir().map_err(ProjectionsError::ScratchFolder)?;
        let (projection, reader) =
            open_scratch_projection(live_reader, &folder).await.map_err(ProjectionsError::ScratchBuild)?;
        let mut events = events.into_iter();
        let next = events.next();
        Ok(Self { projection, event_store, log_id, next, events, reader, _folder: folder })
    }

    /// Applies all events up to a position.
    pub(super) async fn advance(&mut self, up_to: Position) -> Result<(), ProjectionsError> {
        let mut events = Vec::new();
        while let Some(event) = self.next.take_if(|event| event.position <= up_to) {
            events.push(event);
            self.next = self.events.next();
        }
        let (log_id, store) = (self.log_id, &*self.event_store);
        if self.projection.checkpoint().position >= up_to {
            return Ok(());
        }
        advance_projection(&mut *self.projection, store, log_id, events, up_to)
            .await
            .map_err(ProjectionsError::ScratchBuild)
    }

    /// Finds the content of a subject, as built so far.
    pub(super) async fn find(&self, subject: Subject) -> Result<Option<Fields>, ProjectionsError> {
        if let EntityReader::Documents(index) = &self.reader {
            index.refresh().map_err(|error| ProjectionsError::ScratchBuild(error.into()))?;
        }
        self.reader.find(subject).await.map(|(_, found)| found).map_err(ProjectionsError::ScratchBuild)
    }
}

async fn open_scratch_projection(
    live_reader: &EntityReader,
    folder: &TempDir,
) -> Result<(Box<dyn Projection>, EntityReader), ProjectionError> {
    match live_reader {
        EntityReader::Rows(_) => {
            let path = folder.path().join("rows.db");
            let projection =
                ReadModelProjectionStore::new(SqliteReadModelStorage::new(path.clone())).open().await?.0;
            Ok((projection, EntityReader::Rows(Arc::new(SqliteReadModel::with_connections(path, 1)))))
        }
        EntityReader::Documents(_) => {
            let dir = folder.path().join("documents");
            let projection = SearchIndexStore { dir: dir.clone() }.open().await?.0;
            Ok((projection, EntityReader::Documents(TantivyIndex::open(&dir)?)))
        }
    }
}

/// Reads the events of an app's stream, of the stream of `chat` if that is given, and all operator actions on dead
/// letters. Returns them in order of position.
pub(super) async fn read_app_and_chat_streams(
    log: &dyn EventStore,
    app: AppToken,
    chat: Option<ChatNumber>,
) -> Result<Vec<RecordedEvent>, ProjectionsError> {
    // Of all operator actions, only those on dead letters change rows.
    let mut events = read_stream(log, operator_action::STREAM.to_owned()).await?;
    events.retain(|event| {
        ProjectionName::ALL.iter().any(|name| DeadLetterAction::from_event(event, *name).is_some())
    });
    events.extend(read_stream(log, StreamId::App(app).to_string()).await?);
    if let Some(chat) = chat {
        events.extend(read_stream(log, StreamId::Chat(app, chat).to_string()).await?);
    }
    events.sort_unstable_by_key(|event| event.position);
    Ok(events)
}

async fn read_stream(log: &dyn EventStore, name: String) -> Result<Vec<RecordedEvent>, ProjectionsError> {
    let name: Arc<str> = name.into();
    let mut from = Revision::FIRST;
    let mut events = Vec::new();
    loop {
        let read = StreamRead::all(Arc::clone(&name), ReadStart::Forwards(from), PAGE_EVENTS);
        let page = log.read_stream(read).await?;
        let Some(last) = page.last() else { return Ok(events) };
        from = last.revision.next();
        events.extend(page);
    }
}
