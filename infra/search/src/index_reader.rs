//! The index reader: the search port, implemented on the index in a folder that this process or another one writes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use chat_domain::Position;
use chat_ports::event_store::LogId;
use chat_ports::search_index::{QueryTooLong, SearchError, SearchIndex, SearchPage, SearchRequest};

use crate::index::TantivyIndex;
use crate::query_parser::{MAX_QUERY_BYTES, MAX_QUERY_WORDS, count_query_words};
use crate::search::SearchState;
use crate::tail::{Tail, TailWriter};

/// A reader of the index in a folder and of its tail. Opens the index on first use, and shares the open index with a
/// writer of the same process.
///
/// A search loads the newest commit first. If another thread is loading one, the search uses the current snapshot, or
/// waits if the request needs a newer position. Where a [`TailWriter`] adds the changes that are not committed yet, a
/// search finds them too.
#[derive(Debug)]
pub struct SearchIndexReader {
    dir: PathBuf,
    index: Mutex<Option<TantivyIndex>>,
    tail: Arc<Tail>,
}

impl SearchIndexReader {
    /// A reader of the index in a folder. The index need not exist yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, index: Mutex::new(None), tail: Arc::default() }
    }

    /// Begins the tail after a position of the log, in place of an earlier tail. If the earlier tail is of the same
    /// log, it is used until the new one reaches as far. Of several writers, only the last may be used.
    pub fn begin_tail(&self, log: LogId, from: Position) -> TailWriter {
        TailWriter::new(Arc::clone(&self.tail), log, from)
    }

    /// Discards the tail. Must be called when the log was replaced or has lost events.
    pub fn discard_tail(&self) {
        self.tail.discard();
    }

    /// The position of the newest commit and its tail, from which searches are answered. Blocks.
    ///
    /// # Errors
    /// Those of [`TantivyIndex::open`] and [`TantivyIndex::refresh`].
    pub fn position(&self) -> Result<Position, SearchError> {
        Ok(self.newest()?.state_with_tail(&self.tail).position())
    }

    /// The index at its newest commit. Blocks.
    ///
    /// # Errors
    /// Those of [`TantivyIndex::open`] and [`TantivyIndex::refresh`].
    pub fn newest(&self) -> Result<TantivyIndex, SearchError> {
        let index = self.index()?;
        index.refresh()?;
        Ok(index)
    }

    fn index(&self) -> Result<TantivyIndex, SearchError> {
        let mut opened = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*opened {
            return Ok(index.clone());
        }
        Ok(opened.insert(TantivyIndex::open_shared(&self.dir)?).clone())
    }
}

impl SearchIndex for SearchIndexReader {
    fn check_query(&self, query: &str) -> Result<(), QueryTooLong> {
        if query.len() > MAX_QUERY_BYTES || count_query_words(query) > MAX_QUERY_WORDS {
            return Err(QueryTooLong);
        }
        Ok(())
    }

    fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
        let index = self.index()?;
        index.try_refresh()?;
        let mut state = index.state_with_tail(&self.tail);
        let is_behind = |state: &SearchState| request.min_position.is_some_and(|min| state.position() < min);
        if is_behind(&state) {
            // Another thread may be loading the commit that the request needs: wait for it.
            index.refresh()?;
            state = index.state_with_tail(&self.tail);
        }
        if is_behind(&state) {
            return Ok(SearchPage::empty(state.position()));
        }
        state.search(request)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::thread;
    use std::time::{Duration, Instant};

