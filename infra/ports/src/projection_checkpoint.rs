//! Projection checkpoints: the position up to which a projection has folded the log.

use chat_domain::Position;

use crate::event_store::LogId;

/// The position up to which a projection has folded the log. Stored in the projection itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectionCheckpoint {
    /// The log that was folded; `None` for a new projection.
    pub log: Option<LogId>,
    /// All events up to this position are folded in.
    pub position: Position,
}

/// Whether a projection's storage existed when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageOrigin {
    /// The storage existed.
    Existing,
    /// The storage was created, and is empty.
    Created,
}
