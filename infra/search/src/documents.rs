//! The documents of the index: messages and dead letters, their terms, and how they are stored.
//!
//! A message has all fields except `dead_letter_tags` and `dead_letter`. The field `sender` is absent without a sender.
//! `attributes` is absent if the message has neither a sender nor data. A dead letter has a key, a position, tags by
//! which it is found, and its content as JSON. It has no app and no chat, so no search finds it.

use std::error::Error as StdError;

use chat_domain::{
    AppToken, ChatNumber, MessageData, MessageNumber, Position, Revision, Sender, SenderId, Timestamp,
    Version,
};
use chat_ports::dead_letter::{DeadLetter, DiscardRecord};
use chat_ports::search_index::{Document, MessageKey, Scope};
use serde::{Deserialize, Serialize};
use tantivy::schema::Field;
use tantivy::schema::document::{CompactDocValue, Value};
use tantivy::{TantivyDocument, Term};
use thiserror::Error;

use crate::schema::{BODY, CREATED_AT, Fields, KEY, POSITION, UPDATED_AT, VERSION};

/// A decoded document of the index.
#[derive(Debug)]
pub(crate) enum StoredDocument {
    Message(Document),
    DeadLetter(DeadLetter),
}

/// A set of dead letters. A dead letter has two terms for each set that it belongs to: the tag of the set, and the tag
/// followed by the dead letter's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLetterTag {
    /// All dead letters.
    All,
    /// Those that [need attention](DeadLetter::needs_attention).
    NeedsAttention,
    /// Those that are neither applied nor discarded.
    Pending,
    /// Those that were discarded, until the discard is acknowledged.
    Discarded,
}

impl DeadLetterTag {
    const ALL: [Self; 4] = [Self::All, Self::NeedsAttention, Self::Pending, Self::Discarded];

    /// The stored name.
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::NeedsAttention => "standing",
            Self::Pending => "parked",
            Self::Discarded => "discarded",
        }
    }

    fn applies_to(self, dead_letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::NeedsAttention => dead_letter.needs_attention(),
            Self::Pending => dead_letter.discarded.is_none(),
            Self::Discarded => dead_letter.discarded.is_some() && dead_letter.needs_attention(),
        }
    }

    /// The tag as a term, of one stream or of all.
    pub fn term_text(self, stream: Option<&str>) -> String {
        stream.map_or_else(|| self.as_str().to_owned(), |stream| format!("{}/{stream}", self.as_str()))
    }
}

#[derive(Serialize, Deserialize)]
struct StoredDeadLetter {
    stream: String,
    revision: u64,
    event_type: String,
    reason: String,
    #[serde(rename = "parked_at")]
    dead_lettered_at: Timestamp,
    discarded: Option<DiscardRecord>,
}

/// The sender and the data of a message, stored as JSON.
#[derive(Default, Serialize, Deserialize)]
struct StoredAttributes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<Sender>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<MessageData>,
}