    use chat_domain::{AppToken, ChatNumber, MessageNumber, Timestamp, Version};
    use chat_ports::event_store::LogId;
    use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope};
    use uuid::Uuid;

    use super::*;
    use crate::TantivyIndexWriter;

    /// Longer than any search takes.
    const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

    const LOG: LogId = LogId(Uuid::from_u128(1));

    fn request(min_position: Option<u64>) -> SearchRequest {
        let app = AppToken::parse(&"k".repeat(AppToken::LENGTH)).unwrap();
        let min_position = min_position.map(Position::new);
        SearchRequest { min_position, ..SearchRequest::new(Scope::App(app), "word") }
    }

    fn commit(writer: &mut TantivyIndexWriter, from: u64) {
        let (from, to) = (Position::new(from), Position::new(from + 1));
        writer.commit(IndexChanges::empty(LOG, from, to)).unwrap();
    }

    /// A writer, and a reader that does not share its index, as in another process.
    fn writer_and_remote_reader(dir: &std::path::Path) -> (TantivyIndexWriter, SearchIndexReader) {
        let (writer, _) = TantivyIndexWriter::open(dir).unwrap();
        let index = TantivyIndex::open(dir).unwrap();
        (
            writer,
            SearchIndexReader { dir: dir.to_owned(), index: Mutex::new(Some(index)), tail: Arc::default() },
        )
    }

    #[test]
    fn a_search_does_not_wait_for_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) = writer_and_remote_reader(folder.path());
        commit(&mut writer, 0);
        let searched = &reader;
        thread::scope(|threads| {
            let (sender, answers) = mpsc::channel();
            reader.index().unwrap().while_loading(|| {
                threads
                    .spawn(move || sender.send(searched.search(&request(None)).unwrap().position).unwrap());
                assert_eq!(answers.recv_timeout(SEARCH_TIMEOUT), Ok(Position::START));
            });
        });
        assert_eq!(reader.search(&request(None)).unwrap().position, Position::new(1));
    }

    #[test]
    fn a_search_for_a_newer_position_waits_for_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) = writer_and_remote_reader(folder.path());
        commit(&mut writer, 0);
        let searched = &reader;
        thread::scope(|threads| {
            let (sender, answers) = mpsc::channel();
            reader.index().unwrap().while_loading(|| {
                threads.spawn(move || {
                    sender.send(searched.search(&request(Some(1))).unwrap().position).unwrap();
                });
                let early = answers.recv_timeout(Duration::from_millis(100));
                assert_eq!(early, Err(RecvTimeoutError::Timeout));
            });
            assert_eq!(answers.recv_timeout(SEARCH_TIMEOUT), Ok(Position::new(1)));
        });
    }

    #[test]
    fn a_search_for_a_position_that_is_not_reached_finds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) = writer_and_remote_reader(folder.path());
        let app = AppToken::parse(&"k".repeat(AppToken::LENGTH)).unwrap();
        let mut changes = IndexChanges::empty(LOG, Position::START, Position::new(1));
        let key = MessageKey { app, chat: ChatNumber::FIRST, message: MessageNumber::try_from(1).unwrap() };
        changes.add.push(Document {
            key,
            created_position: Position::new(1),
            body: "a word".to_owned(),
            sender: None,
            data: None,
            version: Version::new(1),
            created_at: Timestamp::from_millis(1),
            updated_at: Timestamp::from_millis(1),
        });
        writer.commit(changes).unwrap();
        assert_eq!(reader.search(&request(Some(1))).unwrap().total.count(), 1);
        assert_eq!(reader.search(&request(Some(2))).unwrap(), SearchPage::empty(Position::new(1)));
    }

    /// Extends a tail of [`LOG`] up to a position, without changes.
    fn extend(tail: &mut TailWriter, to: u64) {
        let changes = IndexChanges::empty(LOG, tail.position(), Position::new(to));
        tail.append(changes, &HashMap::new());
    }

    fn answered_position(reader: &SearchIndexReader) -> u64 {
        reader.search(&request(None)).unwrap().position.get()
    }

    #[test]
    fn a_new_tail_replaces_the_one_before_once_it_reaches_as_far() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, reader) = writer_and_remote_reader(folder.path());
        extend(&mut reader.begin_tail(LOG, Position::START), 5);
        let mut tail = reader.begin_tail(LOG, Position::START);
        assert_eq!(answered_position(&reader), 5);
        extend(&mut tail, 3);
        assert_eq!(answered_position(&reader), 5);
        extend(&mut tail, 6);
        assert_eq!(answered_position(&reader), 6);
    }

    #[test]
    fn a_tail_is_not_searched_if_it_begins_after_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, reader) = writer_and_remote_reader(folder.path());
        extend(&mut reader.begin_tail(LOG, Position::START), 6);
        extend(&mut reader.begin_tail(LOG, Position::new(6)), 7);
        assert_eq!(answered_position(&reader), 0);
    }

    #[test]
    fn a_tail_of_another_log_is_replaced_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, reader) = writer_and_remote_reader(folder.path());
        extend(&mut reader.begin_tail(LOG, Position::START), 6);
        reader.begin_tail(LogId(Uuid::from_u128(2)), Position::START);
        assert_eq!(answered_position(&reader), 0);
        extend(&mut reader.begin_tail(LOG, Position::START), 4);
        assert_eq!(answered_position(&reader), 4);
    }

    #[test]
    fn a_discarded_tail_is_not_searched() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, reader) = writer_and_remote_reader(folder.path());
        extend(&mut reader.begin_tail(LOG, Position::START), 4);
        reader.discard_tail();
        assert_eq!(answered_position(&reader), 0);
    }

    /// Opens an index once the writer that was dropped has released the lock.
    fn when_free<T>(open: impl Fn() -> Result<T, SearchError>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match open() {
                Err(SearchError::InUse(_)) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(1));
                }
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn shares_the_open_index_with_a_writer_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("index");
        let reader = SearchIndexReader::new(dir.clone());
        assert!(matches!(reader.position(), Err(SearchError::NotCreated)));
        let (writer, _) = TantivyIndexWriter::open(&dir).unwrap();
        assert!(reader.index().unwrap().is_same_as(&writer.reader()));

        drop(writer);
        let (mut writer, _) = when_free(|| TantivyIndexWriter::open(&dir));
        assert!(reader.index().unwrap().is_same_as(&writer.reader()), "the writer opened the index again");
        commit(&mut writer, 0);
        assert_eq!(reader.position().unwrap(), Position::new(1));

        drop(writer);
        let writer = when_free(|| TantivyIndexWriter::recreate(&dir));
        assert!(reader.index().unwrap().is_same_as(&writer.reader()));
        assert_eq!(reader.position().unwrap(), Position::START);
    }

    #[test]
    fn counts_words_as_the_index_tokenizes_them() {
        let reader = SearchIndexReader::new(PathBuf::new());
        let listed = |last: u32| (1..=last).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(reader.check_query(&listed(32)), Ok(()));
        assert_eq!(reader.check_query(&listed(40)), Err(QueryTooLong));
    }

    #[test]
    fn limits_queries_in_scripts_without_spaces() {
        let reader = SearchIndexReader::new(PathBuf::new());
        for character in ["ก", "漢"] {
            assert_eq!(reader.check_query(&character.repeat(20)), Ok(()), "{character}");
            let long = character.repeat(300);
            assert!(long.len() < MAX_QUERY_BYTES);
            assert_eq!(reader.check_query(&long), Ok(()), "{character}: a run without spaces is one word");
            assert_eq!(reader.check_query(&character.repeat(342)), Err(QueryTooLong), "{character}");
        }
    }
}
