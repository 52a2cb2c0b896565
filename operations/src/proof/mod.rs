//! Integrity proofs: signed checkpoints of the log, verification of the log against them, and proofs for single events.
//!
//! The leaves of a Merkle tree are the stored events ([`leaf`]), the tree is that of RFC 9162 ([`tree`],
//! [`inclusion`]), and its root is signed with a [`key`], in the format of C2SP signed notes ([`note`]). A
//! [`checkpoint`] states the content of the log at a time. [`verify`] checks whether the log still has that content,
//! and finds the first event that differs ([`alteration`]); for that, the hashes of all leaves are stored beside the
//! checkpoint ([`leaves_file`]). An [`event_proof`] is checked without the log.
//!
//! An operation that reads the whole log reads it from its start, event by event, in bounded memory.

pub mod alteration;
pub mod checkpoint;
pub mod event_proof;
pub mod first_difference;
pub mod inclusion;
pub mod key;
pub mod leaf;
pub mod leaves_file;
pub mod log_integrity;
pub mod log_root;
mod log_walk;
pub mod note;
pub mod tree;
pub mod verify;

use std::io;
use std::path::{Path, PathBuf};

use chat_ports::event_store::EventStoreError;
use thiserror::Error;

/// Receives the number of events that a pass over the log has read so far.
pub type ProgressCallback<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Why a signature, check or proof failed.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The log could not be read.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// A file could not be read or written.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
    /// A file has another format than expected.
    #[error("{0}")]
    Malformed(&'static str),
    /// The key could not be generated or parsed.
    #[error("{0}")]
    Key(&'static str),
    /// There is no event at the position, the checkpoint ends before the position, or the log differs from the
    /// checkpoint.
    #[error("{0}")]
    NotProvable(&'static str),
}

impl ProofError {
    /// Returns a function that wraps an I/O error with the path of its file.
    fn file_error(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
