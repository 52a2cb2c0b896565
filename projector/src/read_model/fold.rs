//! The read model's fold: rows as they were and a stretch of the log make rows as they are.

use std::collections::{HashMap, HashSet};

use chat_domain::event::MessageCreated;
use chat_domain::{
    AppToken, ChatNumber, Event, MessageNumber, Position, StreamId, Timestamp, Version, app, chat,
};
use chat_ports::read_model::{
    AppRow, ChatKey, ChatRow, EditedMessage, MessageState, NewMessage, ReadModelChanges, StoredChat,
    Tombstone,
};

use crate::dead_letters::{DeadLetterReason, DeadLetters};
use crate::decoded_batch::{
    BatchEvent, BatchStream, DecodedBatch, DecodedEvent, SkippedEvent, Step, StreamSelection,
};

/// Rows as they are stored, as far as a stretch touches them.
#[derive(Clone, Debug, Default)]
pub struct LoadedRows {
    /// The apps.
    pub apps: HashMap<AppToken, AppRow>,
    /// The chats.
    pub chats: HashMap<ChatKey, StoredChat>,
    /// The messages that are edited or deleted, by chat id and number.
    pub messages: HashMap<(Position, MessageNumber), MessageState>,
}

/// What to load before a stretch can be folded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RowsToLoad {
    /// Apps.
    pub apps: Vec<AppToken>,
    /// Chats.
    pub chats: Vec<ChatKey>,
    /// Messages that are edited or deleted. Those that the stretch itself creates are among them: whoever has the
    /// chat's row knows by [`StoredChat::last_message`] which of them are stored.
    pub messages: HashSet<(ChatKey, MessageNumber)>,
}

impl RowsToLoad {
    /// What the stretch touches, parked streams left out.
    pub fn for_batch(stretch: &DecodedBatch) -> Self {
        let mut wanted = Self { messages: modified_messages(stretch), ..Self::default() };
        for stream in stretch.streams.iter().filter(|stream| !stream.is_blocked) {
            match stream.id {
                Ok(StreamId::App(token)) => wanted.apps.push(token),
                Ok(StreamId::Chat(app, number)) => wanted.chats.push(ChatKey { app, number }),
                Err(_) => {}
            }
        }
        wanted
    }
}

/// The messages that a stretch edits or deletes, parked streams left out.
fn modified_messages(stretch: &DecodedBatch) -> HashSet<(ChatKey, MessageNumber)> {
    let touched = |incoming: &BatchEvent| {
        let message = incoming.modified_message()?;
        match stretch.streams[incoming.stream] {
            BatchStream { id: Ok(StreamId::Chat(app, number)), is_blocked: false, .. } => {
                Some((ChatKey { app, number }, message))
            }
            _ => None,
        }
    };
    stretch.events.iter().filter_map(touched).collect()
}

/// What a stretch comes to.
#[derive(Clone, Debug)]
pub struct FoldOutput {
    /// What to store.
    pub changes: ReadModelChanges,
    /// The apps that it touched, as they are now.
    pub apps: Vec<AppRow>,
    /// The chats that it touched, as they are now.
    pub chats: Vec<StoredChat>,
}

/// Folds a stretch. The rows are those that [`Wanted::by`] names, as far as they exist.
pub fn fold(stretch: DecodedBatch, rows: LoadedRows, now: Timestamp) -> FoldOutput {
    let (log, from, to) = (stretch.log, stretch.from, stretch.to);
    let mut fold = FoldState::new(rows, modified_messages(&stretch));
    let DeadLetters(parked) = stretch.apply(
        now,
        |_| StreamSelection::Fold,
        |stream, step| match step {
            Step::Fact(fact) => fold.apply(stream, fact),
            Step::Gap(gap) => {
                fold.skip_event(stream, &gap);
                Ok(())
            }
        },
    );
    fold.finish(ReadModelChanges { new_dead_letters: parked, ..ReadModelChanges::empty(log, from, to) })
}

/// A row in work.
struct TrackedRow<T> {
    row: T,
    is_stored: bool,
    is_changed: bool,
}

impl<T> TrackedRow<T> {
    fn existing(row: T) -> Self {
        Self { row, is_stored: true, is_changed: false }
    }

    fn new(row: T) -> Self {
        Self { row, is_stored: false, is_changed: true }
    }
}

/// A message in work.
enum TrackedMessage {
    /// Created in this stretch: its place in [`Fold::created`].
    Created(usize),
    /// Stored before, and perhaps edited since.
    Stored { id: Position, version: Version, created_at: Timestamp, edited: Option<EditedMessage> },
    /// Deleted, earlier or in this stretch.
    Deleted,
}

