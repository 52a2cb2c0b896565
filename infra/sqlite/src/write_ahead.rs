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
const STEP: usize = 1_024;

/// Pages from which the write-ahead log is to start anew: 64 MiB.
const LARGE: usize = 16_384;

/// How often a commit that waits for the other thread looks whether it is through.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

const FAILED: &str = "a database's write-ahead log can't be copied into its file";

/// What the thread that commits knows of the write-ahead log. Its connection is to leave the copying to this, with
/// `PRAGMA wal_autocheckpoint = 0`. Once this is dropped, nothing of it has the database open.
pub(crate) struct WrittenAhead {
    path: PathBuf,
    /// Pages in it after the last commit.
    pages: Arc<AtomicUsize>,
    /// Pages in it when copying was last asked for, and when it was last done here.
    asked: usize,
    done: usize,
    /// Whether the other thread has been asked, or is at it.
    copying: Arc<AtomicBool>,
    /// `None` only while being dropped.
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread, with this name; it ends with what is returned.
pub(crate) fn spawn(name: &str, path: &Path) -> std::io::Result<WrittenAhead> {
    let (ask, asked) = sync_channel(1);
    let copying = Arc::new(AtomicBool::new(false));
    let (path, busy) = (path.to_path_buf(), Arc::clone(&copying));
    let of = path.clone();
    let thread = Builder::new().name(name.to_owned()).spawn(move || copy_when_asked(&of, &asked, &busy))?;
    Ok(WrittenAhead {
        path,
        pages: Arc::default(),
        asked: 0,
        done: 0,
        copying,
        ask: Some(ask),
        thread: Some(thread),
    })
}

impl Drop for WrittenAhead {
    /// Waits for the copy in progress.
    fn drop(&mut self) {
        drop(self.ask.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn copy_when_asked(path: &Path, asked: &Receiver<()>, copying: &AtomicBool) {
    let mut connection: Option<Connection> = None;
    while asked.recv().is_ok() {
        let opened = connection.take().map_or_else(|| open(path), Ok);
        let _over = Over(copying);
        // A connection that failed is closed with its failure, and the next step tries again.
        match opened.and_then(|opened| copy(&opened).map(|()| opened)) {
            Ok(opened) => connection = Some(opened),
            Err(error) => failed(path, &error),
        }
    }
}

/// Tells that a copy is over, however it ended.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn failed(path: &Path, error: &rusqlite::Error) {
    tracing::warn!(database = %path.display(), %error, "{FAILED}");
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    Ok(connection)
}

/// Copies what is committed, as far as no reader is in the way.
fn copy(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

impl WrittenAhead {
    /// Has the connection tell how large the write-ahead log is.
    pub(crate) fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let seen = Arc::clone(&self.pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            seen.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// To be called after whatever this connection was used for.
    pub(crate) fn committed(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        // It has started anew.
        self.asked = self.asked.min(pages);
        self.done = self.done.min(pages);
        let is_large = pages >= LARGE.max(self.done + STEP);
        // Where commits are faster than the disk, they wait.
        while is_large && pages >= 2 * LARGE && self.copying.load(Ordering::Acquire) {
            sleep(LOOK_AGAIN);
        }
        if is_large && !self.copying.load(Ordering::Acquire) {
            self.done = pages;
            if let Err(error) = copy(connection) {
                failed(&self.path, &error);
            }
        } else if pages >= self.asked + STEP && !self.copying.swap(true, Ordering::AcqRel) {
            self.asked = pages;
            if self.ask.as_ref().is_none_or(|ask| ask.try_send(()).is_err()) {
                // The thread has panicked: all is copied here from now on, each time that it is large.
                self.copying.store(false, Ordering::Release);
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
        let mut log = spawn("some-wal", &path).unwrap();
        log.watch(&mut connection).unwrap();
        // Each commit is of more pages than a step.
        for _ in 0..40 {
            let rows = 2 * STEP;
            connection
                .execute_batch(&format!(
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                     INSERT INTO blobs SELECT zeroblob(4000) FROM n"
                ))
                .unwrap();
            log.committed(&connection);
        }
        let bytes = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
        // 320 MiB were written.
        assert!(bytes < 3 * LARGE as u64 * 4_096, "{bytes}");
    }
}
