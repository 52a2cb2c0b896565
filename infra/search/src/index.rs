//! Reading the index: searches, and what the writer and operators ask of it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chat_domain::Position;
use tantivy::index::SegmentId;
use tantivy::query::{Query, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocAddress, Index, IndexReader, ReloadPolicy, Searcher, SegmentReader, TantivyDocument};

use super::checkpoint::from_payload;
use super::clauses::clauses;
use super::folder::{self, damaged, sort, unavailable};
use super::plan::{Plan, plan};
use super::schema::{Fields, Letters, Stored, schema};
use super::snippet::snippet;
use super::top::{self, Columns, Page, Top};
use chat_ports::checkpoint::Checkpoint;
use chat_ports::contents::{Contents, Key, Kind};
use chat_ports::dead_letter::{DeadLetter, LetterCounts, LetterList, LetterPage, ListedLetter, WhichLetters};
use chat_ports::digest::ContentDigest;
use chat_ports::event_store::LogId;
use chat_ports::search_index::{
    Document, Hit, MessageKey, SearchCursor, SearchError, SearchPage, SearchRequest,
};

/// Blocks of stored documents that are kept unpacked in each segment.
const CACHED_BLOCKS: usize = 4;

/// Answers searches. Clones are the same index, and cheap.
///
/// Its methods read files and block; async callers run them on a thread where that is allowed. Searches go on while
/// another commit is being loaded.
#[derive(Clone, Debug)]
pub struct SearchIndex(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    fields: Fields,
    current: RwLock<Arc<Snapshot>>,
    loader: Mutex<Loader>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchIndex").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What loads commits, one at a time.
struct Loader {
    index: Index,
    reader: IndexReader,
    /// The list of segments that was loaded last, as it was stored.
    meta: Vec<u8>,
}

/// One commit.
struct Snapshot {
    searcher: Searcher,
    /// The columns of each segment, in the searcher's order.
    columns: Vec<Columns>,
    checkpoint: Checkpoint,
}

impl SearchIndex {
    /// Opens the index in a folder.
    ///
    /// # Errors
    /// [`SearchError::NotCreated`] where there is none yet, [`SearchError::Damaged`] where it can't be understood or
    /// was written by another version.
    pub fn open(dir: &Path) -> Result<Self, SearchError> {
        Self::of(dir, folder::open(dir)?)
    }

    pub(super) fn of(dir: &Path, index: Index) -> Result<Self, SearchError> {
        let meta = fs::read(dir.join(folder::META)).map_err(unavailable)?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(CACHED_BLOCKS)
            .try_into()
            .map_err(sort)?;
        let loader = Loader { index, reader, meta };
        let current = RwLock::new(Arc::new(loader.snapshot(None)?));
        let shared = Shared { dir: dir.to_owned(), fields: schema().1, current, loader: Mutex::new(loader) };
        Ok(Self(Arc::new(shared)))
    }

    /// The position up to which the log is folded in.
    pub fn position(&self) -> Position {
        self.checkpoint().position
    }

    /// The log that is folded in, once something of it is.
    pub fn log_id(&self) -> Option<LogId> {
        self.checkpoint().log
    }

    /// The log and the position of one snapshot.
    pub fn checkpoint(&self) -> Checkpoint {
        self.snapshot().checkpoint
    }

    /// Looks whether another process has committed, or put another index in the place of this one, and loads that;
    /// cheap where not (it reads one small file). Returns whether there was something new. While the folder is away
    /// or on an error, searches go on as before.
    pub fn refresh(&self) -> Result<bool, SearchError> {
        let mut loader = self.0.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = match fs::read(self.0.dir.join(folder::META)) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unavailable(error)),
        };
        if meta == loader.meta {
            return Ok(false);
        }
        self.load(&loader)?;
        // What was read before loading: if there was a commit in between, the next call loads once more.
        loader.meta = meta;
        Ok(true)
    }

    /// Loads what was committed in this process.
    pub(super) fn reload(&self) -> Result<(), SearchError> {
        self.load(&self.0.loader.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn load(&self, loader: &Loader) -> Result<(), SearchError> {
        loader.reader.reload().map_err(sort)?;
        let snapshot = Arc::new(loader.snapshot(Some(&self.snapshot()))?);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        Ok(())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds messages. A query without a word finds nothing.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
        let snapshot = self.snapshot();
        let clauses = clauses(&request.query);
        let top = match plan(&self.0.fields, request, &clauses) {
            Some(plan) => snapshot.carry_out(&plan, Page::of(request))?,
            None => Top::default(),
        };
        let mut hits = Vec::with_capacity(top.matches.len());
        for found in &top.matches {
            let Stored::Message(document) = snapshot.read(&self.0.fields, found.address)? else { continue };
            let snippet = snippet(&document.body, &clauses, request.fuzzy);
            hits.push(Hit { document, snippet, score: found.score });
        }
        let last = top.matches.last().filter(|_| top.more);
        Ok(SearchPage {
            position: snapshot.checkpoint.position,
            hits,
            total: top.total,
            next: last.map(|last| SearchCursor { score: last.score, position: last.position }),
        })
    }

    /// The messages of these keys that the index holds.
    pub fn documents(&self, keys: &[MessageKey]) -> Result<HashMap<MessageKey, Document>, SearchError> {
        let snapshot = self.snapshot();
        let mut documents = HashMap::with_capacity(keys.len());
        for key in keys {
            let query = TermQuery::new(self.0.fields.key_term(key), IndexRecordOption::Basic);
            let found = snapshot.page(&query, Page::oldest(1))?;
            for found in found.matches {
                if let Stored::Message(document) = snapshot.read(&self.0.fields, found.address)? {
                    documents.insert(*key, document);
                }
            }
        }
        Ok(documents)
    }

    /// Events that are parked, the first `limit` of them by position, and how many there are in all.
    pub fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        self.found(&self.snapshot(), Letters::Parked, None, Page::oldest(limit))
    }

    /// A page of events that are parked or were discarded, and how many of each there are.
    pub fn letters(&self, list: &LetterList) -> Result<LetterPage, SearchError> {
        let snapshot = self.snapshot();
        let which = match list.which {
            WhichLetters::Standing => Letters::Standing,
            WhichLetters::All => Letters::All,
        };
        let page = Page::oldest_after(list.after, list.limit);
        let (found, _) = self.found(&snapshot, which, list.stream.as_deref(), page)?;
        let mut letters = Vec::with_capacity(found.len());
        for letter in found {
            // Nobody waits behind what was given up, nor behind one that waits itself.
            let waiting = if letter.stands() && letter.discarded.is_none() {
                let all = Page::oldest(0);
                self.found(&snapshot, Letters::Parked, Some(&letter.stream), all)?.1.saturating_sub(1)
            } else {
                0
            };
            letters.push(ListedLetter { letter, waiting });
        }
        let counts = self.counts(&snapshot)?;
        Ok(LetterPage { position: snapshot.checkpoint.position, counts, letters })
    }

    /// How many events are parked, and how many were discarded.
    pub fn letter_counts(&self) -> Result<LetterCounts, SearchError> {
        self.counts(&self.snapshot())
    }

    /// The letter of the event at this position.
    pub fn letter(&self, position: Position) -> Result<Option<DeadLetter>, SearchError> {
        let snapshot = self.snapshot();
        let query = TermQuery::new(self.0.fields.letter_term(position), IndexRecordOption::Basic);
        let found = snapshot.page(&query, Page::oldest(1))?;
        let Some(found) = found.matches.first() else { return Ok(None) };
        match snapshot.read(&self.0.fields, found.address)? {
            Stored::Letter(letter) => Ok(Some(letter)),
            Stored::Message(_) => Ok(None),
        }
    }

    /// The first `limit` parked letters of a stream, by position.
    pub fn parked_of(&self, stream: &str, limit: usize) -> Result<Vec<DeadLetter>, SearchError> {
        let snapshot = self.snapshot();
        Ok(self.found(&snapshot, Letters::Parked, Some(stream), Page::oldest(limit))?.0)
    }

    fn found(
        &self,
        snapshot: &Snapshot,
        letters: Letters,
        stream: Option<&str>,
        page: Page,
    ) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        let query = TermQuery::new(self.0.fields.letters_term(letters, stream), IndexRecordOption::Basic);
        let found = snapshot.page(&query, page)?;
        let mut letters = Vec::with_capacity(found.matches.len());
        for found in found.matches {
            if let Stored::Letter(letter) = snapshot.read(&self.0.fields, found.address)? {
                letters.push(letter);
            }
        }
        Ok((letters, found.total))
    }

    fn counts(&self, snapshot: &Snapshot) -> Result<LetterCounts, SearchError> {
        let count = |letters| Ok(self.found(snapshot, letters, None, Page::oldest(0))?.1);
        Ok(LetterCounts { parked: count(Letters::Parked)?, discarded: count(Letters::Discarded)? })
    }

    /// A digest over the content of one snapshot, and its position: equal for equal content, whatever the segments. It
    /// reads everything.
    pub fn digest(&self) -> Result<(Position, ContentDigest), SearchError> {
        self.contents().map(|(position, contents)| (position, contents.digest))
    }

    /// The same digest, and what each document hashes to.
    pub fn contents(&self) -> Result<(Position, Contents), SearchError> {
        let snapshot = self.snapshot();
        let mut contents = Contents::default();
        for reader in snapshot.searcher.segment_readers() {
            let store = reader.get_store_reader(1).map_err(|error| sort(error.into()))?;
            for stored in store.iter::<TantivyDocument>(reader.alive_bitset()) {
                match self.0.fields.read(&stored.map_err(sort)?).map_err(damaged)? {
                    Stored::Message(message) => add_message(&mut contents, &message),
                    Stored::Letter(letter) => contents.add(
                        Key { kind: Kind::Parked, position: letter.position },
                        &[
                            b"letter",
                            &letter.position.get().to_le_bytes(),
                            letter.stream.as_bytes(),
                            letter.event_type.as_bytes(),
                            &acts_of(&letter),
                        ],
                    ),
                }
            }
        }
        Ok((snapshot.checkpoint.position, contents.in_order()))
    }
}

