//! Writing the index: what the projection made of the log, one commit a stretch.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use chat_domain::Position;
use tantivy::indexer::{IndexWriterOptions, UserOperation};
use tantivy::schema::document::CompactDocValue;
use tantivy::{Document as Indexed, Index, IndexWriter, TantivyDocument};

use super::checkpoint::to_payload;
use super::folder::{self, classify_error, damaged};
use super::index::TantivyIndex;
use super::merge_policy::SizeTieredMergePolicy;
use super::schema::{Fields, schema};
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::search_index::{Document, IndexChanges, MessageKey, SearchError};

/// Threads that index. Each makes a segment of its own, so that a small commit takes only one of them.
const INDEXING_THREADS: usize = 2;

/// Bytes of memory each of them has for terms that are not on disk yet; a commit that needs more is written in pieces.
/// What is folded anew comes in commits that need as much, and is cheaper the larger its pieces are. Between commits none
/// is held.
const MEMORY_PER_THREAD: usize = 64_000_000;

/// Messages that are handed over together: whether the memory is used up is looked at after each of these.
const DOCUMENTS_PER_RUN: usize = 256;

/// Bytes of texts up to which a commit is handed over as one, and so makes one segment.
const SINGLE_SEGMENT_BYTES: usize = 512 << 10;

/// Writes the index; the only one that does, while it lives.
///
/// Its methods write files and block; async callers run them on a thread where that is allowed.
pub struct TantivyIndexWriter {
    dir: PathBuf,
    fields: Fields,
    reader: TantivyIndex,
    /// `None` after a failed commit, of which it is not known what it left behind: the next use opens it anew.
    writer: Option<TantivyWriter>,
}

type TantivyWriter = IndexWriter<BoxedDocument>;

/// A document on its way to the threads that index. With each commit tantivy makes a queue of 10,000 places for four
/// documents each: 0.9 MB of pointers, where the documents themselves would be 2.5.
struct BoxedDocument(Box<TantivyDocument>);

impl Indexed for BoxedDocument {
    type Value<'a> = CompactDocValue<'a>;
    type FieldsValuesIter<'a> = <TantivyDocument as Indexed>::FieldsValuesIter<'a>;

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
    /// Opens the index in a folder for writing, and creates both where they are missing. Reads all files of the index
    /// to compare them with their checksums (about a second a gigabyte from memory).
    ///
    /// # Errors
    /// [`SearchError::InUse`] while another writer has it, [`SearchError::Damaged`] where it can't be understood
    /// or was written by another version: [`Self::reset`] helps.
    pub fn open(dir: &Path) -> Result<(Self, StorageOrigin), SearchError> {
        let (index, mut opened) = match folder::open(dir) {
            Ok(index) => (index, StorageOrigin::Existing),
            Err(SearchError::NotCreated) => (folder::create(dir)?, StorageOrigin::Created),
            Err(error) => return Err(error),
        };
        let mut writer = open_tantivy_writer(&index)?;
        if index.load_metas().map_err(classify_error)?.payload.is_none() {
            // New, or a crash came between creating it and this commit, the first.
            commit(&mut writer, ProjectionCheckpoint::default())?;
            opened = StorageOrigin::Created;
        }
        folder::verify(dir, &index)?;
        let reader = TantivyIndex::from_index(dir, index)?;
        Ok((Self { dir: dir.to_owned(), fields: schema().1, reader, writer: Some(writer) }, opened))
    }

    /// Moves what is in the folder aside, to `<dir>.damaged-<unix milliseconds>` in place of what was moved there
    /// before, and creates a new index. Readers that have the old one open keep reading it until they refresh.
    ///
    /// # Errors
    /// [`SearchError::InUse`] while another writer has it.
    pub fn recreate(dir: &Path) -> Result<Self, SearchError> {
        if dir.try_exists().map_err(folder::unavailable)? {
            // Held across the move: a writer that still works by this path would write into the new index.
            let lock = folder::acquire_writer_lock(dir)?;
            folder::quarantine(dir)?;
            drop(lock);
        }
        Self::open(dir).map(|(writer, _)| writer)
    }

    /// Removes the folder with the index in it. Nothing happens where there is none.
    ///
    /// # Errors
    /// [`SearchError::InUse`] while a writer has it.
    pub fn remove(dir: &Path) -> Result<(), SearchError> {
        if dir.try_exists().map_err(folder::unavailable)? {
            let lock = folder::acquire_writer_lock(dir)?;
            folder::remove(dir)?;
            drop(lock);
        }
        Ok(())
    }

    /// A reader in this process. It sees each commit as soon as [`Self::commit`] returns.
    pub fn reader(&self) -> TantivyIndex {
        self.reader.clone()
    }

    /// Up to where which log is folded in.
    pub fn checkpoint(&self) -> ProjectionCheckpoint {
        self.reader.checkpoint()
    }

    /// The messages of these keys that the index holds.
    pub fn documents(&self, keys: &[MessageKey]) -> Result<HashMap<MessageKey, Document>, SearchError> {
        self.reader.documents(keys)
    }

    /// Streams of which an event was parked.
    pub fn blocked_streams(&self) -> Result<Vec<String>, SearchError> {
        let (_, count) = self.reader.dead_letters(0)?;
        let (letters, _) = self.reader.dead_letters(usize::try_from(count).unwrap_or(usize::MAX))?;
        let streams: HashSet<String> = letters.into_iter().map(|letter| letter.stream).collect();
        Ok(streams.into_iter().collect())
    }

