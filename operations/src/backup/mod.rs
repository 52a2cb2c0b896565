//! Backups of an embedded log.
//!
//! A backup is a folder with a copy of the log's file and a [`Manifest`]. The log is the only data that can't be
//! derived: operator actions, discards and the outcomes of idempotency keys are events in it.
//!
//! [`create`] writes the manifest last, after the copy was opened and compared with the log, so that a folder with a
//! manifest is a complete backup. A [`RestorePlan`] compares a backup with its manifest and puts the log in place where
//! there is none. [`compare()`] compares a log with a backup of it. [`find_backup`] recognizes a log that is part of a
//! backup, so that no program writes to it.

mod blocking;
mod check;
mod compare;
mod create;
mod error;
mod files;
mod leftovers;
mod manifest;
mod restore;

pub use check::AcceptedCopy;
pub use compare::{BackupComparison, compare};
pub use create::create;
pub use error::BackupError;
pub use leftovers::{FileLeftover, Leftover, LeftoverError};
pub use manifest::{BackupFile, Manifest, find_backup};
pub use restore::{MovedLeftover, RestorePlan, Restored};
