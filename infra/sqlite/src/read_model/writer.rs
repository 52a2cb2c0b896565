//! The write side: one connection on a thread of its own, which receives its work as closures.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use async_trait::async_trait;
use chat_domain::{AppToken, MessageNumber, Position};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{ReplacedFile, ThreadEnded, classify_error};
use super::file::{
    FileLock, open_for_dry_run, open_for_writing, quarantine, quarantine_other_log, remove_database,
};
use super::{commit, load};
use crate::wal_checkpointer::WalCheckpointer;
use chat_files::durable_fs;
use chat_files::file_id::FileId;
use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts};
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::read_model::{
    AppRow, ChatKey, ReadModelChanges, ReadModelError, ReadModelWriter, StoredChat, StoredMessage,
};

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// The read model in a SQLite file, for its projection. A file has one writer at a time, across all processes.
pub struct SqliteReadModelWriter {
    /// `None` only while being dropped.
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    /// The id of the file that was at `path` when it was opened. Another id there shows that the file was replaced.
    file_id: Option<FileId>,
    /// Whether all changes are in one transaction that is never committed.
    is_dry_run: bool,
}

/// The writer's resources beside the connection, in the order of release.
struct WriterResources {
    wal_checkpointer: WalCheckpointer,
    _lock: FileLock,
}

fn unavailable(error: std::io::Error) -> ReadModelError {
    ReadModelError::Unavailable(Box::new(error))
}

impl SqliteReadModelWriter {
    /// Opens the file at `path`, and creates it if it does not exist. Blocks.
    ///
    /// Fails with [`ReadModelError::InUse`] while another writer has it open, with [`ReadModelError::Damaged`] if it is
    /// of another version or unreadable, and with [`ReadModelError::Unavailable`] if it is a database of another
    /// kind, which must not be quarantined.
    pub fn open(path: &Path) -> Result<(Self, StorageOrigin), ReadModelError> {
        let lock = FileLock::acquire_for_writer(path)?;
        let (connection, origin) = open_for_writing(path)?;
        load::checkpoint(&connection).map_err(classify_error)?;
        Ok((Self::start_locked(path, lock, connection)?, origin))
    }

    /// Quarantines the file at `path`, if it exists, as `<name>.damaged-<unix milliseconds>` (and removes the file
    /// quarantined before), and opens a new, empty one. Readers of the old file switch to the new one. Blocks.
    pub fn recreate(path: &Path) -> Result<Self, ReadModelError> {
        let lock = FileLock::acquire_for_writer(path)?;
        quarantine(path)?;
        let (connection, _) = open_for_writing(path)?;
        Self::start_locked(path, lock, connection)
    }

    /// Does the same as [`Self::recreate`] for a stored read model that does not follow from the log. Its file is
    /// quarantined as `<name>.other-log-<unix milliseconds>` and never removed. Blocks.
    pub fn recreate_for_other_log(path: &Path) -> Result<Self, ReadModelError> {
        let lock = FileLock::acquire_for_writer(path)?;
        quarantine_other_log(path)?;
        let (connection, _) = open_for_writing(path)?;
        Self::start_locked(path, lock, connection)
    }

    /// Removes the file at `path`, its WAL, its heartbeats and the file quarantined before, if they exist. Blocks.
    ///
    /// Fails with [`ReadModelError::InUse`] while a writer has it open.
    pub fn remove(path: &Path) -> Result<(), ReadModelError> {
        let lock = FileLock::acquire_for_writer(path)?;
        remove_database(path).map_err(unavailable)?;
        durable_fs::remove_quarantined(path).map_err(unavailable)?;
        drop(lock);
        Ok(())
    }

    /// Opens the file at `path` for a dry run beside its writer: all changes are rolled back on drop, and until then
    /// the writer can't commit. Blocks.
    ///
    /// Fails with [`ReadModelError::Unavailable`] if there is no file, or if a transaction of the writer takes too
    /// long.
    pub fn open_dry_run(path: &Path) -> Result<Self, ReadModelError> {
        let mut writer = Self::start(path, open_for_dry_run(path)?, None)?;
        writer.is_dry_run = true;
        Ok(writer)
    }

