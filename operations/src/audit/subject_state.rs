//! The state of an app, a chat or a message, folded from the log up to a position, with the event that set each field.
//!
//! Streams of apps and chats may be huge, so none is read completely. For an app, a binary search finds the few events
//! that set its fields, and all discards in the operators' stream are read. For a chat, all edits and deletions of the
//! chat are read as well. For a message, its creation is searched for, and all later edits and deletions of the chat
//! are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chat_domain::projection::ProjectionName;
use chat_domain::{
    AppToken, ChatNumber, Event, MessageNumber, Position, Revision, StreamId, Timestamp, operator_action,
};
use chat_ports::event_store::stream_reader::{StreamReadError, StreamReader};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};
use chat_projector::dead_letters::{DeadLetterAction, DeadLetterActionKind};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::event::EventReference;
use super::seek;
use super::subject::Subject;
use crate::row_fields::FieldValue;

/// The name of the event that creates a message.
pub const MESSAGE_CREATED: &str = "MessageCreated";
const CHAT_CREATED: &str = "ChatCreated";

/// A position after all events. Not `u64::MAX`, because the positions of SQLite are signed.
pub(super) const AFTER_ALL_EVENTS: Position = Position::new(u64::MAX >> 1);

/// The number of events per read. It is low because each event may have a body of 64 KiB.
const BATCH_EVENTS: usize = 128;

/// Whether a subject exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Existence {
    /// It does not exist, or not yet.
    Absent,
    /// It exists.
    Present,
    /// It was deleted.
    Deleted,
}

/// The state of a subject, folded from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectState {
    /// Whether the subject exists.
    pub existence: Existence,
    /// Its fields, with the names of the HTTP API.
    pub fields: Vec<Field>,
}

/// A field of a subject, and the event that set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FieldAt)]
pub struct Field {
    /// Its name.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// Its value.
    #[schema(value_type = Value)]
    pub value: FieldValue,
    /// The event that set it.
    pub set_by: EventReference,
}

impl SubjectState {
    const ABSENT: Self = Self { existence: Existence::Absent, fields: Vec::new() };

    fn present(fields: Vec<Field>) -> Self {
        Self { existence: Existence::Present, fields }
    }

