//! The read model's fold: stored rows and a batch of events give the changed rows.

use std::collections::{HashMap, HashSet};

use chat_domain::event::{MessageCreated, MessageEdited};
use chat_domain::{
    AppToken, ChatNumber, Event, MessageNumber, Position, StreamId, Timestamp, Version, app, chat,
};
use chat_ports::read_model::{
    AppRow, ChatKey, ChatRow, EditedMessage, MessageState, NewMessage, ReadModelChanges, StoredChat,
    Tombstone,
};

use crate::dead_letters::reason::DeadLetterReason;
use crate::decoded_batch::{BatchEvent, BatchFold, BatchStream, DecodedBatch, DecodedEvent, SkippedEvent};

/// The stored rows that the fold of a batch needs.
#[derive(Clone, Debug, Default)]
pub struct LoadedRows {
    /// The apps.
    pub apps: HashMap<AppToken, AppRow>,
    /// The chats.
    pub chats: HashMap<ChatKey, StoredChat>,
    /// The messages that are edited or deleted, by chat id and number.
    pub messages: HashMap<(Position, MessageNumber), MessageState>,
}

/// The keys of the rows that have to be loaded before a batch can be folded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RowsToLoad {
    /// Apps.
    pub apps: Vec<AppToken>,
    /// Chats.
    pub chats: Vec<ChatKey>,
    /// Messages that are edited or deleted, including messages that the batch itself creates. A message whose number is
    /// above [`StoredChat::last_message`] of the chat's row is not stored, and need not be loaded.
    pub messages: HashSet<(ChatKey, MessageNumber)>,
}

impl RowsToLoad {
    /// Returns the keys for a batch, without keys of blocked streams.
    pub fn for_batch(batch: &DecodedBatch) -> Self {
        let mut keys = Self { messages: modified_messages(batch), ..Self::default() };
        for stream in batch.streams.iter().filter(|stream| !stream.is_blocked) {
            match stream.id {
                Ok(StreamId::App(token)) => keys.apps.push(token),
                Ok(StreamId::Chat(app, number)) => keys.chats.push(ChatKey { app, number }),
                Err(_) => {}
            }
        }
        keys
    }
}

/// Returns the messages that a batch edits or deletes, without messages of blocked streams.
fn modified_messages(batch: &DecodedBatch) -> HashSet<(ChatKey, MessageNumber)> {
    let key = |event: &BatchEvent| {
        let message = event.modified_message()?;
        match batch.streams[event.stream_index] {
            BatchStream { id: Ok(StreamId::Chat(app, number)), is_blocked: false, .. } => {
                Some((ChatKey { app, number }, message))
            }
            _ => None,
        }
    };
    batch.events.iter().filter_map(key).collect()
}

/// The result of a fold.
#[derive(Clone, Debug)]
pub struct FoldOutput {
    /// The changes to store.
    pub changes: ReadModelChanges,
    /// The new and changed apps, for a cache of rows.
    pub apps: Vec<AppRow>,
    /// The new and changed chats, for a cache of rows.
    pub chats: Vec<StoredChat>,
}

/// Folds a batch. `rows` are the existing rows among [`RowsToLoad::for_batch`].
pub fn fold(batch: DecodedBatch, rows: LoadedRows, now: Timestamp) -> FoldOutput {
    let (log, from, to) = (batch.log, batch.from, batch.to);
    let mut fold = FoldState::new(rows, modified_messages(&batch));
    let new_dead_letters = batch.apply(&mut fold, now);
    fold.finish(ReadModelChanges { new_dead_letters, ..ReadModelChanges::empty(log, from, to) })
}

/// A row during a fold.
struct TrackedRow<T> {
    value: T,
    is_stored: bool,
    is_changed: bool,
}

impl<T> TrackedRow<T> {
    fn existing(value: T) -> Self {
        Self { value, is_stored: true, is_changed: false }
    }

    fn new(value: T) -> Self {
        Self { value, is_stored: false, is_changed: true }
    }
}

