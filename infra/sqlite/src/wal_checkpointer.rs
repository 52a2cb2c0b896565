//! The WAL checkpointer: copies the write-ahead log of a SQLite database into the database file, on a separate thread.
//!
//! By default SQLite checkpoints inside a commit, which then waits for pages to be written and synced. Here a thread
//! checkpoints every few MiB beside the commits. Under steady commits this thread never reaches the end of the WAL, and
//! the WAL grows. Once the WAL is large (64 MiB), the writer thread checkpoints the small part that is left, and SQLite
//! reuses the WAL from the start at the next commit. If the disk is slower than the commits, and the WAL grows to
//! 128 MiB, commits wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};

/// The growth of the WAL, in pages, after which the next checkpoint is requested: 4 MiB.
const CHECKPOINT_STEP_PAGES: usize = 1_024;

/// The size of a large WAL in pages: 64 MiB. The writer thread checkpoints a large WAL, so that SQLite reuses it from
/// the start.
const LARGE_WAL_PAGES: usize = 16_384;

/// The polling interval of a commit that waits for the checkpointing thread.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

const CHECKPOINT_FAILED: &str = "checkpointing the write-ahead log of a database failed";

/// The writer thread's handle on the checkpointing thread. The writer's connection must set
/// `PRAGMA wal_autocheckpoint = 0`. Dropping the handle stops the checkpointing thread and closes its connection.
pub(crate) struct WalCheckpointer {
    path: PathBuf,
    /// Pages in the WAL after the last commit.
    wal_pages: Arc<AtomicUsize>,
    /// Pages in the WAL when a checkpoint was last requested from the checkpointing thread.
    pages_when_requested: usize,
    /// Pages in the WAL when the writer thread last made a checkpoint itself.
    pages_when_checkpointed: usize,
    /// Whether the checkpointing thread has a request or is checkpointing.
    is_checkpointing: Arc<AtomicBool>,
    /// `None` only while being dropped.
    request_sender: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WalCheckpointer {
    /// Waits for the checkpoint in progress.
    fn drop(&mut self) {
        drop(self.request_sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run_checkpoints(path: &Path, requests: &Receiver<()>, is_checkpointing: &AtomicBool) {
    let mut connection: Option<Connection> = None;
    while requests.recv().is_ok() {
        let _guard = CheckpointingGuard(is_checkpointing);
        let opened = connection.take().map_or_else(|| open_connection(path), Ok);
        // A connection that failed is closed, and the next request opens another one.
        match opened.and_then(|opened| checkpoint(&opened).map(|()| opened)) {
            Ok(opened) => connection = Some(opened),
            Err(error) => log_failure(path, &error),
        }
    }
}

/// Resets the flag at the end of a request, even after a panic.
struct CheckpointingGuard<'a>(&'a AtomicBool);

impl Drop for CheckpointingGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn log_failure(path: &Path, error: &rusqlite::Error) {
    tracing::warn!(database = %path.display(), %error, "{CHECKPOINT_FAILED}");
}

fn open_connection(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    Ok(connection)
}

/// Copies committed pages into the database file, up to the oldest snapshot that a reader uses.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

impl WalCheckpointer {
    /// Starts a thread with this name. The thread stops when the returned handle is dropped.
    pub(crate) fn spawn(name: &str, path: &Path) -> std::io::Result<Self> {
        let (request_sender, requests) = sync_channel(1);
        let is_checkpointing = Arc::new(AtomicBool::new(false));
        let (path, thread_is_checkpointing) = (path.to_path_buf(), Arc::clone(&is_checkpointing));
        let thread_path = path.clone();
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || run_checkpoints(&thread_path, &requests, &thread_is_checkpointing))?;
        Ok(Self {
            path,
            wal_pages: Arc::default(),
            pages_when_requested: 0,
            pages_when_checkpointed: 0,
            is_checkpointing,
            request_sender: Some(request_sender),
            thread: Some(thread),
        })
    }

    /// Makes the connection report the size of the WAL after each commit.
    pub(crate) fn install_wal_hook(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let wal_pages = Arc::clone(&self.wal_pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            wal_pages.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Requests a checkpoint from the checkpointing thread, or makes one on this thread, if the WAL has grown. Called
    /// by the writer thread after each use of its connection.
    pub(crate) fn after_commit(&mut self, connection: &Connection) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        // If SQLite has reused the WAL from the start, the WAL has fewer pages than before.
        self.pages_when_requested = self.pages_when_requested.min(pages);
        self.pages_when_checkpointed = self.pages_when_checkpointed.min(pages);
        let writer_must_checkpoint =
            pages >= LARGE_WAL_PAGES.max(self.pages_when_checkpointed + CHECKPOINT_STEP_PAGES);
        // The disk is slower than the commits, so the commits wait.
        while writer_must_checkpoint
            && pages >= 2 * LARGE_WAL_PAGES
            && self.is_checkpointing.load(Ordering::Acquire)
        {
            sleep(POLL_INTERVAL);
        }
        if writer_must_checkpoint && !self.is_checkpointing.load(Ordering::Acquire) {
            self.pages_when_checkpointed = pages;
            if let Err(error) = checkpoint(connection) {
                log_failure(&self.path, &error);
            }
        } else if pages >= self.pages_when_requested + CHECKPOINT_STEP_PAGES
            && !self.is_checkpointing.swap(true, Ordering::AcqRel)
        {
            self.pages_when_requested = pages;
            if self.request_sender.as_ref().is_none_or(|sender| sender.try_send(()).is_err()) {
                // The checkpointing thread has panicked: from now on the writer thread checkpoints whenever the WAL is
                // large.
                self.is_checkpointing.store(false, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wal_is_bounded_under_large_commits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let mut connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE blobs (bytes BLOB);",
            )
            .unwrap();
        let mut checkpointer = WalCheckpointer::spawn("some-wal", &path).unwrap();
        checkpointer.install_wal_hook(&mut connection).unwrap();
        // Each commit has more pages than a checkpoint step.
        for _ in 0..40 {
            let rows = 2 * CHECKPOINT_STEP_PAGES;
            connection
                .execute_batch(&format!(
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                     INSERT INTO blobs SELECT zeroblob(4000) FROM n"
                ))
                .unwrap();
            checkpointer.after_commit(&connection);
        }
        let bytes = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
        // 320 MiB were written.
        assert!(bytes < 3 * LARGE_WAL_PAGES as u64 * 4_096, "the WAL has {bytes} bytes");
    }
}