    /// Events that are parked, the first `limit` of them by position, and how many there are in all.
    pub fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        self.reader.dead_letters(limit)
    }

    /// A digest over the content, and the position it is as of. It reads everything.
    pub fn digest(&self) -> Result<(Position, ContentDigest), SearchError> {
        self.reader.digest()
    }

    /// Stores changes and moves the checkpoint, durably and together.
    ///
    /// # Errors
    /// [`SearchError::CheckpointMoved`] where the changes don't start at the checkpoint or are of another log; nothing
    /// is stored then. After [`SearchError::Unavailable`] they may or may not be stored: [`Self::checkpoint`] tells,
    /// once a call of this method or [`Self::recover`] has looked.
    pub fn commit(&mut self, changes: IndexChanges) -> Result<(), SearchError> {
        self.recover()?;
        let at = self.checkpoint();
        if changes.from != at.position || at.log.is_some_and(|log| log != changes.log) {
            return Err(SearchError::CheckpointMoved);
        }
        let Some(mut writer) = self.writer.take() else { return Err(SearchError::CheckpointMoved) };
        let to = ProjectionCheckpoint { log: Some(changes.log), position: changes.to };
        self.apply_changes(&writer, changes)?;
        commit(&mut writer, to)?;
        self.reader.reload()?;
        self.writer = Some(writer);
        Ok(())
    }

    /// After a failed commit, drops what it left in memory and looks what it left on disk; otherwise does nothing.
    pub fn recover(&mut self) -> Result<(), SearchError> {
        if self.writer.is_none() {
            let index = folder::open(&self.dir)?;
            self.writer = Some(open_tantivy_writer(&index)?);
            self.reader.reload()?;
        }
        Ok(())
    }

    fn apply_changes(&self, writer: &TantivyWriter, changes: IndexChanges) -> Result<(), SearchError> {
        let IndexChanges {
            add,
            upsert: put,
            delete,
            new_dead_letters: park,
            resolved_dead_letters: unpark,
            mark,
            ..
        } = changes;
        let keys = put.iter().map(|message| &message.key).chain(&delete);
        let mut operations: Vec<_> =
            keys.map(|key| UserOperation::Delete(self.fields.key_term(key))).collect();
        let letters = unpark.iter().chain(mark.iter().map(|letter| &letter.position));
        operations.extend(
            letters.map(|position| UserOperation::Delete(self.fields.dead_letter_key_term(*position))),
        );
        for letter in park.into_iter().chain(mark) {
            operations.push(BoxedDocument::add_operation(self.fields.letter(letter).map_err(damaged)?));
        }
        let bytes: usize = add.iter().chain(&put).map(|message| message.body.len()).sum();
        let messages: Vec<_> = add.iter().chain(&put).collect();
        let add = |message: &&Document| BoxedDocument::add_operation(self.fields.message_document(message));
        if bytes <= SINGLE_SEGMENT_BYTES {
            operations.extend(messages.iter().map(add));
            writer.run(operations).map_err(classify_error)?;
            return Ok(());
        }
        writer.run(operations).map_err(classify_error)?;
        for messages in messages.chunks(DOCUMENTS_PER_RUN) {
            writer.run(messages.iter().map(add)).map_err(classify_error)?;
        }
        Ok(())
    }
}

/// Few threads index and one merges: a projection is one stream of changes, and the machine has other work.
fn open_tantivy_writer(index: &Index) -> Result<TantivyWriter, SearchError> {
    let options = IndexWriterOptions::builder()
        .num_worker_threads(INDEXING_THREADS)
        .num_merge_threads(1)
        .memory_budget_per_thread(MEMORY_PER_THREAD)
        .build();
    let writer: TantivyWriter = index.writer_with_options(options).map_err(classify_error)?;
    writer.set_merge_policy(Box::new(SizeTieredMergePolicy::default()));
    clean_up_after_previous_writer(&writer)?;
    Ok(writer)
}

/// Makes a new writer safe to use on what an earlier one left behind, be it by a kill or by an ordinary end.
///
/// A writer numbers its operations from the number of the last commit on, that one included.
///
/// - A deletion with that number would count as part of the last commit: a merge that was cut short and is set off
///   again with the first documents passes over it in segments that have deletions as of that commit, and applies it
///   in the others, whereupon the merged segment counts as having it applied, and what it should have deleted is back.
///   So that number is used up here, by nothing.
/// - The same commit made again has the same number as when it was cut short, and can't create its files of deletions
///   where they are already, however often it is tried. So files that no commit lists are removed.
fn clean_up_after_previous_writer(writer: &TantivyWriter) -> Result<(), SearchError> {
    let nothing: [UserOperation<BoxedDocument>; 0] = [];
    writer.run(nothing).map_err(classify_error)?;
    writer.garbage_collect_files().wait().map_err(classify_error)?;
    Ok(())
}

fn commit(writer: &mut TantivyWriter, checkpoint: ProjectionCheckpoint) -> Result<(), SearchError> {
    let payload = to_payload(checkpoint).map_err(damaged)?;
    let mut prepared = writer.prepare_commit().map_err(classify_error)?;
    prepared.set_payload(&payload);
    prepared.commit().map_err(classify_error)?;
    Ok(())
}
