//! The fields of the index, and how messages are stored in them.

use std::error::Error as StdError;

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use chat_ports::dead_letter::DeadLetter;
use chat_ports::search_index::{Document, MessageKey, Scope};
use tantivy::schema::document::{CompactDocValue, Value};
use tantivy::schema::{FAST, Field, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions};
use tantivy::{TantivyDocument, Term};
use thiserror::Error;

use crate::dead_letters::parse_dead_letter;

/// The version of everything that decides the content of the index: fields, normalization, tokenization, terms. An index
/// of another version is rebuilt.
pub(crate) const SCHEMA_VERSION: u32 = 2;

/// The name under which [`TermTokenizer`](crate::terms::TermTokenizer) is registered with tantivy.
pub(crate) const TOKENIZER: &str = "chat_terms";

/// Field names, in the order of [`Fields`].
const KEY: &str = "key";
const APP: &str = "app";
const CHAT: &str = "chat";
const BODY: &str = "body";
pub(crate) const POSITION: &str = "position";
pub(crate) const CREATED_AT: &str = "created_at";
const UPDATED_AT: &str = "updated_at";
const VERSION: &str = "version";
const DEAD_LETTER_TAGS: &str = "parked";
const DEAD_LETTER: &str = "letter";

/// The fields of the index. A message has all but the last two. A dead letter has those two, a position and a key; since
/// every search filters by app or chat, no search finds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub key: Field,
    pub app: Field,
    pub chat: Field,
    pub body: Field,
    pub position: Field,
    pub created_at: Field,
    pub updated_at: Field,
    pub version: Field,
    pub dead_letter_tags: Field,
    pub dead_letter: Field,
}

/// The schema of the index, and its fields.
pub(crate) fn schema() -> (Schema, Fields) {
    let terms = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions)
        .set_fieldnorms(false);
    let exact = TextFieldIndexing::default().set_tokenizer("raw").set_fieldnorms(false);
    let exact = TextOptions::default().set_indexing_options(exact);
    let mut schema = Schema::builder();
    let fields = Fields {
        key: schema.add_text_field(KEY, exact.clone() | STORED),
        app: schema.add_text_field(APP, exact.clone()),
        chat: schema.add_text_field(CHAT, exact.clone()),
        body: schema.add_text_field(BODY, TextOptions::default().set_indexing_options(terms) | STORED),
        position: schema.add_u64_field(POSITION, FAST | STORED),
        created_at: schema.add_i64_field(CREATED_AT, FAST | STORED),
        updated_at: schema.add_i64_field(UPDATED_AT, STORED),
        version: schema.add_u64_field(VERSION, STORED),
        dead_letter_tags: schema.add_text_field(DEAD_LETTER_TAGS, exact),
        dead_letter: schema.add_text_field(DEAD_LETTER, STORED),
    };
    (schema.build(), fields)
}

/// A decoded document of the index.
#[derive(Debug)]
pub(crate) enum StoredDocument {
    Message(Document),
    DeadLetter(DeadLetter),
}

/// A stored document lacks a field or has a wrong value in it.
#[derive(Debug, Error)]
#[error("a stored document has no usable {0}")]
struct MissingField(&'static str);

impl Fields {
    /// The term that only one message has.
    pub fn key_term(&self, key: &MessageKey) -> Term {
        Term::from_field_text(self.key, &key_text(key))
    }

    /// The term that the messages of a scope have.
    pub fn scope_term(&self, scope: &Scope) -> Term {
        match scope {
            Scope::App(app) => Term::from_field_text(self.app, app.expose()),
            Scope::Chat(app, chat) => Term::from_field_text(self.chat, &chat_text(app, *chat)),
        }
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
        stored
    }

    /// Decodes what [`Self::message_document`] or [`Self::dead_letter_document`] encoded.
    pub fn read(&self, stored: &TantivyDocument) -> Result<StoredDocument, Box<dyn StdError + Send + Sync>> {
        let position = number(stored, self.position, POSITION).map(Position::new);
        if let Some(json) = text(stored, self.dead_letter) {
            return Ok(StoredDocument::DeadLetter(parse_dead_letter(position?, json)?));
        }
        Ok(StoredDocument::Message(Document {
            key: text(stored, self.key).and_then(parse_key).ok_or(MissingField(KEY))?,
            created_position: position?,
            body: text(stored, self.body).ok_or(MissingField(BODY))?.to_owned(),
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
