//! Writing the index: one commit per batch of changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use chat_domain::Position;
use chat_files::file_id::FileId;
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::search_index::{Document, IndexChanges, MessageKey, SearchError};
use tantivy::indexer::{IndexWriterOptions, MergePolicy, NoMergePolicy, UserOperation};
use tantivy::schema::document::CompactDocValue;
use tantivy::{Document as DocumentTrait, Index, IndexWriter, TantivyDocument};

use crate::checkpoint::to_payload;
use crate::error::{classify_error, damaged, unavailable};
use crate::index::TantivyIndex;
use crate::index_folder;
use crate::merge_policy::SizeTieredMergePolicy;
use crate::schema::{Fields, schema};

/// The number of indexing threads. Each thread writes a segment of its own. A small commit goes to one thread, so that
/// it becomes one segment: see [`SINGLE_SEGMENT_BYTES`].
const INDEXING_THREADS: usize = 2;

/// The memory of an indexing thread for terms that are not on disk yet, in bytes. A commit that needs more is written
/// as several segments. The limit is high for the large commits of a rebuild: larger segments are cheaper per message.
/// The memory is released after each commit.
const MEMORY_PER_THREAD: usize = 64_000_000;

/// The number of messages that one call of tantivy's `run` adds in a large commit. tantivy checks its memory budget
/// after each call.
const DOCUMENTS_PER_RUN: usize = 256;

/// How long closing a writer waits for its merges. Most merges end within milliseconds, so the folder's lock is usually
/// free once the writer is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// The largest total size of message bodies, in bytes, with which a commit is passed to tantivy in one call and so
/// becomes one segment.
const SINGLE_SEGMENT_BYTES: usize = 512 << 10;

/// The writer of an index. Holds the folder's writer lock, except between a failed commit and the recovery from it. If
/// merges run when the writer is dropped, the lock is held until they have ended.
///
/// Methods write files and block; async callers run them on a blocking thread.
pub struct TantivyIndexWriter {
    dir: PathBuf,
    folder_id: Option<FileId>,
    fields: Fields,
    reader: TantivyIndex,
    /// `None` after a failed commit, whose outcome is unknown, until [`Self::recover`] opens tantivy's writer again.
    writer: Option<TantivyWriter>,
    /// Whether [`Self::begin_live`] was called.
    is_live: bool,
}

type TantivyWriter = IndexWriter<BoxedDocument>;

/// A document in the queue of the indexing threads. Boxed, because tantivy allocates a queue for each commit, with
/// 10,000 slots of four documents each: 0.9 MB if they are boxed, 2.5 MB if not.
struct BoxedDocument(Box<TantivyDocument>);

impl DocumentTrait for BoxedDocument {
    type Value<'a> = CompactDocValue<'a>;
    type FieldsValuesIter<'a> = <TantivyDocument as DocumentTrait>::FieldsValuesIter<'a>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        self.0.iter_fields_and_values()
    }

    fn into_tantivy_document(self) -> TantivyDocument {
        *self.0
    }
}

impl BoxedDocument {
    fn add_operation(document: TantivyDocument) -> UserOperation<Self> {
        UserOperation::Add(Self(Box::new(document)))
    }
}

impl TantivyIndexWriter {
    /// Opens the index in a folder for writing, and creates folder and index if missing. Reads all files of the
    /// segments to verify their checksums (about a second per gigabyte in the page cache). Adds fields that an index of
    /// an earlier version lacks.
    ///
    /// # Errors
    /// [`SearchError::InUse`] while another writer has the index open, [`SearchError::Damaged`] if it is damaged or
    /// has another version: [`Self::recreate`] replaces it.
    pub fn open(dir: &Path) -> Result<(Self, StorageOrigin), SearchError> {
        index_folder::add_missing_fields(dir)?;
        let (index, mut origin) = match index_folder::open(dir) {
            Ok(index) => (index, StorageOrigin::Existing),
            Err(SearchError::NotCreated) => {
                (index_folder::create_unless_exists(dir)?, StorageOrigin::Created)
            }
            Err(error) => return Err(error),
        };
        let mut writer = open_tantivy_writer(&index, SizeTieredMergePolicy::catching_up())?;
        if index.load_metas().map_err(classify_error)?.payload.is_none() {
            // New, or the process crashed before this first commit.
            commit(&mut writer, ProjectionCheckpoint::default())?;
            origin = StorageOrigin::Created;
        }
        index_folder::verify(dir, &index)?;
        let reader = TantivyIndex::for_writer(dir, index)?;
        let folder_id = FileId::for_path(dir).map_err(unavailable)?;
        Ok((
            Self {
                dir: dir.to_owned(),
                folder_id,
                fields: schema().1,
                reader,
                writer: Some(writer),
                is_live: false,
            },
            origin,
        ))
    }

