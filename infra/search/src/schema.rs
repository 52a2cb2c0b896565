//! The fields of the index, and documents as tantivy stores them.

use std::error::Error as StdError;

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Revision, Timestamp, Version};
use serde::{Deserialize, Serialize};
use tantivy::schema::document::{CompactDocValue, Value};
use tantivy::schema::{FAST, Field, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions};
use tantivy::{TantivyDocument, Term};
use thiserror::Error;

use chat_ports::dead_letter::{DeadLetter, DiscardRecord};
use chat_ports::search_index::{Document, MessageKey, Scope};

/// The version of everything that decides what is in the index: the fields, how text is folded and cut, the terms.
/// An index of another version is rebuilt.
pub(super) const SCHEMA_VERSION: u32 = 2;

/// The name under which tantivy knows how bodies are cut into terms.
pub(super) const TOKENIZER: &str = "chat_terms";

/// Field names, in the order of [`Fields`].
const KEY: &str = "key";
const APP: &str = "app";
const CHAT: &str = "chat";
const BODY: &str = "body";
pub(super) const POSITION: &str = "position";
pub(super) const CREATED_AT: &str = "created_at";
const UPDATED_AT: &str = "updated_at";
const VERSION: &str = "version";
const DEAD_LETTER_TAGS: &str = "parked";
const DEAD_LETTER: &str = "letter";

/// Which dead letters: what [`Fields::parked`] holds of each, alone and with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadLetterTag {
    /// All of them.
    All,
    /// Those that [stand](DeadLetter::stands).
    NeedsAttention,
    /// Those that are parked.
    Pending,
    /// Those that were discarded, which nobody has acknowledged.
    Discarded,
}

impl DeadLetterTag {
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::NeedsAttention => "standing",
            Self::Pending => "parked",
            Self::Discarded => "discarded",
        }
    }

    fn applies_to(self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::NeedsAttention => letter.needs_attention(),
            Self::Pending => letter.discarded.is_none(),
            Self::Discarded => letter.discarded.is_some() && letter.needs_attention(),
        }
    }
}

/// The fields of the index. A message has all but the last two; a dead letter has those, its position and a key of its
/// own, and since every search asks for an app or a chat, none finds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub key: Field,
    pub app: Field,
    pub chat: Field,
    pub body: Field,
    pub position: Field,
    pub created_at: Field,
    pub updated_at: Field,
    pub version: Field,
    pub dead_letter_tags: Field,
    pub letter: Field,
}

/// The schema of a new index.
pub(super) fn schema() -> (Schema, Fields) {
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
        letter: schema.add_text_field(DEAD_LETTER, STORED),
    };
    (schema.build(), fields)
}

/// A stored document that is not one of this system's.
#[derive(Debug, Error)]
#[error("a stored document has no usable {0}")]
pub(super) struct MissingField(&'static str);

impl Fields {
    /// The term that a message alone has.
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

    /// The term that such dead letters have: those of a stream, or of any.
    pub fn dead_letter_tag_term(&self, letters: DeadLetterTag, stream: Option<&str>) -> Term {
        Term::from_field_text(self.dead_letter_tags, &tag_text(letters, stream))
    }

    /// The term that the dead letter of an event alone has.
    pub fn dead_letter_key_term(&self, position: Position) -> Term {
        Term::from_field_text(self.key, &dead_letter_key(position))
    }

    /// A message as it is stored.
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

    /// A dead letter as it is stored.
    pub fn letter(&self, letter: DeadLetter) -> Result<TantivyDocument, serde_json::Error> {
        let mut stored = TantivyDocument::new();
        stored.add_text(self.key, dead_letter_key(letter.position));
        for letters in [
            DeadLetterTag::All,
            DeadLetterTag::NeedsAttention,
            DeadLetterTag::Pending,
            DeadLetterTag::Discarded,
        ] {
            if letters.applies_to(&letter) {
                stored.add_text(self.dead_letter_tags, tag_text(letters, None));
                stored.add_text(self.dead_letter_tags, tag_text(letters, Some(&letter.stream)));
            }
        }
        let text = serde_json::to_string(&StoredDeadLetter {
            stream: letter.stream,
            revision: letter.revision.get(),
            event_type: letter.event_type,
            reason: letter.reason,
            parked_at: letter.dead_lettered_at,
            discarded: letter.discarded,
        })?;
        stored.add_u64(self.position, letter.position.get());
        stored.add_text(self.letter, text);
        Ok(stored)
    }

    /// Reads what [`Self::message`] or [`Self::letter`] stored.
    pub fn read(&self, stored: &TantivyDocument) -> Result<StoredDocument, Box<dyn StdError + Send + Sync>> {
        if let Some(letter) = self.text(stored, self.letter) {
            let letter: StoredDeadLetter = serde_json::from_str(letter)?;
            return Ok(StoredDocument::DeadLetter(DeadLetter {
                position: self.position(stored)?,
                stream: letter.stream,
                revision: Revision::new(letter.revision),
                event_type: letter.event_type,
                reason: letter.reason,
                dead_lettered_at: letter.parked_at,
                discarded: letter.discarded,
            }));
        }
        let time = |field, name| {
            let millis = self.value(stored, field).and_then(|value| value.as_i64());
            millis.map(Timestamp::from_millis).ok_or(MissingField(name))
        };
        Ok(StoredDocument::Message(Document {
            key: self.text(stored, self.key).and_then(parse_key).ok_or(MissingField(KEY))?,
            created_position: self.position(stored)?,
            body: self.text(stored, self.body).ok_or(MissingField(BODY))?.to_owned(),
            version: self
                .value(stored, self.version)
                .and_then(|value| value.as_u64())
                .map(Version::new)
                .ok_or(MissingField(VERSION))?,
            created_at: time(self.created_at, CREATED_AT)?,
            updated_at: time(self.updated_at, UPDATED_AT)?,
        }))
    }

    fn position(&self, stored: &TantivyDocument) -> Result<Position, MissingField> {
        let position = self.value(stored, self.position).and_then(|value| value.as_u64());
        position.map(Position::new).ok_or(MissingField(POSITION))
    }

    fn text<'a>(&self, stored: &'a TantivyDocument, field: Field) -> Option<&'a str> {
        self.value(stored, field)?.as_str()
    }

    #[expect(clippy::unused_self, reason = "one of the ways these fields are read")]
    fn value<'a>(&self, stored: &'a TantivyDocument, field: Field) -> Option<CompactDocValue<'a>> {
        stored.get_first(field)
    }
}

/// What a stored document is.
#[derive(Debug)]
pub(super) enum StoredDocument {
    Message(Document),
    DeadLetter(DeadLetter),
}

#[derive(Serialize, Deserialize)]
struct StoredDeadLetter {
    stream: String,
    revision: u64,
    event_type: String,
    reason: String,
    parked_at: Timestamp,
    discarded: Option<DiscardRecord>,
}

fn tag_text(letters: DeadLetterTag, stream: Option<&str>) -> String {
    stream.map_or_else(|| letters.as_str().to_owned(), |stream| format!("{}/{stream}", letters.as_str()))
}

/// No app's token has these letters.
fn dead_letter_key(position: Position) -> String {
    format!("letter/{position}")
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
