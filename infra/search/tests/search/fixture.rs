//! An index in a temporary folder, filled with messages.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::search_index::{
    Document, IndexChanges, MessageKey, Scope, SearchError, SearchPage, SearchRequest,
};
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

    /// An index of messages 1, 2, 3 … of chat 1 with these texts, in one commit.
    pub fn with_texts(texts: &[&str]) -> Self {
        let mut fixture = Self::new();
        fixture.upsert(texts.iter().zip(1..).map(|(text, number)| message(number, text)).collect());
        fixture
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    /// Commits messages and moves the checkpoint by one.
    pub fn upsert(&mut self, upsert: Vec<Document>) {
        let changes = IndexChanges { upsert, ..self.next_changes() };
        self.writer.commit(changes).unwrap();
    }

    /// Changes that only move the checkpoint, by one.
    pub fn next_changes(&self) -> IndexChanges {
        let from = self.writer.checkpoint().position;
        empty_changes(from.get(), from.get() + 1)
    }

    /// The texts of a query's hits, in order.
    pub fn find(&self, query: &str) -> Vec<String> {
        texts(&self.index.search(&request(query)).unwrap())
    }

    /// The texts of a fuzzy query's hits, in order.
    pub fn find_fuzzy(&self, query: &str) -> Vec<String> {
        texts(&self.index.search(&SearchRequest { fuzzy: true, ..request(query) }).unwrap())
    }

    /// Whether a query finds a message with exactly this text.
    pub fn finds(&self, query: &str, text: &str) -> bool {
        self.find(query).iter().any(|found| found == text)
    }
}

/// Repeats an action while another writer has the index open, for up to 30 seconds: a writer that was dropped may hold
/// the lock a little longer.
pub fn when_free<T>(mut action: impl FnMut() -> Result<T, SearchError>) -> Result<T, SearchError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match action() {
            Err(SearchError::InUse(_)) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
            outcome => return outcome,
        }
    }
}

/// Opens an index once no other writer has it open.
pub fn open_when_free(dir: &Path) -> (TantivyIndexWriter, StorageOrigin) {
    when_free(|| TantivyIndexWriter::open(dir)).unwrap()
}

pub fn empty_changes(from: u64, to: u64) -> IndexChanges {
    IndexChanges::empty(LOG, Position::new(from), Position::new(to))
}

pub fn app() -> AppToken {
    AppToken::parse(&"k".repeat(AppToken::LENGTH)).unwrap()
}

pub fn key(number: u64) -> MessageKey {
    MessageKey { app: app(), chat: ChatNumber::FIRST, message: MessageNumber::try_from(number).unwrap() }
}

/// A message of chat 1. Its number is also its position, and its time of creation in seconds.
pub fn message(number: u64, text: &str) -> Document {
    let time = Timestamp::from_millis(i64::try_from(number).unwrap() * 1_000);
    Document {
        key: key(number),
        created_position: Position::new(number),
        body: text.to_owned(),
        sender: None,
        data: None,
        version: Version::new(1),
        created_at: time,
        updated_at: time,
    }
}

pub fn request(query: &str) -> SearchRequest {
    SearchRequest { limit: 100, ..SearchRequest::new(Scope::Chat(app(), ChatNumber::FIRST), query) }
}

pub fn texts(page: &SearchPage) -> Vec<String> {
    page.hits.iter().map(|hit| hit.document.body.clone()).collect()
}
