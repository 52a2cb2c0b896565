//! Detects that the files of an open log were removed or replaced, by a deletion of the folder, a renamed file, or
//! another volume at the same path. SQLite would keep writing to files that no path leads to.

use std::io;
use std::path::{Path, PathBuf};

use chat_files::durable_fs::path_with_suffix;
use chat_files::file_id::FileId;
use thiserror::Error;

/// The error for a file of the log that is no longer under its name, or that can't be checked.
#[derive(Debug, Error)]
pub(super) enum FileCheckError {
    #[error("{} was removed or replaced while the process had it open", .0.display())]
    Replaced(PathBuf),
    #[error("{} can't be checked", .path.display())]
    Unknown { path: PathBuf, source: io::Error },
}

/// The database, its WAL and the WAL's index, as they were opened. SQLite keeps all three for as long as a connection
/// is open.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Vec<(PathBuf, FileId)>);

impl OpenFiles {
    /// Records the files of a database that is open.
    pub(super) fn record(path: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for suffix in ["", "-wal", "-shm"] {
            let path = path_with_suffix(path, suffix);
            if let Some(file) = FileId::for_path(&path)? {
                files.push((path, file));
            }
        }
        Ok(Self(files))
    }

    /// Checks that the files are still under their names: one `stat` each.
    pub(super) fn check(&self) -> Result<(), FileCheckError> {
        for (path, file) in &self.0 {
            match FileId::for_path(path) {
                Ok(Some(found)) if found == *file => {}
                Ok(_) => return Err(FileCheckError::Replaced(path.clone())),
                Err(source) => return Err(FileCheckError::Unknown { path: path.clone(), source }),
            }
        }
        Ok(())
    }
}