    fn start_locked(path: &Path, lock: FileLock, mut connection: Connection) -> Result<Self, ReadModelError> {
        let wal_checkpointer = WalCheckpointer::spawn("read-model-wal", path).map_err(unavailable)?;
        wal_checkpointer.install_wal_hook(&mut connection).map_err(classify_error)?;
        Self::start(path, connection, Some(WriterResources { wal_checkpointer, _lock: lock }))
    }

    fn start(
        path: &Path,
        mut connection: Connection,
        mut resources: Option<WriterResources>,
    ) -> Result<Self, ReadModelError> {
        let file_id = FileId::for_path(path).map_err(unavailable)?;
        let (tasks, queue) = mpsc::channel::<Task>();
        let thread = Builder::new()
            .name("read-model".to_owned())
            .spawn(move || {
                while let Ok(task) = queue.recv() {
                    task(&mut connection);
                    if let Some(WriterResources { wal_checkpointer, .. }) = &mut resources {
                        wal_checkpointer.after_commit(&connection);
                    }
                }
                // The lock is released last, so that the next writer starts after the connections are closed.
                drop(connection);
                drop(resources);
            })
            .map_err(unavailable)?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
            path: path.to_owned(),
            file_id,
            is_dry_run: false,
        })
    }

    /// Runs work on the thread, and waits for the result. The queue has no bound of its own, but each caller waits
    /// for its result before it adds more work.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let ended = || ReadModelError::Unavailable(Box::new(ThreadEnded));
        let (reply_sender, reply) = oneshot::channel();
        let work = Box::new(move |connection: &mut Connection| {
            // The receiver may have been dropped.
            let _ = reply_sender.send(work(connection));
        });
        self.tasks.as_ref().ok_or_else(ended)?.send(work).map_err(|_| ended())?;
        reply.await.map_err(|_| ended())?.map_err(classify_error)
    }
}

impl Drop for SqliteReadModelWriter {
    /// Waits for the work in the queue. Afterwards the file is closed and unlocked.
    fn drop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl ReadModelWriter for SqliteReadModelWriter {
    /// Fails if the file was removed or replaced: no reader would find the commits.
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError> {
        if FileId::for_path(&self.path).map_err(unavailable)? != self.file_id {
            return Err(ReadModelError::Unavailable(Box::new(ReplacedFile(self.path.clone()))));
        }
        self.run(|db| load::checkpoint(db)).await
    }

    async fn blocked_streams(&self) -> Result<Vec<String>, ReadModelError> {
        self.run(|db| load::blocked_streams(db)).await
    }

    async fn dead_letter_counts(&self) -> Result<DeadLetterCounts, ReadModelError> {
        self.run(|db| load::dead_letter_counts(db)).await
    }

    async fn dead_letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError> {
        self.run(move |db| load::dead_letter(db, position)).await
    }

    async fn dead_letters_of_stream(
        &self,
        stream: String,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.run(move |db| load::dead_letters_of_stream(db, &stream, limit)).await
    }

    async fn apps(&self, tokens: Vec<AppToken>) -> Result<Vec<AppRow>, ReadModelError> {
        self.run(move |db| load::apps(db, &tokens)).await
    }

    async fn chats(&self, keys: Vec<ChatKey>) -> Result<Vec<StoredChat>, ReadModelError> {
        self.run(move |db| load::chats(db, &keys)).await
    }

    async fn messages(
        &self,
        keys: Vec<(Position, MessageNumber)>,
    ) -> Result<Vec<StoredMessage>, ReadModelError> {
        self.run(move |db| load::messages(db, &keys)).await
    }

    async fn commit(&self, changes: ReadModelChanges) -> Result<(), ReadModelError> {
        let is_dry_run = self.is_dry_run;
        let write = move |db: &mut Connection| {
            if is_dry_run { commit::apply_changes(db, &changes) } else { commit::commit(db, &changes) }
        };
        let are_applied = self.run(write).await?;
        if are_applied { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }

    async fn adopt_log(&self, from: ProjectionCheckpoint, log: LogId) -> Result<(), ReadModelError> {
        let adopted = self.run(move |db| commit::adopt_log(db, from, log)).await?;
        if adopted { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }
}
