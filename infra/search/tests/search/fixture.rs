//! An index in a temporary folder, filled with messages by their texts.

use std::path::PathBuf;

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use chat_ports::event_store::LogId;
use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope, SearchPage, SearchRequest, Sort};
use chat_search::{TantivyIndex, TantivyIndexWriter};
use tempfile::TempDir;
use uuid::Uuid;

pub const LOG: LogId = LogId(Uuid::from_u128(1));

/// An index and its writer.
pub struct Fixture {
    pub folder: TempDir,
    pub writer: TantivyIndexWriter,
    pub index: TantivyIndex,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _) = TantivyIndexWriter::open(&folder.path().join("index")).unwrap();
        let index = writer.reader();
        Self { folder, writer, index }
    }

    /// An index of these texts, one commit: messages 1, 2, 3 … of chat 1.
    pub fn of(texts: &[&str]) -> Self {
        let mut fixture = Self::new();
        fixture.put(texts.iter().zip(1..).map(|(text, number)| message(number, text)).collect());
        fixture
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    /// Stores messages in one commit that moves the checkpoint by one.
    pub fn put(&mut self, put: Vec<Document>) {
        let changes = IndexChanges { upsert: put, ..self.next_changes() };
        self.writer.commit(changes).unwrap();
    }

    /// Changes of nothing that move the checkpoint by one.
    pub fn next_changes(&self) -> IndexChanges {
        let from = self.writer.checkpoint().position;
        no_changes(from.get(), from.get() + 1)
    }

    /// The texts that a query finds, in order.
    pub fn find(&self, query: &str) -> Vec<String> {
        texts(&self.index.search(&request(query)).unwrap())
    }

    /// The same, with typing errors forgiven.
    pub fn find_fuzzy(&self, query: &str) -> Vec<String> {
        texts(&self.index.search(&SearchRequest { fuzzy: true, ..request(query) }).unwrap())
    }

    pub fn finds(&self, query: &str, text: &str) -> bool {
        self.find(query).iter().any(|found| found == text)
    }
}

pub fn no_changes(from: u64, to: u64) -> IndexChanges {
    IndexChanges::empty(LOG, Position::new(from), Position::new(to))
}

pub fn app() -> AppToken {
    AppToken::parse(&"k".repeat(AppToken::LENGTH)).unwrap()
}

pub fn key(number: u64) -> MessageKey {
    MessageKey { app: app(), chat: ChatNumber::FIRST, message: MessageNumber::try_from(number).unwrap() }
}

/// A message of chat 1, created at a position and a second that are its number.
pub fn message(number: u64, text: &str) -> Document {
    let time = Timestamp::from_millis(i64::try_from(number).unwrap() * 1_000);
    Document {
        key: key(number),
        created_position: Position::new(number),
        body: text.to_owned(),
        version: Version::new(1),
        created_at: time,
        updated_at: time,
    }
}

pub fn request(query: &str) -> SearchRequest {
    SearchRequest {
        scope: Scope::Chat(app(), ChatNumber::FIRST),
        query: query.to_owned(),
        fuzzy: false,
        sort: Sort::Relevance,
        created_from: None,
        created_until: None,
        limit: 100,
        cursor: None,
    }
}

pub fn texts(page: &SearchPage) -> Vec<String> {
    page.hits.iter().map(|hit| hit.document.body.clone()).collect()
}