/// A stored document lacks a field or has a wrong value in it.
#[derive(Debug, Error)]
#[error("a stored document has no usable {0}")]
struct MissingField(&'static str);

impl Fields {
    /// The term that only the message with this key has.
    pub fn key_term(&self, key: &MessageKey) -> Term {
        Term::from_field_text(self.key, &key_text(key))
    }

    /// The term that only the dead letter of the event at a position has.
    pub fn dead_letter_key_term(&self, position: Position) -> Term {
        Term::from_field_text(self.key, &dead_letter_key(position))
    }

    /// The term that the messages of a scope have.
    pub fn scope_term(&self, scope: &Scope) -> Term {
        match scope {
            Scope::App(app) => Term::from_field_text(self.app, app.expose()),
            Scope::Chat(app, chat) => Term::from_field_text(self.chat, &chat_text(app, *chat)),
        }
    }

    /// The term that the messages of a sender in the app of a scope have.
    pub fn sender_term(&self, scope: &Scope, sender: &SenderId) -> Term {
        Term::from_field_text(self.sender, &sender_text(&scope.app(), sender))
    }

    /// Encodes a message.
    pub fn message_document(&self, message: &Document) -> TantivyDocument {
        let mut stored = TantivyDocument::new();
        stored.add_text(self.key, key_text(&message.key));
        stored.add_text(self.app, message.key.app.expose());
        stored.add_text(self.chat, chat_text(&message.key.app, message.key.chat));
        stored.add_text(self.body, &message.body);
        stored.add_u64(self.position, message.created_position.get());
        stored.add_i64(self.created_at, message.created_at.millis());
        stored.add_i64(self.updated_at, message.updated_at.millis());
        stored.add_u64(self.version, message.version.get());
        if let Some(sender) = &message.sender {
            stored.add_text(self.sender, sender_text(&message.key.app, &sender.id));
        }
        if message.sender.is_some() || message.data.is_some() {
            let attributes = StoredAttributes { sender: message.sender.clone(), data: message.data.clone() };
            // Texts and JSON always serialize.
            stored.add_text(self.attributes, serde_json::to_string(&attributes).unwrap_or_default());
        }
        stored
    }

    /// Encodes a dead letter.
    pub fn dead_letter_document(
        &self,
        dead_letter: DeadLetter,
    ) -> Result<TantivyDocument, serde_json::Error> {
        let mut stored = TantivyDocument::new();
        stored.add_text(self.key, dead_letter_key(dead_letter.position));
        for tag in DeadLetterTag::ALL.into_iter().filter(|tag| tag.applies_to(&dead_letter)) {
            stored.add_text(self.dead_letter_tags, tag.term_text(None));
            stored.add_text(self.dead_letter_tags, tag.term_text(Some(&dead_letter.stream)));
        }
        stored.add_u64(self.position, dead_letter.position.get());
        let json = serde_json::to_string(&StoredDeadLetter {
            stream: dead_letter.stream,
            revision: dead_letter.revision.get(),
            event_type: dead_letter.event_type,
            reason: dead_letter.reason,
            dead_lettered_at: dead_letter.dead_lettered_at,
            discarded: dead_letter.discarded,
        })?;
        stored.add_text(self.dead_letter, json);
        Ok(stored)
    }

    /// Decodes a document that [`Self::message_document`] or [`Self::dead_letter_document`] encoded.
    pub fn decode(
        &self,
        stored: &TantivyDocument,
    ) -> Result<StoredDocument, Box<dyn StdError + Send + Sync>> {
        let position = number(stored, self.position, POSITION).map(Position::new);
        if let Some(json) = text(stored, self.dead_letter) {
            return Ok(StoredDocument::DeadLetter(parse_dead_letter(position?, json)?));
        }
        let StoredAttributes { sender, data } = match text(stored, self.attributes) {
            Some(json) => serde_json::from_str(json)?,
            None => StoredAttributes::default(),
        };
        Ok(StoredDocument::Message(Document {
            key: text(stored, self.key).and_then(parse_key).ok_or(MissingField(KEY))?,
            created_position: position?,
            body: text(stored, self.body).ok_or(MissingField(BODY))?.to_owned(),
            sender,
            data,
            version: Version::new(number(stored, self.version, VERSION)?),
            created_at: time(stored, self.created_at, CREATED_AT)?,
            updated_at: time(stored, self.updated_at, UPDATED_AT)?,
        }))
    }
}

fn text(stored: &TantivyDocument, field: Field) -> Option<&str> {
    first_value(stored, field)?.as_str()
}

fn number(stored: &TantivyDocument, field: Field, name: &'static str) -> Result<u64, MissingField> {
    first_value(stored, field).and_then(|value| value.as_u64()).ok_or(MissingField(name))
}

fn time(stored: &TantivyDocument, field: Field, name: &'static str) -> Result<Timestamp, MissingField> {
    let millis = first_value(stored, field).and_then(|value| value.as_i64());
    millis.map(Timestamp::from_millis).ok_or(MissingField(name))
}

fn first_value(stored: &TantivyDocument, field: Field) -> Option<CompactDocValue<'_>> {
    stored.get_first(field)
}

fn chat_text(app: &AppToken, chat: ChatNumber) -> String {
    format!("{}/{chat}", app.expose())
}

/// Contains the app, because applications choose the ids of senders, so two apps may use the same id.
fn sender_text(app: &AppToken, sender: &SenderId) -> String {
    format!("{}/{}", app.expose(), sender.as_str())
}

fn key_text(key: &MessageKey) -> String {
    format!("{}/{}/{}", key.app.expose(), key.chat, key.message)
}

fn parse_key(text: &str) -> Option<MessageKey> {
    let mut parts = text.split('/');
    let key = MessageKey {
        app: AppToken::parse(parts.next()?).ok()?,
        chat: ChatNumber::parse(parts.next()?).ok()?,
        message: MessageNumber::parse(parts.next()?).ok()?,
    };
    parts.next().is_none().then_some(key)
}

/// Decodes the JSON of a dead letter.
fn parse_dead_letter(position: Position, json: &str) -> Result<DeadLetter, serde_json::Error> {
    let stored: StoredDeadLetter = serde_json::from_str(json)?;
    Ok(DeadLetter {
        position,
        stream: stored.stream,
        revision: Revision::new(stored.revision),
        event_type: stored.event_type,
        reason: stored.reason,
        dead_lettered_at: stored.dead_lettered_at,
        discarded: stored.discarded,
    })
}

/// The key of a dead letter. It differs from the key of every message, because no app token is as short as `letter`.
fn dead_letter_key(position: Position) -> String {
    format!("letter/{position}")
}