/// The acts that brought the letter where it is. Not the reason and the time: both belong to the run that parked it.
fn acts_of(letter: &DeadLetter) -> [u8; 16] {
    let discarded = letter.discarded.as_ref();
    let by = discarded.map_or(0, |discarded| discarded.by.get());
    let acknowledged = discarded.and_then(|discarded| discarded.acknowledged).map_or(0, Position::get);
    (u128::from(by) << 64 | u128::from(acknowledged)).to_le_bytes()
}

fn add_message(contents: &mut Contents, message: &Document) {
    let key = Key { kind: Kind::Message, position: message.created_position };
    let fields: [&[u8]; 9] = [
        b"message",
        message.key.app.expose().as_bytes(),
        &message.key.chat.get().to_le_bytes(),
        &message.key.message.get().to_le_bytes(),
        message.body.as_bytes(),
        &message.version.get().to_le_bytes(),
        &message.created_at.millis().to_le_bytes(),
        &message.updated_at.millis().to_le_bytes(),
        &message.created_position.get().to_le_bytes(),
    ];
    contents.add(key, &fields);
}

impl Snapshot {
    /// The page of a plan. What is found without scores gets them where it is on the page.
    fn carry_out(&self, plan: &Plan, page: Page) -> Result<Top, SearchError> {
        let Some(found) = &plan.found else { return self.page(plan.scored.as_ref(), page.scored()) };
        let mut top = self.page(found.as_ref(), page)?;
        top::score(&self.searcher, plan.scored.as_ref(), &mut top.matches).map_err(sort)?;
        Ok(top)
    }

