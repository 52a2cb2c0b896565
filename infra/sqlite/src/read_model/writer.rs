//! The writing side: one connection on a thread of its own, work sent to it as closures.

use std::path::Path;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use async_trait::async_trait;
use chat_domain::{AppToken, MessageNumber, Position};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{ThreadEnded, classify_error};
use super::file::{WriteLock, open_for_dry_run, open_for_writing, quarantine, remove_database};
use super::{commit, load};
use crate::wal_checkpointer;
use crate::wal_checkpointer::WalCheckpointer;
use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts};
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::read_model::{
    AppRow, ChatKey, ReadModelChanges, ReadModelError, ReadModelWriter, StoredChat, StoredMessage,
};

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// The read model in a SQLite file, for the projection. There is one a file, in whatever process.
pub struct SqliteReadModelWriter {
    /// `None` only while being dropped.
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    /// Whether everything happens in one transaction that is never committed.
    is_dry_run: bool,
}

/// What whoever writes the file has of it beside the connection, in the order in which it is let go.
struct WriterResources {
    wal_checkpointer: WalCheckpointer,
    _lock: WriteLock,
}

fn unavailable(error: std::io::Error) -> ReadModelError {
    ReadModelError::Unavailable(Box::new(error))
}

impl SqliteReadModelWriter {
    /// Opens the file at `path`, and creates it where there is none. Blocks.
    ///
    /// [`ReadModelError::InUse`] while another writer has it; [`ReadModelError::Damaged`] where it is of another version
    /// or can't be read; [`ReadModelError::Unavailable`] where it is a sound database of something else, which is no
    /// reason to move it.
    pub fn open(path: &Path) -> Result<(Self, StorageOrigin), ReadModelError> {
        let lock = WriteLock::acquire(path)?;
        let (connection, opened) = open_for_writing(path)?;
        load::checkpoint(&connection).map_err(classify_error)?;
        Ok((Self::start_locked(path, lock, connection)?, opened))
    }

    /// Moves the file at `path` aside, where there is one, as `<name>.damaged-<unix milliseconds>` (the one moved there
    /// before is removed), and opens a new and empty one. Readers of the old one turn to the new one. Blocks.
    pub fn recreate(path: &Path) -> Result<Self, ReadModelError> {
        let lock = WriteLock::acquire(path)?;
        quarantine(path)?;
        let (connection, _) = open_for_writing(path)?;
        Self::start_locked(path, lock, connection)
    }

    /// Removes the file at `path` and what belongs to it. Nothing happens where there is none. Blocks.
    ///
    /// [`ReadModelError::InUse`] while a writer has it.
    pub fn remove(path: &Path) -> Result<(), ReadModelError> {
        let lock = WriteLock::acquire(path)?;
        remove_database(path).map_err(unavailable)?;
        drop(lock);
        Ok(())
    }

    /// Opens the file at `path` beside whoever writes it, to find out what changes would come to: all that is committed
    /// here is undone when this is dropped, and until then nobody else can commit. Blocks.
    ///
    /// [`ReadModelError::Unavailable`] where there is no file, or the other writer is busy for longer than a moment.
    pub fn open_dry_run(path: &Path) -> Result<Self, ReadModelError> {
        let mut writer = Self::start(open_for_dry_run(path)?, None)?;
        writer.is_dry_run = true;
        Ok(writer)
    }

    fn start_locked(
        path: &Path,
        lock: WriteLock,
        mut connection: Connection,
    ) -> Result<Self, ReadModelError> {
        let log = wal_checkpointer::spawn("read-model-wal", path).map_err(unavailable)?;
        log.install_wal_hook(&mut connection).map_err(classify_error)?;
        Self::start(connection, Some(WriterResources { wal_checkpointer: log, _lock: lock }))
    }

    fn start(mut connection: Connection, mut held: Option<WriterResources>) -> Result<Self, ReadModelError> {
        let (work, queue) = mpsc::channel::<Task>();
        let thread = Builder::new()
            .name("read-model".to_owned())
            .spawn(move || {
                while let Ok(work) = queue.recv() {
                    work(&mut connection);
                    if let Some(WriterResources { wal_checkpointer: log, .. }) = &mut held {
                        log.after_commit(&connection);
                    }
                }
                // The lock outlives the connections: the next writer starts after this one's last word.
                drop(connection);
                drop(held);
            })
            .map_err(unavailable)?;
        Ok(Self { tasks: Some(work), thread: Some(thread), is_dry_run: false })
    }

    /// Work is bounded by its callers: each waits for its answer.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let ended = || ReadModelError::Unavailable(Box::new(ThreadEnded));
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move |connection: &mut Connection| {
            // A caller that gave up does not read it.
            let _ = answer.send(work(connection));
        });
        self.tasks.as_ref().ok_or_else(ended)?.send(work).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?.map_err(classify_error)
    }
}

impl Drop for SqliteReadModelWriter {
    /// Waits for the commit in progress, milliseconds: afterwards the file is closed and free for the next writer.
    fn drop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl ReadModelWriter for SqliteReadModelWriter {
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError> {
        self.run(|db| load::checkpoint(db)).await
    }

    async fn blocked_streams(&self) -> Result<Vec<String>, ReadModelError> {
        self.run(|db| load::blocked_streams(db)).await
    }

    async fn dead_letter_counts(&self) -> Result<DeadLetterCounts, ReadModelError> {
        self.run(|db| load::dead_letter_counts(db)).await
    }

    async fn letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError> {
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
        let trial = self.is_dry_run;
        let write = move |db: &mut Connection| {
            if trial { commit::apply_changes(db, &changes) } else { commit::commit(db, &changes) }
        };
        let moved = self.run(write).await?;
        if moved { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }
}
