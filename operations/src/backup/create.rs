//! Makes a backup of a log that is in use.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use chat_domain::event::SchemaVersion;
use chat_files::durable_fs::{self, parent_dir, path_with_suffix};
use chat_ports::clock;
use chat_ports::event_store::EventStore;
use chat_sqlite::{SqliteEventStore, check_event_log_file, copy_event_log};

use super::blocking::{measure_file, run_blocking};
use super::error::BackupError;
use super::files::{LOG_FILE, MANIFEST_FILE};
use super::manifest::{BackupFile, Manifest};
use crate::counted::counted;
use crate::proof::ProgressCallback;
use crate::proof::log_root::LogRoot;

/// Copies a log into the new or empty folder `out`, and verifies the copy.
///
/// `log_file` is the file of `log`. `program` is the name and version of this program, for the manifest. The copy is a
/// snapshot of one moment; other processes may append meanwhile. After copying, the copy is opened and checked, and its
/// events are compared with those of the log. `on_progress` receives the number of events read so far: each event is
/// read twice, from the copy and from the log. After a failure, or if the future is dropped, the copy is removed. One
/// case is an exception: if the folder existed before, and the future is dropped while SQLite creates the copy, a part
/// of the copy may stay. The folder then has no manifest.
pub async fn create(
    log: &dyn EventStore,
    log_file: &Path,
    out: &Path,
    program: &str,
    on_progress: ProgressCallback<'_>,
) -> Result<Manifest, BackupError> {
    let is_new = create_folder(out)?;
    let unfinished = UnfinishedBackup { folder: out.to_owned(), is_new };
    let manifest = write_backup(log, log_file, out, program, on_progress).await?;
    unfinished.keep();
    Ok(manifest)
}

/// A folder with a copy that is no backup yet. Dropping it removes the copy, and the folder if it is new.
struct UnfinishedBackup {
    folder: PathBuf,
    /// Whether [`create`] created the folder; else it was there, and empty.
    is_new: bool,
}

impl UnfinishedBackup {
    /// Keeps the folder: the backup is complete.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for UnfinishedBackup {
    fn drop(&mut self) {
        const ATTEMPTS: usize = 10;
        // Errors are ignored: without a manifest, a copy that stays can't be taken for a backup. A manifest exists here
        // only if its file was written and the sync of the folder then failed.
        let _ = fs::remove_file(self.folder.join(MANIFEST_FILE));
        // If the future is dropped, the thread that copies goes on. While the folder exists, SQLite may create the copy
        // or its journal again.
        for _ in 0..ATTEMPTS {
            // While the copy is being written, its rollback journal is beside it.
            for suffix in ["", "-journal"] {
                let _ = fs::remove_file(path_with_suffix(&self.folder.join(LOG_FILE), suffix));
            }
            let removed = if self.is_new { fs::remove_dir(&self.folder) } else { Ok(()) };
            if !removed.is_err_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty) {
                return;
            }
        }
    }
}

/// Writes the copy, compares it with the log, and then writes the manifest.
async fn write_backup(
    log: &dyn EventStore,
    log_file: &Path,
    out: &Path,
    program: &str,
    on_progress: ProgressCallback<'_>,
) -> Result<Manifest, BackupError> {
    let created_at = clock::now();
    let (from, copy_path) = (log_file.to_owned(), out.join(LOG_FILE));
    let (copy, bytes, sha256) = run_blocking(move || {
        copy_event_log(&from, &copy_path)?;
        check_event_log_file(&copy_path)?;
        let (bytes, sha256) = measure_file(&copy_path)?;
        Ok((SqliteEventStore::open_immutable(&copy_path)?, bytes, sha256))
    })
    .await?;
    let copied = LogRoot::compute(&copy, None, on_progress).await?;
    let original =
        LogRoot::compute(log, Some(copied.position), &mut |events| on_progress(copied.events + events))
            .await?;
    let (copy_id, log_id) = (copy.log_id().await?, log.log_id().await?);
    if copied != original || copy_id != log_id {
        return Err(BackupError::CopyDiffers {
            copy: describe(&copied, copy_id.0),
            log: describe(&original, log_id.0),
        });
    }
    let manifest = Manifest {
        version: Manifest::VERSION,
        created_at,
        program: program.to_owned(),
        event_schema: SchemaVersion::NEWEST,
        log: copy_id,
        position: copied.position,
        events: copied.events,
        root: copied.root,
        files: vec![BackupFile { name: LOG_FILE.to_owned(), bytes, sha256 }],
    };
    manifest.write(out)?;
    Ok(manifest)
}

/// Creates the folder, accessible by its owner only. Returns whether the folder is new. An existing folder is accepted
/// if it is empty.
fn create_folder(out: &Path) -> Result<bool, BackupError> {
    let failed = BackupError::file_error(out);
    durable_fs::create_dir_all(&parent_dir(out)).map_err(&failed)?;
    match fs::DirBuilder::new().mode(0o700).create(out) {
        Ok(()) => durable_fs::sync_parent_dir(out).map(|()| true).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::read_dir(out).map_err(failed)?.next() {
                None => Ok(false),
                Some(_) => Err(BackupError::NotEmpty(out.to_owned())),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

fn describe(content: &LogRoot, log_id: impl std::fmt::Display) -> String {
    let LogRoot { events, position, root } = content;
    format!("{} up to position {position} of log {log_id}, root {root}", counted(*events, "event"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_backup_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("backup");
        let unfinished = UnfinishedBackup { is_new: create_folder(&folder).unwrap(), folder: folder.clone() };
        for name in [LOG_FILE, MANIFEST_FILE] {
            fs::write(folder.join(name), "").unwrap();
        }
        drop(unfinished);
        assert!(!folder.exists());
    }
}
