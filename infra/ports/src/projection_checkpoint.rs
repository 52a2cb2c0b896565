//! Where a projection stands in the log.

use chat_domain::Position;

use crate::event_store::LogId;

/// How far a projection has folded the log, kept by the projection with what it folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectionCheckpoint {
    /// The log that was folded; `None` where nothing was yet.
    pub log: Option<LogId>,
    /// Everything up to here is folded in.
    pub position: Position,
}

/// What opening a projection's storage found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageOrigin {
    /// What an earlier run left.
    Existing,
    /// Nothing; it was created, and is empty.
    Created,
}
