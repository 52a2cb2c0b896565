//! What files take of the disk.

use std::io;
use std::path::Path;

/// What the chat API's files take, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskUsage {
    /// The log.
    pub log: f64,
    /// The read model.
    pub read_model: f64,
    /// The search index.
    pub index: f64,
}

/// What the files in a data folder take.
pub fn sizes(folder: &Path) -> io::Result<DiskUsage> {
    let mut sizes = DiskUsage::default();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let bytes = size_of_entry(&entry.path())?;
        match entry.file_name().to_string_lossy().as_ref() {
            name if name.starts_with("events.db") => sizes.log += bytes,
            name if name.starts_with("read-model") => sizes.read_model += bytes,
            name if name.starts_with("search-index") => sizes.index += bytes,
            _ => {}
        }
    }
    Ok(sizes)
}

/// What a file takes, or a folder with all that is in it.
fn size_of(path: &Path) -> io::Result<f64> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len() as f64);
    }
    let mut all = 0.0;
    for entry in std::fs::read_dir(path)? {
        all += size_of_entry(&entry?.path())?;
    }
    Ok(all)
}

/// The same of what a folder listed. What goes away meanwhile, as segments that were merged and logs that were copied do,
/// takes nothing.
fn size_of_entry(path: &Path) -> io::Result<f64> {
    match size_of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0.0),
        read => read,
    }
}