    /// Finds a field by name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// Computes the state of a subject after all events up to a position (inclusive). A count of chats or messages is the
/// number of the last one, less the deleted ones and those whose creation was discarded up to this position.
pub async fn subject_state(
    log: &dyn EventStore,
    subject: Subject,
    until: Position,
) -> Result<SubjectState, EventStoreError> {
    match subject {
        Subject::App(app) => app_state(log, app, until).await,
        Subject::Chat(app, chat) => chat_state(log, app, chat, until).await,
        Subject::Message(app, chat, message) => message_state(log, app, chat, message, until).await,
    }
}

async fn app_state(
    log: &dyn EventStore,
    app: AppToken,
    until: Position,
) -> Result<SubjectState, EventStoreError> {
    let stream = SubjectStream::new(log, StreamId::App(app));
    let Some(end) = seek::last_revision_up_to(log, &stream.name, until).await? else {
        return Ok(SubjectState::ABSENT);
    };
    let (Some(created), Some(last)) = (stream.event_at(Revision::FIRST).await?, stream.event_at(end).await?)
    else {
        return Ok(SubjectState::ABSENT);
    };
    let name = stream.last_matching(end, EventTypeFilter::Except(CHAT_CREATED), |event| match event {
        Event::AppCreated(created) => Some(created.name.into_string()),
        Event::AppRenamed(renamed) => Some(renamed.name.into_string()),
        _ => None,
    });
    let name = name.await?;
    let last_chat = stream.last_matching(end, EventTypeFilter::Only(CHAT_CREATED), |event| match event {
        Event::ChatCreated(created) => Some(created.chat_number.get()),
        _ => None,
    });
    let last_chat = last_chat.await?;
    let discards = Discards::load(&stream, CHAT_CREATED, created.position, until).await?;
    let mut fields = Vec::new();
    if let Some((name, by)) = name {
        fields.push(field("name", json!(name), &by));
    }
    fields.push(field("app_token", json!(app.expose()), &created));
    match last_chat {
        Some((number, by)) => fields.push(field("chat_count", json!(discards.count(number, &by)), &by)),
        None => fields.push(field("chat_count", json!(0), &created)),
    }
    fields.push(field("created_at", timestamp_json(created.recorded_at), &created));
    fields.push(field("updated_at", timestamp_json(last.recorded_at), &last));
    fields.push(field("version", json!(end.get() + 1), &last));
    Ok(SubjectState::present(fields))
}

async fn chat_state(
    log: &dyn EventStore,
    app: AppToken,
    chat: ChatNumber,
    until: Position,
) -> Result<SubjectState, EventStoreError> {
    let created =
        creation_lookup::find_chat_created(log, app, chat).await?.filter(|event| event.position <= until);
    let Some(created) = created else { return Ok(SubjectState::ABSENT) };
    let stream = SubjectStream::new(log, StreamId::Chat(app, chat));
    let (mut count, mut count_set_by) = (0, created.clone());
    let (mut version, mut last) = (0, created.clone());
    if let Some(end) = seek::last_revision_up_to(log, &stream.name, until).await? {
        let last_message =
            stream.last_matching(end, EventTypeFilter::Only(MESSAGE_CREATED), |event| match event {
                Event::MessageCreated(created) => Some(created.message_number.get()),
                _ => None,
            });
        let last_message = last_message.await?;
        let mut discards = Discards::load(&stream, MESSAGE_CREATED, created.position, until).await?;
        let mut last_number = 0;
        if let Some((number, by)) = last_message {
            last_number = number;
            (count, count_set_by) = (discards.count(number, &by), by);
        }
        let mut changes = stream.changes(Revision::FIRST, end);
        while let Some(event) = changes.next().await? {
            if let Ok(Event::MessageDeleted(deleted)) = event.decode()
                && deleted.message_number.get() <= last_number
                && discards.include_deletion(deleted.message_number)
            {
                count = count.saturating_sub(1);
                if event.position > count_set_by.position {
                    count_set_by = event;
                }
            }
        }
        version = end.get() + 1;
        last = stream.event_at(end).await?.unwrap_or(last);
    }
    Ok(SubjectState::present(vec![
        field("chat_number", json!(chat.get()), &created),
        field("message_count", json!(count), &count_set_by),
        field("created_at", timestamp_json(created.recorded_at), &created),
        field("updated_at", timestamp_json(last.recorded_at), &last),
        field("version", json!(version), &last),
    ]))
}

async fn message_state(
    log: &dyn EventStore,
    app: AppToken,
    chat: ChatNumber,
    message: MessageNumber,
    until: Position,
) -> Result<SubjectState, EventStoreError> {
    let created = creation_lookup::find_message_created(log, app, chat, message).await?;
    let Some(created) = created.filter(|event| event.position <= until) else {
        return Ok(SubjectState::ABSENT);
    };
    let Ok(Event::MessageCreated(original)) = created.decode() else { return Ok(SubjectState::ABSENT) };
    let stream = SubjectStream::new(log, StreamId::Chat(app, chat));
    let end = seek::last_revision_up_to(log, &stream.name, until).await?.unwrap_or(created.revision);
    let (mut body, mut last, mut version) = (original.body, created.clone(), 1);
    let (mut data, mut data_set_by) = (original.data, created.clone());
    let mut existence = Existence::Present;
    let mut changes = stream.changes(created.revision.next(), end);
    while let Some(event) = changes.next().await? {
        match event.decode() {
            Ok(Event::MessageEdited(edited)) if edited.message_number == message => {
                if !edited.data.is_keep() {
                    (data, data_set_by) = (edited.data.apply(None), event.clone());
                }
                (body, last) = (edited.body, event);
                version += 1;
            }
            Ok(Event::MessageDeleted(deleted)) if deleted.message_number == message => {
                last = event;
                version += 1;
                existence = Existence::Deleted;
                // A deletion is the last event of a message.
                break;
            }
            _ => {}
        }
    }
    let mut fields = vec![field("message_number", json!(message.get()), &created)];
    if existence == Existence::Deleted {
        fields.push(field("body", Value::Null, &last));
    } else {
        fields.push(field("body", json!(body.into_string()), &last));
        if let Some(sender) = &original.sender {
            fields.push(field("sender", json!(sender), &created));
        }
        if let Some(data) = &data {
            fields.push(field("data", FieldValue::Data(data.clone()), &data_set_by));
        }
    }
    fields.push(field("created_at", timestamp_json(created.recorded_at), &created));
    let changed_at = if existence == Existence::Deleted { "deleted_at" } else { "updated_at" };
    fields.push(field(changed_at, timestamp_json(last.recorded_at), &last));
    fields.push(field("version", json!(version), &last));
    Ok(SubjectState { existence, fields })
}

/// The creations and deletions of one stream among the events that operators have discarded from the read model.
///
/// Commands and the read model follow the same rule: a discarded creation that can't be read takes the number after
/// that of the previous creation. It is not counted, nor is the deletion of its message. A discarded event that can be
/// read is applied where that is possible, so the first deletion of a message counts, and no other one.
struct Discards {
    /// The messages that discarded deletions delete, as far as these can be read, and whether a deletion of the message
    /// has been counted.
    deletions: BTreeMap<MessageNumber, bool>,
    /// The discarded creations of the stream that can't be read: their positions, and their numbers if these are known.
    creations: BTreeMap<Position, Option<u64>>,
}

impl Discards {
    /// Loads the discards up to a position. `creation_type` is the type of event that creates what is counted: chats or
    /// messages. `created` is the position of the subject's own creation.
    async fn load(
        stream: &SubjectStream<'_>,
        creation_type: &'static str,
        created: Position,
        until: Position,
    ) -> Result<Self, EventStoreError> {
        let positions = discarded_positions(stream.log, created, until).await?;
        let (mut creations, mut deletions) = (BTreeMap::new(), BTreeMap::new());
        let mut reader = StreamReader::new(stream.log);
        for position in &positions {
            let revision = seek::last_revision_up_to(stream.log, &stream.name, *position).await?;
            let Some(revision) = revision else { continue };
            let Some(event) = stream.event_at(revision).await? else { continue };
            if event.position != *position {
                continue;
            }
            // A program that can read the event applies it, and ignores the discard.
            if let Ok(event) = event.decode() {
                if let Event::MessageDeleted(deleted) = event {
                    deletions.insert(deleted.message_number, false);
                }
                continue;
            }
            if event.event_type != creation_type {
                continue;
            }
            let number = match reader.last_number(&event, creation_type).await {
                Ok(number) => number,
                Err(StreamReadError::Store(error)) => return Err(error),
                Err(StreamReadError::Unreadable(_)) => None,
            };
            creations.insert(*position, number);
        }
        Ok(Self { deletions, creations })
    }

