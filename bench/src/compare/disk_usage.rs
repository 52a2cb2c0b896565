//! The disk space of data folders.

use std::io;
use std::path::Path;

/// The disk space of a data folder, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskUsage {
    /// The files of the log.
    pub log: f64,
    /// The files of the read model.
    pub read_model: f64,
    /// The folder of the search index.
    pub index: f64,
}

impl DiskUsage {
    /// Adds up the files of a data folder.
    pub fn of_data_folder(folder: &Path) -> io::Result<Self> {
        let mut usage = Self::default();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let bytes = size_of_entry(&entry.path())?;
            match entry.file_name().to_string_lossy().as_ref() {
                name if name.starts_with("events.db") => usage.log += bytes,
                name if name.starts_with("read-model") => usage.read_model += bytes,
                name if name.starts_with("search-index") => usage.index += bytes,
                _ => {}
            }
        }
        Ok(usage)
    }
}

/// Returns the size of a file, or of all files in a folder.
fn size_of(path: &Path) -> io::Result<f64> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len() as f64);
    }
    let mut total = 0.0;
    for entry in std::fs::read_dir(path)? {
        total += size_of_entry(&entry?.path())?;
    }
    Ok(total)
}

/// Returns the size of a listed file or folder, or 0 if it was removed after it was listed: merged segments are removed
/// at any time.
fn size_of_entry(path: &Path) -> io::Result<f64> {
    match size_of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0.0),
        size => size,
    }
}