    /// Quarantines the folder as `<dir>.damaged-<unix milliseconds>`, removes the folder that was quarantined as
    /// damaged before, and creates a new index. A reader with a [`TantivyIndex`] of its own, such as one in another
    /// process, keeps the old snapshot until it refreshes.
    ///
    /// # Errors
    /// [`SearchError::InUse`] while another writer has the index open.
    pub fn recreate(dir: &Path) -> Result<Self, SearchError> {
        if dir.try_exists().map_err(unavailable)? {
            // The lock is held during the move: otherwise a writer that still uses this path would write into the new
            // index.
            let lock = index_folder::acquire_writer_lock(dir)?;
            index_folder::quarantine(dir)?;
            drop(lock);
        }
        Self::open(dir).map(|(writer, _)| writer)
    }

    /// As [`Self::recreate`], where the stored index does not follow from the log: the folder is quarantined as
    /// `<dir>.other-log-<unix milliseconds>` and never removed.
    ///
    /// # Errors
    /// [`SearchError::InUse`] while another writer has the index open.
    pub fn recreate_for_other_log(dir: &Path) -> Result<Self, SearchError> {
        if dir.try_exists().map_err(unavailable)? {
            let lock = index_folder::acquire_writer_lock(dir)?;
            index_folder::quarantine_other_log(dir)?;
            drop(lock);
        }
        Self::open(dir).map(|(writer, _)| writer)
    }

    /// Whether the folder is still at its path, with a list of segments. If not, it was removed or replaced, and
    /// readers find no new commits.
    pub fn is_in_place(&self) -> bool {
        FileId::for_path(&self.dir).is_ok_and(|found| found.is_some() && found == self.folder_id)
            && self.dir.join(index_folder::META_FILE).exists()
    }

    /// Removes the index's folder, the heartbeats beside it, and the folder that was quarantined as damaged, where they
    /// exist.
    ///
    /// # Errors
    /// [`SearchError::InUse`] while a writer has the index open.
    pub fn remove(dir: &Path) -> Result<(), SearchError> {
        if dir.try_exists().map_err(unavailable)? {
            let lock = index_folder::acquire_writer_lock(dir)?;
            index_folder::remove(dir)?;
            drop(lock);
        }
        index_folder::remove_traces(dir)
    }

    /// A reader in this process. It sees each commit as soon as [`Self::commit`] returns.
    pub fn reader(&self) -> TantivyIndex {
        self.reader.clone()
    }

    /// The projection checkpoint.
    pub fn checkpoint(&self) -> ProjectionCheckpoint {
        self.reader.checkpoint()
    }

    /// The documents with these keys.
    pub fn documents(&self, keys: &[MessageKey]) -> Result<HashMap<MessageKey, Document>, SearchError> {
        self.reader.documents(keys)
    }

    /// The streams that have a pending dead letter.
    pub fn blocked_streams(&self) -> Result<Vec<String>, SearchError> {
        Ok(self.reader.blocked_streams()?.1.into_iter().collect())
    }