    /// Returns how many chats or messages were created, without discarded creations. The event
    /// `last_created` created the last of them, with the number `last_number`.
    fn count(&self, last_number: u64, last_created: &RecordedEvent) -> u64 {
        last_number.saturating_sub(self.creations.range(..last_created.position).count() as u64)
    }

    /// Whether the next deletion of a message lowers the count of messages. It does not if the creation of the message
    /// was discarded, or if it is a second deletion, which an operator discards.
    fn include_deletion(&mut self, message: MessageNumber) -> bool {
        let is_deleted_already = match self.deletions.get_mut(&message) {
            Some(is_deleted) => std::mem::replace(is_deleted, true),
            None => false,
        };
        !is_deleted_already && !self.creations.values().any(|number| *number == Some(message.get()))
    }
}

/// Reads the next operator actions, from a revision on, that discarded events; none after the last one.
pub(super) async fn read_discards(
    log: &dyn EventStore,
    from: Revision,
) -> Result<Vec<RecordedEvent>, EventStoreError> {
    let read = StreamRead::all(operator_action::STREAM, ReadStart::Forwards(from), BATCH_EVENTS)
        .filtered(EventTypeFilter::Only("DeadLetterDiscarded"));
    log.read_stream(read).await
}

/// Returns the positions, after `after`, of the events that operators have discarded from the read model. Only discards
/// recorded at or before the position `until` count.
async fn discarded_positions(
    log: &dyn EventStore,
    after: Position,
    until: Position,
) -> Result<BTreeSet<Position>, EventStoreError> {
    let (mut positions, mut from) = (BTreeSet::new(), Revision::FIRST);
    loop {
        let actions = read_discards(log, from).await?;
        let Some(last) = actions.last() else { return Ok(positions) };
        from = last.revision.next();
        for action in actions.iter().take_while(|action| action.position <= until) {
            let action = DeadLetterAction::from_event(action, ProjectionName::ReadModel);
            if let Some(DeadLetterActionKind::Discard { event, .. }) = action.map(|action| action.kind)
                && after < event
            {
                positions.insert(event);
            }
        }
    }
}

fn field(name: &'static str, value: impl Into<FieldValue>, by: &RecordedEvent) -> Field {
    Field { name, value: value.into(), set_by: by.into() }
}

fn timestamp_json(time: Timestamp) -> Value {
    json!(time.to_string())
}

/// The stream whose events a state is folded from.
struct SubjectStream<'a> {
    log: &'a dyn EventStore,
    name: Arc<str>,
}