/// A message during a fold.
enum TrackedMessage {
    /// Created in this batch, with its index in [`FoldState::created`].
    Created(usize),
    /// Stored before this batch, and possibly edited in it.
    Stored { id: Position, version: Version, created_at: Timestamp, edited: Option<EditedMessage> },
    /// Deleted before or in this batch.
    Deleted,
}

/// A message that was deleted in this batch.
struct DeletedMessage {
    id: Position,
    /// The version after the deletion.
    version: Version,
    created_at: Timestamp,
    is_stored: bool,
}

struct FoldState {
    apps: HashMap<AppToken, TrackedRow<AppRow>>,
    chats: HashMap<ChatKey, TrackedRow<StoredChat>>,
    /// The [modified messages](Self::modified_messages) that were created before or in this batch, including deleted
    /// ones.
    messages: HashMap<(Position, MessageNumber), TrackedMessage>,
    /// The messages that the batch edits or deletes.
    modified_messages: HashSet<(ChatKey, MessageNumber)>,
    /// The messages that the batch creates; `None` for a message that the batch deletes again.
    created: Vec<Option<NewMessage>>,
    tombstones: Vec<Tombstone>,
}

impl BatchFold for FoldState {
    fn selects(&self, _: &StreamId) -> bool {
        true
    }

    fn apply(&mut self, stream: StreamId, event: DecodedEvent) -> Result<(), DeadLetterReason> {
        match stream {
            StreamId::App(token) => self.apply_to_app(token, event),
            StreamId::Chat(app, number) => self.apply_to_chat(ChatKey { app, number }, event),
        }
    }

    fn skip(&mut self, stream: StreamId, event: &SkippedEvent) {
        let version = Version::new(event.revision.get() + 1);
        match stream {
            StreamId::App(token) => {
                let Some(app) = self.apps.get_mut(&token).filter(|app| app.value.version < version) else {
                    return;
                };
                if let Some(last) =
                    last_number_after_skip(event, CHAT_CREATED, app.value.last_chat.map(ChatNumber::get))
                {
                    app.value.last_chat = ChatNumber::try_from(last).ok();
                }
                app.value.version = version;
                app.value.updated_at = event.recorded_at;
                app.is_changed = true;
            }
            StreamId::Chat(app, number) => {
                let key = ChatKey { app, number };
                let Some(chat) = self.chats.get_mut(&key).filter(|chat| chat.value.row.version < version)
                else {
                    return;
                };
                let last = chat.value.last_message.map(MessageNumber::get);
                if let Some(last) = last_number_after_skip(event, MESSAGE_CREATED, last) {
                    chat.value.last_message = MessageNumber::try_from(last).ok();
                }
                chat.value.row.version = version;
                chat.value.row.updated_at = event.recorded_at;
                chat.is_changed = true;
            }
        }
    }
}

impl FoldState {
    fn new(rows: LoadedRows, modified_messages: HashSet<(ChatKey, MessageNumber)>) -> Self {
        let message = |state| match state {
            MessageState::Present { id, version, created_at } => {
                TrackedMessage::Stored { id, version, created_at, edited: None }
            }
            MessageState::Deleted => TrackedMessage::Deleted,
        };
        Self {
            apps: rows.apps.into_iter().map(|(token, row)| (token, TrackedRow::existing(row))).collect(),
            chats: rows.chats.into_iter().map(|(key, row)| (key, TrackedRow::existing(row))).collect(),
            messages: rows.messages.into_iter().map(|(key, state)| (key, message(state))).collect(),
            modified_messages,
            created: Vec::new(),
            tombstones: Vec::new(),
        }
    }

