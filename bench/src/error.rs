//! The errors that end a run without a result.

use thiserror::Error;

use crate::client::ServerError;
use crate::corpus::CorpusError;
use crate::manifest::ManifestError;

/// A failure that prevents a result: exit code 2.
#[derive(Debug, Error)]
pub enum RunError {
    /// The corpus can't be read.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The manifest can't be read or written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The server can't be used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The asynchronous runtime can't be started.
    #[error("can't start the runtime: {0}")]
    Runtime(#[source] std::io::Error),
    /// The machine does not provide a file, a port or a process.
    #[error("{0}")]
    Environment(#[source] std::io::Error),
    /// The result can't be written.
    #[error("can't write the result: {0}")]
    Output(#[source] std::io::Error),
}