impl<'a> SubjectStream<'a> {
    fn new(log: &'a dyn EventStore, id: StreamId) -> Self {
        Self { log, name: id.to_string().into() }
    }

    async fn read(
        &self,
        start: ReadStart,
        filter: EventTypeFilter,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_stream(StreamRead::all(Arc::clone(&self.name), start, limit).filtered(filter)).await
    }

    async fn event_at(&self, revision: Revision) -> Result<Option<RecordedEvent>, EventStoreError> {
        Ok(self.read(ReadStart::Forwards(revision), EventTypeFilter::All, 1).await?.into_iter().next())
    }

    /// Finds the last event, at or before the revision `end`, for which `extract` returns a value. Skips events that
    /// can't be decoded.
    async fn last_matching<T>(
        &self,
        end: Revision,
        filter: EventTypeFilter,
        extract: impl Fn(Event) -> Option<T>,
    ) -> Result<Option<(T, RecordedEvent)>, EventStoreError> {
        let (mut from, mut limit) = (end, 1);
        loop {
            let events = self.read(ReadStart::Backwards(from), filter, limit).await?;
            let Some(lowest) = events.last().map(|event| event.revision) else { return Ok(None) };
            for event in events {
                if let Some(value) = event.decode().ok().and_then(&extract) {
                    return Ok(Some((value, event)));
                }
            }
            let Some(before) = lowest.get().checked_sub(1) else { return Ok(None) };
            (from, limit) = (Revision::new(before), BATCH_EVENTS);
        }
    }

    /// Returns a reader of the edits and deletions of a chat, from one revision up to and including another.
    fn changes(&self, from: Revision, end: Revision) -> ChangeReader<'_> {
        ChangeReader { stream: self, from: Some(from), end, batch: Vec::new().into_iter() }
    }
}

/// Reads the edits and deletions of a chat, batch by batch.
struct ChangeReader<'a> {
    stream: &'a SubjectStream<'a>,
    /// The first revision of the next batch; `None` if there is no further batch.
    from: Option<Revision>,
    end: Revision,
    batch: std::vec::IntoIter<RecordedEvent>,
}

impl ChangeReader<'_> {
    async fn next(&mut self) -> Result<Option<RecordedEvent>, EventStoreError> {
        loop {
            if let Some(event) = self.batch.next() {
                return Ok(Some(event).filter(|event| event.revision <= self.end));
            }
            let Some(from) = self.from.filter(|from| *from <= self.end) else { return Ok(None) };
            let filter = EventTypeFilter::Except(MESSAGE_CREATED);
            let events = self.stream.read(ReadStart::Forwards(from), filter, BATCH_EVENTS).await?;
            self.from = events.last().map(|last| last.revision.next());
            self.batch = events.into_iter();
        }
    }
}
