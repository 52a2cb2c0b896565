//! The target fingerprint: ties a replay checkpoint to the destination it was written for.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::destination::Destination;

/// Identifies a destination. URLs and command lines may contain secrets, so only their SHA-256 is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TargetFingerprint {
    /// A file. The device number is left out because it may change at a reboot.
    File {
        /// The canonical path.
        path: String,
        /// The inode, which distinguishes the file from a later one with the same path.
        inode: u64,
    },
    /// An endpoint.
    Endpoint {
        /// The SHA-256 of its URL.
        sha256: String,
    },
    /// A program.
    Program {
        /// The SHA-256 of its command line.
        sha256: String,
    },
}

impl TargetFingerprint {
    /// Computes the fingerprint of a destination. Fails if the destination is a file that does not exist.
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

    /// Describes the destination of another replay, to follow the words "it belongs to a replay".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::File { path, inode } => format!("to the file {path} (inode {inode})"),
            Self::Endpoint { .. } => "to another endpoint".to_owned(),
            Self::Program { .. } => "to another program".to_owned(),
        }
    }
}

/// The SHA-256 of a text in hexadecimal digits.
pub(super) fn sha256_hex(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text).iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