    /// The first `limit` pending dead letters by position, and the number of all pending ones.
    pub fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        self.reader.dead_letters(limit)
    }

    /// The digest of the content, and the position. Reads every document.
    pub fn digest(&self) -> Result<(Position, ContentDigest), SearchError> {
        self.reader.digest()
    }

    /// Stores changes and moves the checkpoint, durably and atomically.
    ///
    /// # Errors
    /// [`SearchError::CheckpointMoved`] if the changes don't start at the checkpoint or are of another log; nothing is
    /// stored then. After [`SearchError::Unavailable`] the changes may or may not be stored: [`Self::checkpoint`] says
    /// which after [`Self::recover`] or after a repeated commit, which recovers first.
    pub fn commit(&mut self, changes: IndexChanges) -> Result<(), SearchError> {
        self.recover()?;
        let current = self.checkpoint();
        if changes.from != current.position || current.log.is_some_and(|log| log != changes.log) {
            return Err(SearchError::CheckpointMoved);
        }
        let Some(writer) = self.writer.take() else { return Err(SearchError::CheckpointMoved) };
        let next = ProjectionCheckpoint { log: Some(changes.log), position: changes.to };
        let applied = self.apply_changes(&writer, changes);
        self.finish_commit(writer, next, applied)
    }

    /// Replaces the log id of the checkpoint: the log continues as a new incarnation. Durable and atomic.
    pub fn adopt_log(&mut self, log: LogId) -> Result<(), SearchError> {
        self.recover()?;
        let next = ProjectionCheckpoint { log: Some(log), ..self.checkpoint() };
        let Some(writer) = self.writer.take() else { return Err(SearchError::CheckpointMoved) };
        self.finish_commit(writer, next, Ok(()))
    }

    /// Commits the changes if `applied` says that all were applied. Keeps the writer, or closes it if something failed.
    fn finish_commit(
        &mut self,
        mut writer: TantivyWriter,
        next: ProjectionCheckpoint,
        applied: Result<(), SearchError>,
    ) -> Result<(), SearchError> {
        let committed =
            applied.and_then(|()| commit(&mut writer, next)).and_then(|()| self.reader.load_committed());
        match committed {
            Ok(()) => self.writer = Some(writer),
            Err(_) => close(writer),
        }
        committed
    }

    /// Merges segments for fast searches from now on, and starts the merges that were deferred. A new writer expects
    /// that it has to catch up with the log, and defers merges.
    ///
    /// # Errors
    /// [`SearchError::Unavailable`] if the list of segments can't be read.
    pub fn begin_live(&mut self) -> Result<(), SearchError> {
        self.is_live = true;
        // After a failed commit, [`Self::recover`] opens a writer with the policy of a live index.
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let policy = SizeTieredMergePolicy::live();
        let segments = writer.index().searchable_segment_metas().map_err(classify_error)?;
        for merge in policy.compute_merge_candidates(&segments) {
            // The merge runs in the background. If it fails, or if another merge of these segments ends first, the
            // segments stay as they are.
            drop(writer.merge(&merge.0));
        }
        writer.set_merge_policy(Box::new(policy));
        Ok(())
    }

    /// Recovers if the last commit failed: discards that commit's changes in memory, and loads the newest commit on
    /// disk.
    pub fn recover(&mut self) -> Result<(), SearchError> {
        if self.writer.is_none() {
            let index = index_folder::open(&self.dir)?;
            let policy = if self.is_live {
                SizeTieredMergePolicy::live()
            } else {
                SizeTieredMergePolicy::catching_up()
            };
            self.writer = Some(open_tantivy_writer(&index, policy)?);
            self.reader.load_committed()?;
        }
        Ok(())
    }

    fn apply_changes(&self, writer: &TantivyWriter, changes: IndexChanges) -> Result<(), SearchError> {
        let IndexChanges {
            add,
            upsert,
            delete,
            new_dead_letters,
            resolved_dead_letters,
            changed_dead_letters,
            ..
        } = changes;
        // A replaced document is deleted and added again.
        let keys_to_delete = upsert.iter().map(|message| &message.key).chain(&delete);
        let mut operations: Vec<_> =
            keys_to_delete.map(|key| UserOperation::Delete(self.fields.key_term(key))).collect();
        let changed_positions = changed_dead_letters.iter().map(|dead_letter| &dead_letter.position);
        operations.extend(
            resolved_dead_letters
                .iter()
                .chain(changed_positions)
                .map(|position| UserOperation::Delete(self.fields.dead_letter_key_term(*position))),
        );
        for dead_letter in new_dead_letters.into_iter().chain(changed_dead_letters) {
            let document = self.fields.dead_letter_document(dead_letter).map_err(damaged)?;
            operations.push(BoxedDocument::add_operation(document));
        }
        let messages: Vec<_> = add.iter().chain(&upsert).collect();
        let body_bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        let add_message =
            |message: &&Document| BoxedDocument::add_operation(self.fields.message_document(message));
        if body_bytes <= SINGLE_SEGMENT_BYTES {
            operations.extend(messages.iter().map(add_message));
            writer.run(operations).map_err(classify_error)?;
            return Ok(());
        }
        writer.run(operations).map_err(classify_error)?;
        for chunk in messages.chunks(DOCUMENTS_PER_RUN) {
            writer.run(chunk.iter().map(add_message)).map_err(classify_error)?;
        }
        Ok(())
    }
}

