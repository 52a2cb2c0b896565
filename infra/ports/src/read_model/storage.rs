//! The storage of a read model: where it is, and opening, replacing and removing it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::projection::Generation;

use super::{ReadModel, ReadModelError, ReadModelWriter};
use crate::batch_pacing::BatchPacing;
use crate::heartbeat::HeartbeatStore;
use crate::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};

/// The storage of one generation of the read model, for example a file or a schema.
///
/// `Display` shows the location, without secrets. One writer at a time has the storage open; readers work beside the
/// writer.
#[async_trait]
pub trait ReadModelStorage: fmt::Display + fmt::Debug + Send + Sync + 'static {
    /// Returns the storage of a generation. Generations are stored beside each other. Call this method on the storage
    /// of the first generation only.
    fn for_generation(&self, generation: Generation) -> Arc<dyn ReadModelStorage>;

    /// Lists the stored generations. Call this method on the storage of the first generation only.
    async fn stored_generations(&self) -> Result<Vec<Generation>, ReadModelError>;

    /// Returns how the projector batches the events that it folds into this storage.
    fn pacing(&self) -> BatchPacing;

    /// Returns where the projectors of this generation publish their heartbeats.
    fn heartbeats(&self) -> Box<dyn HeartbeatStore>;

    /// Returns the read model for queries. It need not be created yet.
    fn reader(&self) -> Arc<dyn ReadModel>;

    /// Opens the read model for writing, and creates it where nothing is stored. Adds columns and indexes that earlier
    /// versions of this program did not create. Readers of the earlier versions go on meanwhile; readers of this
    /// version fail with [`ReadModelError::Unavailable`] until the columns are added.
    ///
    /// Fails with [`ReadModelError::InUse`] while another writer has it open, with [`ReadModelError::Damaged`] if it is
    /// unreadable or its tables are of an incompatible version, and with [`ReadModelError::Unavailable`] if it belongs
    /// to another program.
    async fn open(&self) -> Result<(Arc<dyn ReadModelWriter>, StorageOrigin), ReadModelError>;

    /// Quarantines the read model, and opens an empty one. Readers of the old one switch to the new one.
    async fn recreate(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError>;

    /// Does the same as [`recreate`](Self::recreate) for a stored read model that does not follow from the log. Neither
    /// [`remove`](Self::remove) nor a later call deletes the one that is quarantined here.
    async fn recreate_for_other_log(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError>;

    /// Opens the read model for a dry run beside its writer. Dropping the result rolls its changes back; until then the
    /// other writer can't commit.
    async fn open_dry_run(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError>;

    /// Deletes the read model, its heartbeats, and the damaged read model that was quarantined; does nothing where
    /// none is stored. Fails with [`ReadModelError::InUse`] while a writer has it open.
    async fn remove(&self) -> Result<(), ReadModelError>;

    /// Reads the projection checkpoint: which log the read model is folded from, and up to which position.
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError>;

    /// Checks what is stored. Fails with [`ReadModelError::Damaged`] if it finds damage that opening did not show. How
    /// much it reads is up to the engine, so success does not prove that every row is readable. Dropping the future
    /// ends the check.
    async fn verify(&self) -> Result<(), ReadModelError>;

    /// Returns the size on disk; `None` if nothing is stored, or if the size is not known.
    async fn size_in_bytes(&self) -> Option<u64>;

    /// Takes a named lock, which is separate from the writer's lock. Among all processes that use this storage, one
    /// holds the lock at a time. The lock ends when it is dropped, and when its process dies. The read model need not
    /// be created yet. Fails with [`ReadModelError::InUse`] while another holder has the lock.
    async fn lock(&self, name: &'static str) -> Result<Box<dyn StorageLock>, ReadModelError>;
}

/// A named lock of a [`ReadModelStorage`].
#[async_trait]
pub trait StorageLock: Send + Sync {
    /// Whether the lock is still held. A lock that depends on a connection ends with the connection.
    async fn is_held(&self) -> bool;
}
