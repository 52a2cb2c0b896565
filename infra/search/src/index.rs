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
use super::folder::{self, classify_error, damaged, unavailable};
use super::query_parser::parse_query;
use super::query_plan::{QueryPlan, plan_query};
use super::schema::{DeadLetterTag, Fields, StoredDocument, schema};
use super::snippet::build_snippet;
use super::top_hits::{self, PageRequest, SortColumns, TopHits};
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::{
    DeadLetter, DeadLetterCounts, DeadLetterFilter, DeadLetterPage, DeadLetterQuery, ListedDeadLetter,
};
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::projection_contents::{EntityKey, EntityKind, ProjectionContents};
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
pub struct TantivyIndex(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    fields: Fields,
    current: RwLock<Arc<Snapshot>>,
    loader: Mutex<Loader>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchIndex").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What loads commits, one at a time.
struct Loader {
    index: Index,
    reader: IndexReader,
    /// The list of segments that was loaded last, as it was stored.
    meta_json: Vec<u8>,
}

/// One commit.
struct Snapshot {
    searcher: Searcher,
    /// The columns of each segment, in the searcher's order.
    columns: Vec<SortColumns>,
    checkpoint: ProjectionCheckpoint,
}

impl TantivyIndex {
    /// Opens the index in a folder.
    ///
    /// # Errors
    /// [`SearchError::NotCreated`] where there is none yet, [`SearchError::Damaged`] where it can't be understood or
    /// was written by another version.
    pub fn open(dir: &Path) -> Result<Self, SearchError> {
        Self::from_index(dir, folder::open(dir)?)
    }

    pub(super) fn from_index(dir: &Path, index: Index) -> Result<Self, SearchError> {
        let meta = fs::read(dir.join(folder::META_FILE)).map_err(unavailable)?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(CACHED_BLOCKS)
            .try_into()
            .map_err(classify_error)?;
        let loader = Loader { index, reader, meta_json: meta };
        let current = RwLock::new(Arc::new(loader.snapshot(None)?));
        let shared = Inner { dir: dir.to_owned(), fields: schema().1, current, loader: Mutex::new(loader) };
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
    pub fn checkpoint(&self) -> ProjectionCheckpoint {
        self.snapshot().checkpoint
    }

    /// Looks whether another process has committed, or put another index in the place of this one, and loads that;
    /// cheap where not (it reads one small file). Returns whether there was something new. While the folder is away
    /// or on an error, searches go on as before.
    pub fn refresh(&self) -> Result<bool, SearchError> {
        let mut loader = self.0.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = match fs::read(self.0.dir.join(folder::META_FILE)) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unavailable(error)),
        };
        if meta == loader.meta_json {
            return Ok(false);
        }
        self.load(&loader)?;
        // What was read before loading: if there was a commit in between, the next call loads once more.
        loader.meta_json = meta;
        Ok(true)
    }

    /// Loads what was committed in this process.
    pub(super) fn reload(&self) -> Result<(), SearchError> {
        self.load(&self.0.loader.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn load(&self, loader: &Loader) -> Result<(), SearchError> {
        loader.reader.reload().map_err(classify_error)?;
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
        let clauses = parse_query(&request.query);
        let top = match plan_query(&self.0.fields, request, &clauses) {
            Some(plan) => snapshot.run_plan(&plan, PageRequest::from_request(request))?,
            None => TopHits::default(),
        };
        let mut hits = Vec::with_capacity(top.matches.len());
        for found in &top.matches {
            let StoredDocument::Message(document) = snapshot.read_document(&self.0.fields, found.address)?
            else {
                continue;
            };
            let snippet = build_snippet(&document.body, &clauses, request.fuzzy);
            hits.push(Hit { document, snippet, score: found.score });
        }
        let last = top.matches.last().filter(|_| top.has_more);
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
            let found = snapshot.collect_page(&query, PageRequest::oldest(1))?;
            for found in found.matches {
                if let StoredDocument::Message(document) =
                    snapshot.read_document(&self.0.fields, found.address)?
                {
                    documents.insert(*key, document);
                }
            }
        }
        Ok(documents)
    }

    /// Events that are parked, the first `limit` of them by position, and how many there are in all.
    pub fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        self.find_dead_letters(&self.snapshot(), DeadLetterTag::Pending, None, PageRequest::oldest(limit))
    }

    /// A page of events that are parked or were discarded, and how many of each there are.
    pub fn letters(&self, list: &DeadLetterQuery) -> Result<DeadLetterPage, SearchError> {
        let snapshot = self.snapshot();
        let which = match list.filter {
            DeadLetterFilter::NeedsAttention => DeadLetterTag::NeedsAttention,
            DeadLetterFilter::All => DeadLetterTag::All,
        };
        let page = PageRequest::oldest_after(list.after, list.limit);
        let (found, _) = self.find_dead_letters(&snapshot, which, list.stream.as_deref(), page)?;
        let mut letters = Vec::with_capacity(found.len());
        for letter in found {
            // Nobody waits behind what was given up, nor behind one that waits itself.
            let waiting = if letter.needs_attention() && letter.discarded.is_none() {
                let all = PageRequest::oldest(0);
                self.find_dead_letters(&snapshot, DeadLetterTag::Pending, Some(&letter.stream), all)?
                    .1
                    .saturating_sub(1)
            } else {
                0
            };
            letters.push(ListedDeadLetter { letter, waiting_behind: waiting });
        }
        let counts = self.count_dead_letters(&snapshot)?;
        Ok(DeadLetterPage { position: snapshot.checkpoint.position, counts, letters })
    }

    /// How many events are parked, and how many were discarded.
    pub fn dead_letter_counts(&self) -> Result<DeadLetterCounts, SearchError> {
        self.count_dead_letters(&self.snapshot())
    }

    /// The letter of the event at this position.
    pub fn letter(&self, position: Position) -> Result<Option<DeadLetter>, SearchError> {
        let snapshot = self.snapshot();
        let query = TermQuery::new(self.0.fields.dead_letter_key_term(position), IndexRecordOption::Basic);
        let found = snapshot.collect_page(&query, PageRequest::oldest(1))?;
        let Some(found) = found.matches.first() else { return Ok(None) };
        match snapshot.read_document(&self.0.fields, found.address)? {
            StoredDocument::DeadLetter(letter) => Ok(Some(letter)),
            StoredDocument::Message(_) => Ok(None),
        }
    }

    /// The first `limit` parked letters of a stream, by position.
    pub fn dead_letters_of_stream(&self, stream: &str, limit: usize) -> Result<Vec<DeadLetter>, SearchError> {
        let snapshot = self.snapshot();
        Ok(self
            .find_dead_letters(&snapshot, DeadLetterTag::Pending, Some(stream), PageRequest::oldest(limit))?
            .0)
    }

    fn find_dead_letters(
        &self,
        snapshot: &Snapshot,
        letters: DeadLetterTag,
        stream: Option<&str>,
        page: PageRequest,
    ) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        let query =
            TermQuery::new(self.0.fields.dead_letter_tag_term(letters, stream), IndexRecordOption::Basic);
        let found = snapshot.collect_page(&query, page)?;
        let mut letters = Vec::with_capacity(found.matches.len());
        for found in found.matches {
            if let StoredDocument::DeadLetter(letter) =
                snapshot.read_document(&self.0.fields, found.address)?
            {
                letters.push(letter);
            }
        }
        Ok((letters, found.total))
    }

    fn count_dead_letters(&self, snapshot: &Snapshot) -> Result<DeadLetterCounts, SearchError> {
        let count = |letters| Ok(self.find_dead_letters(snapshot, letters, None, PageRequest::oldest(0))?.1);
        Ok(DeadLetterCounts {
            pending: count(DeadLetterTag::Pending)?,
            unacknowledged_discards: count(DeadLetterTag::Discarded)?,
        })
    }

    /// A digest over the content of one snapshot, and its position: equal for equal content, whatever the segments. It
    /// reads everything.
    pub fn digest(&self) -> Result<(Position, ContentDigest), SearchError> {
        self.contents().map(|(position, contents)| (position, contents.digest))
    }

    /// The same digest, and what each document hashes to.
    pub fn contents(&self) -> Result<(Position, ProjectionContents), SearchError> {
        let snapshot = self.snapshot();
        let mut contents = ProjectionContents::default();
        for reader in snapshot.searcher.segment_readers() {
            let store = reader.get_store_reader(1).map_err(|error| classify_error(error.into()))?;
            for stored in store.iter::<TantivyDocument>(reader.alive_bitset()) {
                match self.0.fields.read(&stored.map_err(classify_error)?).map_err(damaged)? {
                    StoredDocument::Message(message) => add_message(&mut contents, &message),
                    StoredDocument::DeadLetter(letter) => contents.add(
                        EntityKey { kind: EntityKind::Parked, position: letter.position },
                        &[
                            b"letter",
                            &letter.position.get().to_le_bytes(),
                            letter.stream.as_bytes(),
                            letter.event_type.as_bytes(),
                            &operator_action_positions(&letter),
                        ],
                    ),
                }
            }
        }
        Ok((snapshot.checkpoint.position, contents.sorted()))
    }
}

