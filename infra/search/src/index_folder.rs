//! The folder of an index: creation, checksums, the writer lock, quarantine and removal.

use std::fs;
use std::io;
use std::path::Path;

use chat_files::durable_fs;
use chat_files::heartbeat;
use chat_ports::search_index::SearchError;
use tantivy::directory::{Directory as _, DirectoryLock, INDEX_WRITER_LOCK, MmapDirectory};
use tantivy::{Index, IndexSettings, TantivyError};

use crate::error::{Damage, FieldsMissing, classify_error, damaged, unavailable};
use crate::schema::{TOKENIZER, lacks_added_fields, schema};
use crate::terms::TermTokenizer;

/// tantivy's list of segments, with the schema and the checkpoint.
pub(crate) const META_FILE: &str = "meta.json";

/// tantivy's list of files. Without it, tantivy neither verifies nor removes files.
const MANAGED_FILE: &str = ".managed.json";

/// The size of a block of stored documents before compression. A search decompresses at most one block per hit.
const DOC_STORE_BLOCK_BYTES: usize = 4 << 10;

/// Opens an existing index.
pub(crate) fn open(dir: &Path) -> Result<Index, SearchError> {
    if !dir.join(META_FILE).try_exists().map_err(unavailable)? {
        return Err(if has_segment_files(dir)? {
            damaged(Damage::MissingMetaFile)
        } else {
            SearchError::NotCreated
        });
    }
    let index = Index::open_in_dir(dir).map_err(classify_error)?;
    if lacks_added_fields(&index.schema()) {
        return Err(unavailable(FieldsMissing));
    }
    if index.schema() != schema().0 {
        return Err(damaged(Damage::FieldMismatch));
    }
    index.tokenizers().register(TOKENIZER, TermTokenizer::default());
    Ok(index)
}

/// Adds the fields for senders and data to an index that was created before they existed: writes the schema of this
/// version into tantivy's list of segments. Fields are identified by their place in the schema, so the segments stay
/// as they are; tantivy finds nothing under the new fields in them. Does nothing if there is no such index.
pub(crate) fn add_missing_fields(dir: &Path) -> Result<(), SearchError> {
    if !dir.join(META_FILE).try_exists().map_err(unavailable)? {
        return Ok(());
    }
    if !lacks_added_fields(&Index::open_in_dir(dir).map_err(classify_error)?.schema()) {
        return Ok(());
    }
    // Without the lock, another writer could replace the list meanwhile.
    let _lock = acquire_writer_lock(dir)?;
    let directory = MmapDirectory::open(dir).map_err(|error| classify_error(error.into()))?;
    let meta_file = Path::new(META_FILE);
    let invalid = |error: serde_json::Error| damaged(error);
    let meta = fs::read(dir.join(META_FILE)).map_err(unavailable)?;
    let mut meta: serde_json::Value = serde_json::from_slice(&meta).map_err(invalid)?;
    meta["schema"] = serde_json::to_value(schema().0).map_err(invalid)?;
    let meta = serde_json::to_vec_pretty(&meta).map_err(invalid)?;
    directory.atomic_write(meta_file, &meta).map_err(unavailable)?;
    directory.sync_directory().map_err(unavailable)
}

/// Creates an index without segments, or opens the one that another process has created meanwhile. Leaves other files
/// in the folder alone.
pub(crate) fn create_unless_exists(dir: &Path) -> Result<Index, SearchError> {
    durable_fs::create_dir_all(dir).map_err(unavailable)?;
    // Without the lock, the new, empty list of segments could replace one that another writer has just committed.
    let _lock = acquire_writer_lock(dir)?;
    match open(dir) {
        Err(SearchError::NotCreated) => create(dir),
        opened => opened,
    }
}

fn create(dir: &Path) -> Result<Index, SearchError> {
    let settings = IndexSettings { docstore_blocksize: DOC_STORE_BLOCK_BYTES, ..IndexSettings::default() };
    let index =
        Index::builder().schema(schema().0).settings(settings).create_in_dir(dir).map_err(classify_error)?;
    index.tokenizers().register(TOKENIZER, TermTokenizer::default());
    Ok(index)
}

/// Reads every file of the segments and compares it with its checksum.
pub(crate) fn verify(dir: &Path, index: &Index) -> Result<(), SearchError> {
    let segments = index.searchable_segment_ids().map_err(classify_error)?;
    if !segments.is_empty() && !dir.join(MANAGED_FILE).try_exists().map_err(unavailable)? {
        return Err(damaged(Damage::MissingManagedFile));
    }
    let differing = index.validate_checksum().map_err(classify_error)?;
    if differing.is_empty() {
        Ok(())
    } else {
        Err(damaged(Damage::ChecksumMismatch(differing.into_iter().collect())))
    }
}

/// Takes the folder's writer lock.
pub(crate) fn acquire_writer_lock(dir: &Path) -> Result<DirectoryLock, SearchError> {
    let directory = MmapDirectory::open(dir).map_err(|error| classify_error(error.into()))?;
    directory
        .acquire_lock(&INDEX_WRITER_LOCK)
        .map_err(|error| classify_error(TantivyError::LockFailure(error, None)))
}

/// Quarantines a folder, in place of the one that was quarantined before. Open files stay readable.
pub(crate) fn quarantine(dir: &Path) -> Result<(), SearchError> {
    durable_fs::quarantine(dir, &[]).map_err(unavailable)
}

/// Quarantines a folder whose index does not follow from the log. The quarantined folder is never replaced or removed.
/// Open files stay readable.
pub(crate) fn quarantine_other_log(dir: &Path) -> Result<(), SearchError> {
    durable_fs::quarantine_other_log(dir, &[]).map_err(unavailable)
}

/// Removes a folder. The list of segments is removed first, so that no reader opens a part of the index.
pub(crate) fn remove(dir: &Path) -> Result<(), SearchError> {
    match fs::remove_file(dir.join(META_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unavailable(error)),
        _ => {}
    }
    fs::remove_dir_all(dir).map_err(unavailable)
}

/// Removes the heartbeats beside a folder that was removed, and the folder that [`quarantine`] moved away. Keeps
/// folders that [`quarantine_other_log`] moved away.
pub(crate) fn remove_traces(dir: &Path) -> Result<(), SearchError> {
    heartbeat::remove_all(dir).map_err(unavailable)?;
    durable_fs::remove_quarantined(dir).map_err(unavailable)
}

/// Whether a folder contains segment files.
fn has_segment_files(dir: &Path) -> Result<bool, SearchError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unavailable(error)),
    };
    for entry in entries {
        let name = entry.map_err(unavailable)?.file_name();
        let is_segment_file = Path::new(&name).extension().is_some_and(|end| {
            ["idx", "pos", "term", "store", "fast", "fieldnorm", "del"]
                .iter()
                .any(|extension| end == *extension)
        });
        if is_segment_file {
            return Ok(true);
        }
    }
    Ok(false)
}