    fn page(&self, query: &dyn Query, page: Page) -> Result<Top, SearchError> {
        top::collect(&self.searcher, &self.columns, query, page).map_err(sort)
    }

    fn columns_by_segment(&self) -> impl Iterator<Item = (SegmentId, &Columns)> {
        let segments = self.searcher.segment_readers().iter().map(SegmentReader::segment_id);
        segments.zip(&self.columns)
    }

    fn read(&self, fields: &Fields, address: DocAddress) -> Result<Stored, SearchError> {
        let stored: TantivyDocument = self.searcher.doc(address).map_err(sort)?;
        fields.read(&stored).map_err(damaged)
    }
}

impl Loader {
    /// The reader's segments with the checkpoint they were committed with. Another process may commit between the two
    /// being read, so they are compared and read again until they belong together.
    ///
    /// Segments that the snapshot before has too share their columns with it.
    fn snapshot(&self, before: Option<&Snapshot>) -> Result<Snapshot, SearchError> {
        loop {
            let searcher = self.reader.searcher();
            let metas = self.index.load_metas().map_err(sort)?;
            let listed: BTreeMap<_, _> =
                metas.segments.iter().map(|segment| (segment.id(), segment.delete_opstamp())).collect();
            if *searcher.generation().segments() == listed {
                let Some(payload) = metas.payload else { return Err(SearchError::NotCreated) };
                let columns = columns(&searcher, before)?;
                return Ok(Snapshot { searcher, columns, checkpoint: from_payload(&payload)? });
            }
            self.reader.reload().map_err(sort)?;
        }
    }
}

/// The columns of each segment, opened for those that were not there before.
fn columns(searcher: &Searcher, before: Option<&Snapshot>) -> Result<Vec<Columns>, SearchError> {
    let opened: HashMap<_, _> = before.into_iter().flat_map(Snapshot::columns_by_segment).collect();
    let of = |reader: &SegmentReader| match opened.get(&reader.segment_id()) {
        Some(columns) => Ok((*columns).clone()),
        None => Columns::open(reader).map_err(sort),
    };
    searcher.segment_readers().iter().map(of).collect()
}
