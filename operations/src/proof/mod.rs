//! Proofs that the log was not altered: signed statements about it, what they are checked against, and proofs that a
//! single event was there.
//!
//! The leaves of a Merkle tree are the stored events ([`leaf`]), the tree is that of RFC 9162 ([`tree`],
//! [`inclusion`]), and its root is signed ([`key`], [`note`], [`checkpoint`]). A checkpoint says that the log was so and
//! so at some time; [`verify`] tells whether it still is, and names the first event that is not ([`alteration`]). The
//! hashes of all leaves are kept beside the checkpoint for that ([`leaves`]). [`bundle`] is a proof for one event, which
//! is checked without the log.
//!
//! All of it reads the log once from its start, event by event, and keeps little of it.

pub mod alteration;
pub mod checkpoint;
pub mod event_proof;
pub mod inclusion;
pub mod key;
pub mod leaf;
pub mod leaves_file;
pub mod log_integrity;
mod log_walk;
pub mod note;
pub mod tree;
pub mod verify;

use std::io;
use std::path::{Path, PathBuf};

use chat_ports::event_store::EventStoreError;
use thiserror::Error;

/// Told of each so many events how many have been read: for whoever waits.
pub type ProgressCallback<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Why something could not be signed, checked or proved.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The log could not be read.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// A file could not be read or written.
    #[error("{}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was to be read is something else.
    #[error("{0}")]
    Malformed(&'static str),
    /// The key could not be made or used.
    #[error("{0}")]
    Key(&'static str),
    /// The position has no event, or none that the checkpoint speaks of.
    #[error("{0}")]
    NotProvable(&'static str),
}

impl ProofError {
    /// Names the file that an operation failed on.
    fn file_error(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
