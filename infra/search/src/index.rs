//! Snapshots of the index: loading commits, collecting pages, and reads by key.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};

use chat_domain::Position;
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::search_index::{Document, MessageKey, SearchError};
use tantivy::index::SegmentId;
use tantivy::query::{Query, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{Index, IndexReader, ReloadPolicy, Searcher, SegmentReader, TantivyDocument};

use crate::checkpoint::from_payload;
use crate::documents::StoredDocument;
use crate::error::{classify_error, damaged, unavailable};
use crate::index_folder;
use crate::schema::{Fields, schema};
use crate::tail::TailScan;
use crate::top_hits::{self, MatchedDocument, PageRequest, SortColumns, TopHits};

/// The number of decompressed blocks of stored documents cached per segment.
const CACHED_BLOCKS: usize = 4;

/// The indexes that [`TantivyIndex::open_shared`] and writers of this process have open, by folder.
static SHARED: Mutex<BTreeMap<PathBuf, Weak<Inner>>> = Mutex::new(BTreeMap::new());

/// An open index: answers from its current snapshot until a newer one is loaded. Clones share the snapshot.
///
/// Methods read files and block; async callers run them on a blocking thread. Only methods that load commits wait for
/// each other; all others use the current snapshot.
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
        f.debug_struct("TantivyIndex").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Loads commits, one at a time.
struct Loader {
    index: Index,
    reader: IndexReader,
    /// The content of `meta.json` at the last load. The file differs if there is a newer commit.
    meta_json: Vec<u8>,
}

/// One commit.
pub(crate) struct Snapshot {
    pub searcher: Searcher,
    /// The columns of each segment, in the searcher's order.
    pub columns: Vec<SortColumns>,
    pub checkpoint: ProjectionCheckpoint,
}

impl TantivyIndex {
    /// Opens the index in a folder.
    ///
    /// # Errors
    /// [`SearchError::NotCreated`] if there is none yet, [`SearchError::Damaged`] if it is damaged or has another
    /// version, [`SearchError::Unavailable`] if a read failed or fields are missing that a writer of this version adds.
    pub fn open(dir: &Path) -> Result<Self, SearchError> {
        Self::from_index(dir, index_folder::open(dir)?)
    }

    /// Returns the shared index of the folder, or opens it. Not necessarily at the newest commit.
    pub(crate) fn open_shared(dir: &Path) -> Result<Self, SearchError> {
        Self::share(dir, || Self::open(dir))
    }

    /// Returns the index for a new writer, at the newest commit: the shared one of the folder, or else a new one.
    pub(crate) fn for_writer(dir: &Path, index: Index) -> Result<Self, SearchError> {
        let shared = Self::share(dir, || Self::from_index(dir, index))?;
        shared.load_committed()?;
        Ok(shared)
    }

    fn share(dir: &Path, open: impl FnOnce() -> Result<Self, SearchError>) -> Result<Self, SearchError> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = shared.get(dir).and_then(Weak::upgrade) {
            return Ok(Self(inner));
        }
        let opened = open()?;
        shared.retain(|_, inner| inner.strong_count() > 0);
        shared.insert(dir.to_owned(), Arc::downgrade(&opened.0));
        Ok(opened)
    }

    fn from_index(dir: &Path, index: Index) -> Result<Self, SearchError> {
        let meta_json = fs::read(dir.join(index_folder::META_FILE)).map_err(unavailable)?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(CACHED_BLOCKS)
            .try_into()
            .map_err(classify_error)?;
        let loader = Loader { index, reader, meta_json };
        let current = RwLock::new(Arc::new(loader.snapshot(None)?));
        let inner = Inner { dir: dir.to_owned(), fields: schema().1, current, loader: Mutex::new(loader) };
        Ok(Self(Arc::new(inner)))
    }

    /// The position of the current snapshot.
    pub fn position(&self) -> Position {
        self.checkpoint().position
    }

    /// The log that the index is a projection of, once the first batch is committed.
    pub fn log_id(&self) -> Option<LogId> {
        self.checkpoint().log
    }

    /// The checkpoint of the current snapshot.
    pub fn checkpoint(&self) -> ProjectionCheckpoint {
        self.snapshot().checkpoint
    }

    /// Loads the newest commit if there was a commit or a merge since the last load, also after the folder was replaced
    /// by another index. Returns whether it loaded one. Waits while another thread loads.
    ///
    /// Cheap if there was no commit and no merge: reads one small file. After an error, or while the folder is missing,
    /// the current snapshot stays in use.
    pub fn refresh(&self) -> Result<bool, SearchError> {
        self.refresh_with(self.lock_loader())
    }

    /// Like [`Self::refresh`], but returns `false` at once if another thread loads.
    pub(crate) fn try_refresh(&self) -> Result<bool, SearchError> {
        match self.0.loader.try_lock() {
            Ok(loader) => self.refresh_with(loader),
            Err(TryLockError::Poisoned(poisoned)) => self.refresh_with(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Ok(false),
        }
    }

    fn refresh_with(&self, mut loader: MutexGuard<'_, Loader>) -> Result<bool, SearchError> {
        let meta_json = match fs::read(self.0.dir.join(index_folder::META_FILE)) {
            Ok(meta_json) => meta_json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unavailable(error)),
        };
        self.load(&mut loader, meta_json)
    }

    /// Like [`Self::refresh`], for the writer: a missing folder is an error.
    pub(crate) fn load_committed(&self) -> Result<(), SearchError> {
        let mut loader = self.lock_loader();
        let meta_json = fs::read(self.0.dir.join(index_folder::META_FILE)).map_err(unavailable)?;
        self.load(&mut loader, meta_json).map(|_| ())
    }

    /// Loads the newest commit if `meta_json` has changed. `meta_json` was read before this load. So if a commit comes
    /// in between, the next refresh finds another `meta_json` and loads once more.
    fn load(&self, loader: &mut Loader, meta_json: Vec<u8>) -> Result<bool, SearchError> {
        if meta_json == loader.meta_json {
            return Ok(false);
        }
        loader.reader.reload().map_err(classify_error)?;
        let snapshot = Arc::new(loader.snapshot(Some(&self.snapshot()))?);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        loader.meta_json = meta_json;
        Ok(true)
    }

    fn lock_loader(&self) -> MutexGuard<'_, Loader> {
        self.0.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.0.fields
    }

    /// The documents with these keys in the current snapshot.
    pub fn documents(&self, keys: &[MessageKey]) -> Result<HashMap<MessageKey, Document>, SearchError> {
        self.documents_with_position(keys).map(|(_, documents)| documents)
    }

    /// The documents with these keys in the current snapshot, and its position.
    pub fn documents_with_position(
        &self,
        keys: &[MessageKey],
    ) -> Result<(Position, HashMap<MessageKey, Document>), SearchError> {
        let snapshot = self.snapshot();
        let mut documents = HashMap::with_capacity(keys.len());
        for key in keys {
            let query = TermQuery::new(self.fields().key_term(key), IndexRecordOption::Basic);
            for found in snapshot.collect_page(&query, PageRequest::oldest(1), None)?.matches {
                if let StoredDocument::Message(document) =
                    snapshot.read_document(self.fields(), found.document)?
                {
                    documents.insert(*key, document);
                }
            }
        }
        Ok((snapshot.checkpoint.position, documents))
    }
}