struct FoldState {
    apps: HashMap<AppToken, TrackedRow<AppRow>>,
    chats: HashMap<ChatKey, TrackedRow<StoredChat>>,
    /// The [`touched`] ones, once they are there.
    messages: HashMap<(Position, MessageNumber), TrackedMessage>,
    modified_messages: HashSet<(ChatKey, MessageNumber)>,
    /// `None` once deleted.
    created: Vec<Option<NewMessage>>,
    tombstones: Vec<Tombstone>,
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

    fn apply(&mut self, stream: StreamId, fact: DecodedEvent) -> Result<(), DeadLetterReason> {
        match stream {
            StreamId::App(token) => self.apply_to_app(token, fact),
            StreamId::Chat(app, number) => self.apply_to_chat(ChatKey { app, number }, fact),
        }
    }

    fn apply_to_app(&mut self, token: AppToken, fact: DecodedEvent) -> Result<(), DeadLetterReason> {
        let row = self.apps.get(&token).map(|work| &work.row);
        if is_applied(&fact, row.map_or(Version::new(0), |row| row.version))? {
            return Ok(());
        }
        let state = row.map_or(app::State::Absent, |row| app::State::Present {
            last_chat: row.last_chat,
            version: row.version,
        });
        app::evolve(state, &fact.event)?;

        if let Event::AppCreated(created) = fact.event {
            let row = AppRow {
                created_position: fact.position,
                token,
                name: created.name,
                chat_count: 0,
                last_chat: None,
                version: Version::new(1),
                created_at: fact.recorded_at,
                updated_at: fact.recorded_at,
            };
            self.apps.insert(token, TrackedRow::new(row));
            return Ok(());
        }
        // It evolved from a state that is present.
        let Some(app) = self.apps.get_mut(&token) else { return Ok(()) };
        app.is_changed = true;
        app.row.version = app.row.version.next();
        app.row.updated_at = fact.recorded_at;
        match fact.event {
            Event::AppRenamed(renamed) => app.row.name = renamed.name,
            Event::ChatCreated(created) => {
                app.row.chat_count += 1;
                app.row.last_chat = Some(created.chat_number);
                let chat = StoredChat {
                    id: fact.position,
                    app_id: app.row.created_position,
                    app: token,
                    last_message: None,
                    row: ChatRow {
                        number: created.chat_number,
                        message_count: 0,
                        version: Version::new(0),
                        created_at: fact.recorded_at,
                        updated_at: fact.recorded_at,
                    },
                };
                self.chats.insert(chat.key(), TrackedRow::new(chat));
            }
            _ => {}
        }
        Ok(())
    }

    fn apply_to_chat(&mut self, key: ChatKey, fact: DecodedEvent) -> Result<(), DeadLetterReason> {
        let Some(chat) = self.chats.get_mut(&key) else { return Err(DeadLetterReason::CHAT_MISSING) };
        if is_applied(&fact, chat.row.row.version)? {
            return Ok(());
        }
        chat::evolve(chat::State::with_messages(chat.row.last_message), &fact.event)?;

        let id = chat.row.id;
        match fact.event {
            Event::MessageCreated(MessageCreated { message_number: number, body }) => {
                chat.row.last_message = Some(number);
                chat.row.row.message_count += 1;
                if self.modified_messages.contains(&(key, number)) {
                    self.messages.insert((id, number), TrackedMessage::Created(self.created.len()));
                }
                self.created.push(Some(NewMessage {
                    id: fact.position,
                    chat_id: id,
                    number,
                    body: body.into_string(),
                    version: Version::new(1),
                    created_at: fact.recorded_at,
                    updated_at: fact.recorded_at,
                }));
            }
            // Of the touched messages up to the chat's last number, only those are missing that were discarded: what is done
            // to such a message goes with it.
            Event::MessageEdited(edited) => {
                if let Some(message) = self.messages.get_mut(&(id, edited.message_number)) {
                    edit(message, &mut self.created, edited.body.into_string(), fact.recorded_at)?;
                }
            }
            Event::MessageDeleted(deleted) => {
                if let Some(message) = self.messages.get_mut(&(id, deleted.message_number)) {
                    let (message_id, version, created_at, stored) = delete(message, &mut self.created)?;
                    chat.row.row.message_count -= 1;
                    self.tombstones.push(Tombstone {
                        id: message_id,
                        chat_id: id,
                        number: deleted.message_number,
                        stored,
                        version,
                        created_at,
                        deleted_at: fact.recorded_at,
                    });
                }
            }
            _ => {}
        }
        chat.is_changed = true;
        chat.row.row.version = chat.row.row.version.next();
        chat.row.row.updated_at = fact.recorded_at;
        Ok(())
    }

