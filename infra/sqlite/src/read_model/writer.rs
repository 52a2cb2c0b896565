//! The writing side: one connection on a thread of its own, work sent to it as closures.

use std::path::Path;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use async_trait::async_trait;
use chat_domain::{AppToken, MessageNumber, Position};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::failure::{ThreadEnded, failure};
use super::file::{WriteLock, move_aside, open_for_writing, open_to_try_out, remove_database};
use super::{commit, load};
use crate::write_ahead;
use crate::write_ahead::WrittenAhead;
use chat_ports::checkpoint::{Checkpoint, Opened};
use chat_ports::dead_letter::{DeadLetter, LetterCounts};
use chat_ports::read_model::{
    AppRow, Changes, ChatKey, ReadModelError, ReadModelWriter, StoredChat, StoredMessage,
};

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// The read model in a SQLite file, for the projection. There is one a file, in whatever process.
pub struct SqliteReadModelWriter {
    /// `None` only while being dropped.
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    /// Whether everything happens in one transaction that is never committed.
    trial: bool,
}

/// What whoever writes the file has of it beside the connection, in the order in which it is let go.
struct Held {
    log: WrittenAhead,
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
    pub fn open(path: &Path) -> Result<(Self, Opened), ReadModelError> {
        let lock = WriteLock::acquire(path)?;
        let (connection, opened) = open_for_writing(path)?;
        load::checkpoint(&connection).map_err(failure)?;
        Ok((Self::start_on(path, lock, connection)?, opened))
    }

    /// Moves the file at `path` aside, where there is one, as `<name>.damaged-<unix milliseconds>` (the one moved there
    /// before is removed), and opens a new and empty one. Readers of the old one turn to the new one. Blocks.
    pub fn open_fresh(path: &Path) -> Result<Self, ReadModelError> {
        let lock = WriteLock::acquire(path)?;
        move_aside(path)?;
        let (connection, _) = open_for_writing(path)?;
        Self::start_on(path, lock, connection)
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
    pub fn try_out(path: &Path) -> Result<Self, ReadModelError> {
        let mut writer = Self::start(open_to_try_out(path)?, None)?;
        writer.trial = true;
        Ok(writer)
    }

    fn start_on(path: &Path, lock: WriteLock, mut connection: Connection) -> Result<Self, ReadModelError> {
        let log = write_ahead::spawn("read-model-wal", path).map_err(unavailable)?;
        log.watch(&mut connection).map_err(failure)?;
        Self::start(connection, Some(Held { log, _lock: lock }))
    }

    fn start(mut connection: Connection, mut held: Option<Held>) -> Result<Self, ReadModelError> {
        let (work, queue) = mpsc::channel::<Work>();
        let thread = Builder::new()
            .name("read-model".to_owned())
            .spawn(move || {
                while let Ok(work) = queue.recv() {
                    work(&mut connection);
                    if let Some(Held { log, .. }) = &mut held {
                        log.committed(&connection);
                    }
                }
                // The lock outlives the connections: the next writer starts after this one's last word.
                drop(connection);
                drop(held);
            })
            .map_err(unavailable)?;
        Ok(Self { work: Some(work), thread: Some(thread), trial: false })
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
        self.work.as_ref().ok_or_else(ended)?.send(work).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?.map_err(failure)
    }
}

impl Drop for SqliteReadModelWriter {
    /// Waits for the commit in progress, milliseconds: afterwards the file is closed and free for the next writer.
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl ReadModelWriter for SqliteReadModelWriter {
    async fn checkpoint(&self) -> Result<Checkpoint, ReadModelError> {
        self.run(|db| load::checkpoint(db)).await
    }

    async fn parked_streams(&self) -> Result<Vec<String>, ReadModelError> {
        self.run(|db| load::parked_streams(db)).await
    }

    async fn letter_counts(&self) -> Result<LetterCounts, ReadModelError> {
        self.run(|db| load::letter_counts(db)).await
    }

    async fn letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError> {
        self.run(move |db| load::letter(db, position)).await
    }

    async fn parked_of(&self, stream: String, limit: usize) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.run(move |db| load::parked_of(db, &stream, limit)).await
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

    async fn commit(&self, changes: Changes) -> Result<(), ReadModelError> {
        let trial = self.trial;
        let write = move |db: &mut Connection| {
            if trial { commit::write(db, &changes) } else { commit::commit(db, &changes) }
        };
        let moved = self.run(write).await?;
        if moved { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }
}
