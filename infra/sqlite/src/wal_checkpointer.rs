//! Copying a SQLite database's write-ahead log into its file.
//!
//! SQLite does it in a commit now and then, and that one waits for pages to be written and synced. Here a thread of its
//! own does it every few MiB, beside the commits. While commits keep coming it never gets to the very end, and the
//! write-ahead log grows: where it has grown large, the thread that commits copies the little that is left, and the
//! next commit starts it anew. Where it has grown to twice that, since the disk is slower than the commits, they wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};

/// Pages that are copied at a time, about: 4 MiB.
const CHECKPOINT_STEP_PAGES: usize = 1_024;

/// Pages from which the write-ahead log is to start anew: 64 MiB.
const LARGE_WAL_PAGES: usize = 16_384;

/// How often a commit that waits for the other thread looks whether it is through.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

const FAILED: &str = "a database's write-ahead log can't be copied into its file";

/// What the thread that commits knows of the write-ahead log. Its connection is to leave the copying to this, with
/// `PRAGMA wal_autocheckpoint = 0`. Once this is dropped, nothing of it has the database open.
pub(crate) struct WalCheckpointer {
    path: PathBuf,
    /// Pages in it after the last commit.
    wal_pages: Arc<AtomicUsize>,
    /// Pages in it when copying was last asked for, and when it was last done here.
    pages_when_requested: usize,
    pages_when_checkpointed: usize,
    /// Whether the other thread has been asked, or is at it.
    is_checkpointing: Arc<AtomicBool>,
    /// `None` only while being dropped.
    request_sender: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread, with this name; it ends with what is returned.
pub(crate) fn spawn(name: &str, path: &Path) -> std::io::Result<WalCheckpointer> {
    let (request_sender, requests) = sync_channel(1);
    let is_checkpointing = Arc::new(AtomicBool::new(false));
    let (path, thread_is_checkpointing) = (path.to_path_buf(), Arc::clone(&is_checkpointing));
    let thread_path = path.clone();
    let thread = Builder::new()
        .name(name.to_owned())
        .spawn(move || run_checkpoints(&thread_path, &requests, &thread_is_checkpointing))?;
    Ok(WalCheckpointer {
        path,
        wal_pages: Arc::default(),
        pages_when_requested: 0,
        pages_when_checkpointed: 0,
        is_checkpointing,
        request_sender: Some(request_sender),
        thread: Some(thread),
    })
}

impl Drop for WalCheckpointer {
    /// Waits for the copy in progress.
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
        let opened = connection.take().map_or_else(|| open_connection(path), Ok);
        let _guard = CheckpointingGuard(is_checkpointing);
        // A connection that failed is closed with its failure, and the next step tries again.
        match opened.and_then(|opened| checkpoint(&opened).map(|()| opened)) {
            Ok(opened) => connection = Some(opened),
            Err(error) => log_failure(path, &error),
        }
    }
}

/// Tells that a copy is over, however it ended.
struct CheckpointingGuard<'a>(&'a AtomicBool);

impl Drop for CheckpointingGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn log_failure(path: &Path, error: &rusqlite::Error) {
    tracing::warn!(database = %path.display(), %error, "{FAILED}");
}

fn open_connection(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    Ok(connection)
}

/// Copies what is committed, as far as no reader is in the way.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

impl WalCheckpointer {
    /// Has the connection tell how large the write-ahead log is.
    pub(crate) fn install_wal_hook(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let wal_pages = Arc::clone(&self.wal_pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            wal_pages.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// To be called after whatever this connection was used for.
    pub(crate) fn after_commit(&mut self, connection: &Connection) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        // It has started anew.
        self.pages_when_requested = self.pages_when_requested.min(pages);
        self.pages_when_checkpointed = self.pages_when_checkpointed.min(pages);
        let is_large = pages >= LARGE_WAL_PAGES.max(self.pages_when_checkpointed + CHECKPOINT_STEP_PAGES);
        // Where commits are faster than the disk, they wait.
        while is_large && pages >= 2 * LARGE_WAL_PAGES && self.is_checkpointing.load(Ordering::Acquire) {
            sleep(POLL_INTERVAL);
        }
        if is_large && !self.is_checkpointing.load(Ordering::Acquire) {
            self.pages_when_checkpointed = pages;
            if let Err(error) = checkpoint(connection) {
                log_failure(&self.path, &error);
            }
        } else if pages >= self.pages_when_requested + CHECKPOINT_STEP_PAGES
            && !self.is_checkpointing.swap(true, Ordering::AcqRel)
        {
            self.pages_when_requested = pages;
            if self.request_sender.as_ref().is_none_or(|ask| ask.try_send(()).is_err()) {
                // The thread has panicked: all is copied here from now on, each time that it is large.
                self.is_checkpointing.store(false, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_ahead_log_stays_small_however_large_commits_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let mut connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE blobs (bytes BLOB);",
            )
            .unwrap();
        let mut checkpointer = spawn("some-wal", &path).unwrap();
        checkpointer.install_wal_hook(&mut connection).unwrap();
        // Each commit is of more pages than a step.
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
        assert!(bytes < 3 * LARGE_WAL_PAGES as u64 * 4_096, "{bytes}");
    }
}
