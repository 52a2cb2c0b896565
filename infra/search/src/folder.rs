//! The folder of an index: created durably, checked for damage, moved aside.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tantivy::directory::error::{LockError, OpenDirectoryError, OpenReadError};
use tantivy::directory::{Directory as _, DirectoryLock, INDEX_WRITER_LOCK, MmapDirectory};
use tantivy::{Index, IndexSettings, TantivyError};
use thiserror::Error;

use super::schema::{TOKENIZER, schema};
use super::terms::TermTokenizer;
use chat_files::durable_fs;
use chat_files::heartbeat;
use chat_ports::search_index::SearchError;

/// tantivy's list of segments: an index is there when this file is.
pub(super) const META_FILE: &str = "meta.json";

/// tantivy's list of files, without which it neither checks nor clears them.
const MANAGED_FILE: &str = ".managed.json";

/// Bytes of stored documents that are packed together. A search unpacks one of these for each hit.
const DOC_STORE_BLOCK_BYTES: usize = 4 << 10;

/// What is wrong with a folder.
#[derive(Debug, Error)]
pub(super) enum Damage {
    #[error("the list of segments is missing though there are files of an index")]
    MissingMetaFile,
    #[error("the list of files is missing")]
    MissingManagedFile,
    #[error("these files are not as they were written: {0:?}")]
    ChecksumMismatch(Vec<PathBuf>),
    #[error("the fields are not those of this version")]
    FieldMismatch,
    #[error("the index has schema version {found}, and this program reads {expected}")]
    VersionMismatch { found: u64, expected: u32 },
    #[error("the checkpoint can't be read")]
    UnreadableCheckpoint(#[source] serde_json::Error),
}

/// Opens an index that is there.
pub(super) fn open(dir: &Path) -> Result<Index, SearchError> {
    if !dir.join(META_FILE).try_exists().map_err(unavailable)? {
        return Err(if has_index_files(dir)? {
            damaged(Damage::MissingMetaFile)
        } else {
            SearchError::NotCreated
        });
    }
    let index = Index::open_in_dir(dir).map_err(classify_error)?;
    if index.schema() != schema().0 {
        return Err(damaged(Damage::FieldMismatch));
    }
    index.tokenizers().register(TOKENIZER, TermTokenizer::default());
    Ok(index)
}

/// Creates an index without segments; files that are not of an index stay where they are.
pub(super) fn create(dir: &Path) -> Result<Index, SearchError> {
    durable_fs::create_dir_all(dir).map_err(unavailable)?;
    let settings = IndexSettings { docstore_blocksize: DOC_STORE_BLOCK_BYTES, ..IndexSettings::default() };
    let index =
        Index::builder().schema(schema().0).settings(settings).create_in_dir(dir).map_err(classify_error)?;
    index.tokenizers().register(TOKENIZER, TermTokenizer::default());
    Ok(index)
}

/// Reads every file and compares it with the checksum it was written with.
pub(super) fn verify(dir: &Path, index: &Index) -> Result<(), SearchError> {
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

/// Takes the lock that a writer of the folder holds.
pub(super) fn acquire_writer_lock(dir: &Path) -> Result<DirectoryLock, SearchError> {
    let directory = MmapDirectory::open(dir).map_err(|error| classify_error(error.into()))?;
    directory
        .acquire_lock(&INDEX_WRITER_LOCK)
        .map_err(|error| classify_error(TantivyError::LockFailure(error, None)))
}

/// Moves a folder out of the way, in place of the one that was moved last. Who has its files open keeps them.
pub(super) fn quarantine(dir: &Path) -> Result<(), SearchError> {
    durable_fs::quarantine(dir, &[]).map_err(unavailable)
}

/// Removes a folder and the notices beside it. Its list of segments goes first: from then on readers find no index,
/// instead of a part of one.
pub(super) fn remove(dir: &Path) -> Result<(), SearchError> {
    match fs::remove_file(dir.join(META_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unavailable(error)),
        _ => {}
    }
    fs::remove_dir_all(dir).map_err(unavailable)?;
    heartbeat::remove_all(dir).map_err(unavailable)
}

/// Whether files of tantivy's are in a folder.
fn has_index_files(dir: &Path) -> Result<bool, SearchError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unavailable(error)),
    };
    for entry in entries {
        let name = entry.map_err(unavailable)?.file_name();
        let of_a_segment = Path::new(&name).extension().is_some_and(|end| {
            ["idx", "pos", "term", "store", "fast", "fieldnorm", "del"].iter().any(|known| end == *known)
        });
        if of_a_segment {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tells failures that may pass from damage that stays.
pub(super) fn classify_error(error: TantivyError) -> SearchError {
    if let TantivyError::LockFailure(LockError::LockBusy, _) = &error {
        return SearchError::InUse(error.into());
    }
    let is_permanent = match &error {
        TantivyError::IoError(error) => is_damage(error),
        TantivyError::OpenReadError(error) => match error {
            OpenReadError::FileDoesNotExist(_) | OpenReadError::IncompatibleIndex(_) => true,
            OpenReadError::IoError { io_error, .. } => is_damage(io_error),
        },
        TantivyError::OpenDirectoryError(error) => matches!(error, OpenDirectoryError::NotADirectory(_)),
        TantivyError::LockFailure(..)
        | TantivyError::OpenWriteError(_)
        | TantivyError::Poisoned
        | TantivyError::ErrorInThread(_)
        | TantivyError::SystemError(_) => false,
        _ => true,
    };
    if is_permanent { damaged(error) } else { unavailable(error) }
}

/// Whether a file ended too soon or held something else, rather than could not be read.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other
    )
}

pub(super) fn unavailable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> SearchError {
    SearchError::Unavailable(error.into())
}

pub(super) fn damaged(error: impl Into<Box<dyn StdError + Send + Sync>>) -> SearchError {
    SearchError::Damaged(error.into())
}
