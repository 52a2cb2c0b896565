//! Which replay a bookmark is of: where its events go, and which they are.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::target::Destination;

/// Where events go. What may have secrets in it is kept as its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TargetFingerprint {
    /// A file. The number of its device is left out: it may change when the machine starts anew.
    File {
        /// Without links or dots in it.
        path: String,
        /// Tells it from another one that has taken its name.
        inode: u64,
    },
    /// An endpoint.
    Endpoint {
        /// Of its URL.
        sha256: String,
    },
    /// A program.
    Program {
        /// Of its command line.
        sha256: String,
    },
}

impl TargetFingerprint {
    /// Where a destination is; a file must be there.
    pub(super) fn from_destination(destination: &Destination) -> io::Result<Self> {
        Ok(match destination {
            Destination::File(path) => {
                let path = fs::canonicalize(path)?;
                let inode = fs::metadata(&path)?.ino();
                Self::File { path: path.to_string_lossy().into_owned(), inode }
            }
            Destination::Endpoint(options) => {
                Self::Endpoint { sha256: sha256_hex(&options.url().to_string()) }
            }
            Destination::Program { command, .. } => Self::Program { sha256: sha256_hex(command) },
        })
    }

    /// Of which replay a bookmark with this is, for a sentence.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::File { path, inode } => format!("to the file {path} (inode {inode})"),
            Self::Endpoint { .. } => "to another endpoint".to_owned(),
            Self::Program { .. } => "to another program".to_owned(),
        }
    }
}

/// A text's SHA-256, in hexadecimal digits.
pub(super) fn sha256_hex(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text).iter().fold(String::new(), |mut digits, byte| {
        // A text takes everything.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