    fn apply_to_app(&mut self, token: AppToken, event: DecodedEvent) -> Result<(), DeadLetterReason> {
        let row = self.apps.get(&token).map(|tracked| &tracked.value);
        if is_applied(&event, row.map_or(Version::new(0), |row| row.version))? {
            return Ok(());
        }
        let state = row.map_or(app::State::Absent, |row| app::State::Present {
            last_chat: row.last_chat,
            version: row.version,
        });
        app::evolve(state, &event.event)?;

        if let Event::AppCreated(created) = event.event {
            let row = AppRow {
                created_position: event.position,
                token,
                name: created.name,
                chat_count: 0,
                last_chat: None,
                version: Version::new(1),
                created_at: event.recorded_at,
                updated_at: event.recorded_at,
            };
            self.apps.insert(token, TrackedRow::new(row));
            return Ok(());
        }
        // The app exists: `evolve` accepts other events only for an existing app.
        let Some(app) = self.apps.get_mut(&token) else { return Ok(()) };
        app.is_changed = true;
        app.value.version = app.value.version.next();
        app.value.updated_at = event.recorded_at;
        match event.event {
            Event::AppRenamed(renamed) => app.value.name = renamed.name,
            Event::ChatCreated(created) => {
                app.value.chat_count += 1;
                app.value.last_chat = Some(created.chat_number);
                let chat = StoredChat {
                    id: event.position,
                    app_id: app.value.created_position,
                    app: token,
                    last_message: None,
                    row: ChatRow {
                        number: created.chat_number,
                        message_count: 0,
                        version: Version::new(0),
                        created_at: event.recorded_at,
                        updated_at: event.recorded_at,
                    },
                };
                self.chats.insert(chat.key(), TrackedRow::new(chat));
            }
            _ => {}
        }
        Ok(())
    }

    fn apply_to_chat(&mut self, key: ChatKey, event: DecodedEvent) -> Result<(), DeadLetterReason> {
        let Some(chat) = self.chats.get_mut(&key) else { return Err(DeadLetterReason::CHAT_MISSING) };
        if is_applied(&event, chat.value.row.version)? {
            return Ok(());
        }
        chat::evolve(chat::State::with_messages(chat.value.last_message), &event.event)?;

        let id = chat.value.id;
        match event.event {
            Event::MessageCreated(MessageCreated { message_number: number, body, sender, data }) => {
                chat.value.last_message = Some(number);
                chat.value.row.message_count += 1;
                if self.modified_messages.contains(&(key, number)) {
                    self.messages.insert((id, number), TrackedMessage::Created(self.created.len()));
                }
                self.created.push(Some(NewMessage {
                    id: event.position,
                    chat_id: id,
                    number,
                    body: body.into_string(),
                    sender,
                    data,
                    version: Version::new(1),
                    created_at: event.recorded_at,
                    updated_at: event.recorded_at,
                }));
            }
            // `evolve` has refused numbers above the chat's last one. So if the message is missing, its creation was
            // discarded, and the event changes only the chat's version and time of change.
            Event::MessageEdited(edited) => {
                if let Some(message) = self.messages.get_mut(&(id, edited.message_number)) {
                    edit(message, &mut self.created, edited, event.recorded_at)?;
                }
            }
            Event::MessageDeleted(deleted) => {
                if let Some(message) = self.messages.get_mut(&(id, deleted.message_number)) {
                    let removed = delete(message, &mut self.created)?;
                    chat.value.row.message_count -= 1;
                    self.tombstones.push(Tombstone {
                        id: removed.id,
                        chat_id: id,
                        number: deleted.message_number,
                        message_is_stored: removed.is_stored,
                        version: removed.version,
                        created_at: removed.created_at,
                        deleted_at: event.recorded_at,
                    });
                }
            }
            _ => {}
        }
        chat.is_changed = true;
        chat.value.row.version = chat.value.row.version.next();
        chat.value.row.updated_at = event.recorded_at;
        Ok(())
    }

