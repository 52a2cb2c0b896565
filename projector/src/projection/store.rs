//! The storage of one generation of a projection.

use std::fmt;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::heartbeat::{Heartbeat, HeartbeatStore, ProjectorRole};
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::projection_contents::ProjectionContents;

use super::Projection;
use super::error::ProjectionError;

/// The storage of one generation of one projection: a SQLite file, a Postgres schema, or a folder of a search index.
///
/// `Display` writes its location, without secrets. The locations of two generations differ, and nothing that happens
/// to one generation changes another.
///
/// # Promises
///
/// - **One writer at a time**, across all processes. The lock ends when the process dies. When the projection is
///   dropped, the lock ends as soon as work in progress (a commit, a merge of index segments) has ended. Until then,
///   [`open`](Self::open), [`recreate`](Self::recreate) and [`remove`](Self::remove) return
///   [`ProjectionError::InUse`] and change nothing. Of several callers that open at once, at most one succeeds and the
///   others get `InUse`.
/// - **Readers work beside the writer.** Each read is of one commit: content, dead letters and position belong
///   together. A commit is visible to each read that begins after it.
/// - **Missing is not damaged.** Reads, and [`open_dry_run`](Self::open_dry_run), return
///   [`ProjectionError::Unavailable`] while nothing is stored, and create nothing.
/// - **Commits are whole.** After a crash or a dropped future, the content is that of the log up to the stored
///   checkpoint. A crash of the machine or of the engine may lose the last commits.
/// - **Every step can be interrupted.** After a crash in [`open`](Self::open) or [`recreate`](Self::recreate), the next
///   `open` finds the earlier projection or creates an empty one. A [`remove`](Self::remove) that was interrupted is
///   completed by the next one.
///
/// The contract suite in `tests/projector/projection_store_contract.rs` checks each implementation against these
/// promises.
#[async_trait]
pub trait ProjectionStore: fmt::Display + fmt::Debug + Send + Sync + 'static {
    /// Returns the projection that is stored here.
    fn projection(&self) -> ProjectionName;

    /// Returns the limits and pauses of batches.
    fn pacing(&self) -> BatchPacing;

    /// Returns the store of the heartbeats of this generation's projectors. A heartbeat that is published while
    /// nothing is stored may be lost.
    fn heartbeats(&self) -> Box<dyn HeartbeatStore>;

    /// Opens the projection for writing, and creates it if nothing is stored. [`ProjectionError::Damaged`] if it can't
    /// be read or has another version; then [`recreate`](Self::recreate) replaces it. Storage of another program is
    /// [`ProjectionError::Unavailable`], and is left as it is.
    async fn open(&self) -> Result<(Box<dyn Projection>, StorageOrigin), ProjectionError>;

    /// Quarantines the stored projection, if there is one, and opens an empty one at the start of the log. Only the
    /// projection that was quarantined last is kept.
    async fn recreate(&self) -> Result<Box<dyn Projection>, ProjectionError>;

    /// Like [`recreate`](Self::recreate), for a stored projection that does not follow from the log. The quarantined
    /// projection is kept for good, beside others: it may be the only place that has some events.
    async fn recreate_for_other_log(&self) -> Result<Box<dyn Projection>, ProjectionError>;

    /// Opens the projection beside its writer to preview operator actions; nothing is stored. In a SQL engine the
    /// writer can't commit until the dry run is dropped.
    async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError>;

    /// Deletes the stored projection, the one that [`recreate`](Self::recreate) has quarantined, and the heartbeats, as
    /// far as they exist.
    async fn remove(&self) -> Result<(), ProjectionError>;

    /// Checks what is stored. [`ProjectionError::Damaged`] if it finds damage that opening did not show. How much it
    /// reads is up to the engine, so success does not prove that everything is readable. Stores whose `open` reads
    /// everything need not implement `verify`. Dropping the future ends the check.
    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(())
    }

    /// Reads the log and the position up to which it is folded.
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ProjectionError>;

    /// Reads the position up to which the log is folded.
    async fn position(&self) -> Result<Position, ProjectionError>;

    /// Reads the number of dead letters that wait for a retry.
    async fn dead_letter_count(&self) -> Result<u64, ProjectionError>;

    /// Reads a page of dead letters, pending and discarded, with the counts of all dead letters of the projection.
    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ProjectionError>;

    /// Reads the whole content in one snapshot, with its position.
    async fn contents(&self) -> Result<(Position, ProjectionContents), ProjectionError>;

    /// Returns the size on disk; `None` if nothing is stored, or if the size is not known.
    async fn size_in_bytes(&self) -> Option<u64>;

    /// Reads the last heartbeat that a projector in this role published, which may be old.
    async fn heartbeat(&self, role: ProjectorRole) -> Option<Heartbeat> {
        self.heartbeats().read(role).await
    }
}