    /// Goes on after an event that was given up: its revision is used up, and with a creation the number.
    fn skip_event(&mut self, stream: StreamId, gap: &SkippedEvent) {
        let after = Version::new(gap.revision.get() + 1);
        match stream {
            StreamId::App(token) => {
                let Some(app) = self.apps.get_mut(&token).filter(|app| app.row.version < after) else {
                    return;
                };
                if let Some(last) =
                    last_number_after_skip(gap, CHAT_CREATED, app.row.last_chat.map(ChatNumber::get))
                {
                    app.row.last_chat = ChatNumber::try_from(last).ok();
                }
                app.row.version = after;
                app.row.updated_at = gap.recorded_at;
                app.is_changed = true;
            }
            StreamId::Chat(app, number) => {
                let Some(chat) = self.chats.get_mut(&ChatKey { app, number }) else { return };
                if chat.row.row.version >= after {
                    return;
                }
                let last = chat.row.last_message.map(MessageNumber::get);
                if let Some(last) = last_number_after_skip(gap, MESSAGE_CREATED, last) {
                    chat.row.last_message = MessageNumber::try_from(last).ok();
                }
                chat.row.row.version = after;
                chat.row.row.updated_at = gap.recorded_at;
                chat.is_changed = true;
            }
        }
    }

    fn finish(self, mut changes: ReadModelChanges) -> FoldOutput {
        let (mut apps, mut chats) = (Vec::new(), Vec::new());
        for app in self.apps.into_values().filter(|app| app.is_changed) {
            let rows = if app.is_stored { &mut changes.changed_apps } else { &mut changes.new_apps };
            rows.push(app.row.clone());
            apps.push(app.row);
        }
        for chat in self.chats.into_values().filter(|chat| chat.is_changed) {
            let rows = if chat.is_stored { &mut changes.changed_chats } else { &mut changes.new_chats };
            rows.push(chat.row.clone());
            chats.push(chat.row);
        }
        for message in self.messages.into_values() {
            if let TrackedMessage::Stored { edited: Some(edited), .. } = message {
                changes.edited_messages.push(edited);
            }
        }
        changes.new_messages = self.created.into_iter().flatten().collect();
        changes.deleted_messages = self.tombstones;
        // Maps have no order; rows go in that of the log.
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

/// The number that counts as the last one after a creation that was given up; `None` where no number goes with it. It is
/// the event's own, where that can be read and its stream can have come to it, or else the next one. One that was used
/// before uses up nothing.
fn last_number_after_skip(gap: &SkippedEvent, creation: &str, last: Option<u64>) -> Option<u64> {
    if gap.event_type != creation {
        return None;
    }
    let last = last.unwrap_or(0);
    let own = match &gap.event {
        Some(Event::ChatCreated(created)) => Some(created.chat_number.get()),
        Some(Event::MessageCreated(created)) => Some(created.message_number.get()),
        _ => None,
    };
    match own.filter(|own| *own <= gap.revision.get() + 1) {
        Some(own) => (own > last).then_some(own),
        None => Some(last + 1),
    }
}

/// Whether a row at `version` has the event already. The version counts the stream's events, so the next one has it as
/// its revision.
fn is_applied(fact: &DecodedEvent, version: Version) -> Result<bool, DeadLetterReason> {
    let (found, expected) = (fact.revision.get(), version.get());
    if found > expected {
        Err(DeadLetterReason::unexpected_revision(found, expected))
    } else {
        Ok(found < expected)
    }
}

fn edit(
    message: &mut TrackedMessage,
    created: &mut [Option<NewMessage>],
    body: String,
    at: Timestamp,
) -> Result<(), DeadLetterReason> {
    match message {
        TrackedMessage::Deleted => Err(DeadLetterReason::MESSAGE_DELETED),
        TrackedMessage::Created(index) => {
            let message = created[*index].as_mut().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
            message.version = message.version.next();
            message.updated_at = at;
            message.body = body;
            Ok(())
        }
        TrackedMessage::Stored { id, version, edited, .. } => {
            *version = version.next();
            *edited = Some(EditedMessage { id: *id, body, version: *version, updated_at: at });
            Ok(())
        }
    }
}

/// Takes the message away; its id, its version with the deletion, when it was created, and whether it is stored.
fn delete(
    message: &mut TrackedMessage,
    created: &mut [Option<NewMessage>],
) -> Result<(Position, Version, Timestamp, bool), DeadLetterReason> {
    match std::mem::replace(message, TrackedMessage::Deleted) {
        TrackedMessage::Deleted => Err(DeadLetterReason::MESSAGE_DELETED),
        TrackedMessage::Created(index) => {
            let gone = created[index].take().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
            Ok((gone.id, gone.version.next(), gone.created_at, false))
        }
        TrackedMessage::Stored { id, version, created_at, .. } => Ok((id, version.next(), created_at, true)),
    }
}
