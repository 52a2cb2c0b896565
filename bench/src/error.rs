//! The errors that end a run before it is complete.

use thiserror::Error;

use crate::client::ServerError;
use crate::corpus::CorpusError;
use crate::manifest::ManifestError;

/// A failure that ends a run before it is complete: exit code 2.
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
    /// A comparison can't start or go on, for example because of a missing file, a failed server or Ctrl-C.
    #[error("{0}")]
    Environment(#[source] std::io::Error),
    /// The result can't be written.
    #[error("can't write the result: {0}")]
    Output(#[source] std::io::Error),
}