impl Snapshot {
    /// Collects a page from the snapshot and the tail that continues it.
    pub fn collect_page<'a>(
        &self,
        query: &dyn Query,
        page: PageRequest,
        tail: Option<&'a TailScan<'_>>,
    ) -> Result<TopHits<'a>, SearchError> {
        top_hits::collect_top_hits(&self.searcher, &self.columns, query, page, tail).map_err(classify_error)
    }

    pub fn read_document(
        &self,
        fields: &Fields,
        document: MatchedDocument<'_>,
    ) -> Result<StoredDocument, SearchError> {
        match document {
            MatchedDocument::Stored(address) => {
                let stored: TantivyDocument = self.searcher.doc(address).map_err(classify_error)?;
                fields.decode(&stored).map_err(damaged)
            }
            MatchedDocument::InTail(message) => Ok(StoredDocument::Message(message.document.clone())),
        }
    }

    fn columns_by_segment(&self) -> impl Iterator<Item = (SegmentId, &SortColumns)> {
        let segments = self.searcher.segment_readers().iter().map(SegmentReader::segment_id);
        segments.zip(&self.columns)
    }
}

impl Loader {
    /// Returns the reader's segments together with the checkpoint of their commit. A writer may commit between
    /// the two reads, so both are read again until they belong to the same commit.
    ///
    /// Segments that are also in the previous snapshot share their columns with it.
    fn snapshot(&self, previous: Option<&Snapshot>) -> Result<Snapshot, SearchError> {
        loop {
            let searcher = self.reader.searcher();
            let metas = self.index.load_metas().map_err(classify_error)?;
            let listed: BTreeMap<_, _> =
                metas.segments.iter().map(|segment| (segment.id(), segment.delete_opstamp())).collect();
            if *searcher.generation().segments() == listed {
                let Some(payload) = metas.payload else { return Err(SearchError::NotCreated) };
                let columns = open_columns(&searcher, previous)?;
                return Ok(Snapshot { searcher, columns, checkpoint: from_payload(&payload)? });
            }
            self.reader.reload().map_err(classify_error)?;
        }
    }
}

/// The columns of each segment, reused from the previous snapshot where possible.
fn open_columns(searcher: &Searcher, previous: Option<&Snapshot>) -> Result<Vec<SortColumns>, SearchError> {
    let opened: HashMap<_, _> = previous.into_iter().flat_map(Snapshot::columns_by_segment).collect();
    let reuse_or_open = |segment: &SegmentReader| match opened.get(&segment.segment_id()) {
        Some(columns) => Ok((*columns).clone()),
        None => SortColumns::open(segment).map_err(classify_error),
    };
    searcher.segment_readers().iter().map(reuse_or_open).collect()
}

#[cfg(test)]
impl TantivyIndex {
    /// Runs `action` with the loader locked, as it is while a commit is being loaded.
    pub(crate) fn while_loading<T>(&self, action: impl FnOnce() -> T) -> T {
        let _loader = self.lock_loader();
        action()
    }

    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