/// The acts that brought the letter where it is. Not the reason and the time: both belong to the run that parked it.
fn operator_action_positions(letter: &DeadLetter) -> [u8; 16] {
    let discarded = letter.discarded.as_ref();
    let by = discarded.map_or(0, |discarded| discarded.by.get());
    let acknowledged = discarded.and_then(|discarded| discarded.acknowledged).map_or(0, Position::get);
    (u128::from(by) << 64 | u128::from(acknowledged)).to_le_bytes()
}

fn add_message(contents: &mut ProjectionContents, message: &Document) {
    let key = EntityKey { kind: EntityKind::Message, position: message.created_position };
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
    fn run_plan(&self, plan: &QueryPlan, page: PageRequest) -> Result<TopHits, SearchError> {
        let Some(found) = &plan.matching_query else {
            return self.collect_page(plan.scoring_query.as_ref(), page.with_scores());
        };
        let mut top = self.collect_page(found.as_ref(), page)?;
        top_hits::score_matches(&self.searcher, plan.scoring_query.as_ref(), &mut top.matches)
            .map_err(classify_error)?;
        Ok(top)
    }

    fn collect_page(&self, query: &dyn Query, page: PageRequest) -> Result<TopHits, SearchError> {
        top_hits::collect_top_hits(&self.searcher, &self.columns, query, page).map_err(classify_error)
    }

    fn columns_by_segment(&self) -> impl Iterator<Item = (SegmentId, &SortColumns)> {
        let segments = self.searcher.segment_readers().iter().map(SegmentReader::segment_id);
        segments.zip(&self.columns)
    }

    fn read_document(&self, fields: &Fields, address: DocAddress) -> Result<StoredDocument, SearchError> {
        let stored: TantivyDocument = self.searcher.doc(address).map_err(classify_error)?;
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
            let metas = self.index.load_metas().map_err(classify_error)?;
            let listed: BTreeMap<_, _> =
                metas.segments.iter().map(|segment| (segment.id(), segment.delete_opstamp())).collect();
            if *searcher.generation().segments() == listed {
                let Some(payload) = metas.payload else { return Err(SearchError::NotCreated) };
                let columns = open_columns(&searcher, before)?;
                return Ok(Snapshot { searcher, columns, checkpoint: from_payload(&payload)? });
            }
            self.reader.reload().map_err(classify_error)?;
        }
    }
}

/// The columns of each segment, opened for those that were not there before.
fn open_columns(searcher: &Searcher, before: Option<&Snapshot>) -> Result<Vec<SortColumns>, SearchError> {
    let opened: HashMap<_, _> = before.into_iter().flat_map(Snapshot::columns_by_segment).collect();
    let of = |reader: &SegmentReader| match opened.get(&reader.segment_id()) {
        Some(columns) => Ok((*columns).clone()),
        None => SortColumns::open(reader).map_err(classify_error),
    };
    searcher.segment_readers().iter().map(of).collect()
}