    fn finish(self, mut changes: ReadModelChanges) -> FoldOutput {
        let (mut apps, mut chats) = (Vec::new(), Vec::new());
        for app in self.apps.into_values().filter(|app| app.is_changed) {
            let rows = if app.is_stored { &mut changes.changed_apps } else { &mut changes.new_apps };
            rows.push(app.value.clone());
            apps.push(app.value);
        }
        for chat in self.chats.into_values().filter(|chat| chat.is_changed) {
            let rows = if chat.is_stored { &mut changes.changed_chats } else { &mut changes.new_chats };
            rows.push(chat.value.clone());
            chats.push(chat.value);
        }
        for message in self.messages.into_values() {
            if let TrackedMessage::Stored { edited: Some(edited), .. } = message {
                changes.edited_messages.push(edited);
            }
        }
        changes.new_messages = self.created.into_iter().flatten().collect();
        changes.deleted_messages = self.tombstones;
        // Maps have no order, but rows must be written in the order of the log.
        changes.new_apps.sort_unstable_by_key(|app| app.created_position);
        changes.changed_apps.sort_unstable_by_key(|app| app.created_position);
        changes.new_chats.sort_unstable_by_key(|chat| chat.id);
        changes.changed_chats.sort_unstable_by_key(|chat| chat.id);
        changes.edited_messages.sort_unstable_by_key(|message| message.id);
        FoldOutput { changes, apps, chats }
    }
}

const CHAT_CREATED: &str = "ChatCreated";
const MESSAGE_CREATED: &str = "MessageCreated";

/// Returns the stream's new last number if a discarded event changes it from `last`; `None` if it stays. Only events of
/// the type `creation_type` use a number: their own number if this can be decoded and is possible in the stream,
/// otherwise the next number. A creation whose own number was used before uses no number.
fn last_number_after_skip(event: &SkippedEvent, creation_type: &str, last: Option<u64>) -> Option<u64> {
    if event.event_type != creation_type {
        return None;
    }
    let last = last.unwrap_or(0);
    let own_number = match &event.event {
        Some(Event::ChatCreated(created)) => Some(created.chat_number.get()),
        Some(Event::MessageCreated(created)) => Some(created.message_number.get()),
        _ => None,
    };
    match own_number.filter(|own_number| *own_number <= event.revision.get() + 1) {
        Some(own_number) => (own_number > last).then_some(own_number),
        None => Some(last + 1),
    }
}

/// Returns whether a row at `version` already contains the event; an error if events before it are missing. The
/// version counts the events of the stream that the row contains, so it is equal to the revision of the next event.
fn is_applied(event: &DecodedEvent, version: Version) -> Result<bool, DeadLetterReason> {
    let (found, expected) = (event.revision.get(), version.get());
    if found > expected {
        Err(DeadLetterReason::unexpected_revision(found, expected))
    } else {
        Ok(found < expected)
    }
}

fn edit(
    message: &mut TrackedMessage,
    created: &mut [Option<NewMessage>],
    event: MessageEdited,
    at: Timestamp,
) -> Result<(), DeadLetterReason> {
    let body = event.body.into_string();
    match message {
        TrackedMessage::Deleted => Err(DeadLetterReason::MESSAGE_DELETED),
        TrackedMessage::Created(index) => {
            let new_message = created[*index].as_mut().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
            new_message.version = new_message.version.next();
            new_message.updated_at = at;
            new_message.body = body;
            new_message.data = event.data.apply(new_message.data.take());
            Ok(())
        }
        TrackedMessage::Stored { id, version, edited, .. } => {
            *version = version.next();
            let earlier_change = edited.take().map(|earlier| earlier.data).unwrap_or_default();
            let data = earlier_change.then(event.data);
            *edited = Some(EditedMessage { id: *id, body, data, version: *version, updated_at: at });
            Ok(())
        }
    }
}

fn delete(
    message: &mut TrackedMessage,
    created: &mut [Option<NewMessage>],
) -> Result<DeletedMessage, DeadLetterReason> {
    match std::mem::replace(message, TrackedMessage::Deleted) {
        TrackedMessage::Deleted => Err(DeadLetterReason::MESSAGE_DELETED),
        TrackedMessage::Created(index) => {
            let NewMessage { id, version, created_at, .. } =
                created[index].take().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
            Ok(DeletedMessage { id, version: version.next(), created_at, is_stored: false })
        }
        TrackedMessage::Stored { id, version, created_at, .. } => {
            Ok(DeletedMessage { id, version: version.next(), created_at, is_stored: true })
        }
    }
}
