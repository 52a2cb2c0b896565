//! Blocking file operations.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::BackupError;
use crate::proof::tree::Hash;

/// Runs file operations on a thread for blocking work.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    tokio::task::spawn_blocking(work).await.map_err(BackupError::Ended)?
}

/// Returns the length in bytes and the SHA-256 of a file.
pub(super) fn measure_file(path: &Path) -> Result<(u64, Hash), BackupError> {
    const BUFFER_BYTES: usize = 256 << 10;
    let failed = BackupError::file_error(path);
    let mut file = File::open(path).map_err(&failed)?;
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        match file.read(&mut buffer).map_err(&failed)? {
            0 => return Ok((bytes, Hash(hasher.finalize().into()))),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