impl Drop for TantivyIndexWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            close(writer);
        }
    }
}

/// Opens tantivy's writer with few threads: a projection is one sequence of commits, and the machine has other work.
fn open_tantivy_writer(
    index: &Index,
    merge_policy: SizeTieredMergePolicy,
) -> Result<TantivyWriter, SearchError> {
    let options = IndexWriterOptions::builder()
        .num_worker_threads(INDEXING_THREADS)
        .num_merge_threads(1)
        .memory_budget_per_thread(MEMORY_PER_THREAD)
        .build();
    let writer: TantivyWriter = index.writer_with_options(options).map_err(classify_error)?;
    writer.set_merge_policy(Box::new(merge_policy));
    clean_up_after_previous_writer(&writer)?;
    Ok(writer)
}

/// Makes a new writer safe to use after any previous one, whether it was killed or closed.
///
/// A new writer gives its first operation the number (opstamp) of the last commit. Two things would go wrong:
///
/// - tantivy would treat a deletion with that number as part of the last commit. A merge that was interrupted may start
///   again when the first documents are added. The merge would skip the new deletion in segments that already have the
///   deletions of the last commit, and yet mark the merged segment as having it: deleted documents would come back. So
///   a run without operations uses up the number first.
/// - A commit that was interrupted and is repeated has the same number as before. If the first attempt left deletion
///   files, the repeated commit can't create them, and would fail on every retry. So files that no commit lists are
///   removed.
fn clean_up_after_previous_writer(writer: &TantivyWriter) -> Result<(), SearchError> {
    let no_operations: [UserOperation<BoxedDocument>; 0] = [];
    writer.run(no_operations).map_err(classify_error)?;
    writer.garbage_collect_files().wait().map_err(classify_error)?;
    Ok(())
}

/// Closes tantivy's writer once its merges have ended, which releases the folder's lock. Waits for at most
/// [`CLOSE_WAIT`]; a longer merge goes on, and keeps the lock until it has ended. Waits for as long as the merges take if
/// no thread can be started.
///
/// A writer that is dropped while a merge ends damages the index: tantivy then does not store the new list of segments,
/// and yet removes the files of the merged segments, which the stored list still names.
fn close(writer: TantivyWriter) {
    writer.set_merge_policy(Box::new(NoMergePolicy));
    let (hand_over, handed_over) = mpsc::channel();
    let (sender, closed) = mpsc::channel();
    let wait_for_merges = |writer: TantivyWriter| {
        // A merge that fails leaves the index as it was committed.
        let _ = writer.wait_merging_threads();
    };
    let wait_on_thread = move || {
        if let Ok(writer) = handed_over.recv() {
            wait_for_merges(writer);
        }
        let _ = sender.send(());
    };
    // The thread gets the writer only once it runs: a thread that can't be started would drop it.
    match thread::Builder::new().name("close-index".to_owned()).spawn(wait_on_thread) {
        Ok(_) => {
            let _ = hand_over.send(writer);
            let _ = closed.recv_timeout(CLOSE_WAIT);
        }
        Err(_) => wait_for_merges(writer),
    }
}

fn commit(writer: &mut TantivyWriter, checkpoint: ProjectionCheckpoint) -> Result<(), SearchError> {
    let payload = to_payload(checkpoint).map_err(damaged)?;
    let mut prepared = writer.prepare_commit().map_err(classify_error)?;
    prepared.set_payload(&payload);
    prepared.commit().map_err(classify_error)?;
    Ok(())
}
