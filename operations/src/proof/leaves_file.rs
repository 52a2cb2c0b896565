//! The file with the hashes of all leaves, kept beside a checkpoint so that what was altered can be named.
//!
//! 40 bytes for each event, in the order of the log: its position (8 bytes, the highest first) and its leaf's hash. The
//! checkpoint holds the file's SHA-256, and the tree over its hashes has the checkpoint's root.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_files::durable_fs::path_with_suffix;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ProofError;
use super::checkpoint::Checkpoint;
use super::tree::{Frontier, Hash};

const RECORD_BYTES: usize = 40;

/// Where the leaves of a checkpoint's file are.
pub fn leaves_path(checkpoint: &Path) -> PathBuf {
    path_with_suffix(checkpoint, ".leaves")
}

/// An event as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where the event stood.
    pub position: Position,
    /// Its leaf's hash.
    pub hash: Hash,
}

/// Writes leaves, and hashes what it writes.
#[derive(Debug)]
pub struct LeavesWriter<W> {
    to: W,
    hasher: Sha256,
}

impl<W: Write> LeavesWriter<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self { to, hasher: Sha256::new() }
    }

    /// Writes the next leaf.
    pub fn push(&mut self, leaf: Leaf) -> io::Result<()> {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&leaf.position.get().to_be_bytes());
        record[8..].copy_from_slice(&leaf.hash.0);
        self.hasher.update(record);
        self.to.write_all(&record)
    }

    /// What was written to, and the hash of all of it.
    pub fn finish(self) -> (W, Hash) {
        (self.to, Hash(self.hasher.finalize().into()))
    }
}

/// Reads leaves, the first one first.
#[derive(Debug)]
pub struct LeavesReader {
    path: PathBuf,
    from: BufReader<File>,
}

/// Whether there are leaves to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeavesStatus {
    /// They are those that the checkpoint was made of.
    Good,
    /// There is no such file.
    Missing,
    /// The file is not the one that the checkpoint was made with.
    Altered,
}

impl LeavesReader {
    /// Opens a checkpoint's leaves.
    pub fn open(path: &Path) -> Result<Self, ProofError> {
        let file = File::open(path).map_err(ProofError::file_error(path))?;
        Ok(Self { path: path.to_owned(), from: BufReader::with_capacity(64 << 10, file) })
    }

    /// The next leaf; `None` at the end.
    pub fn read(&mut self) -> Result<Option<Leaf>, ProofError> {
        let mut record = [0; RECORD_BYTES];
        match self.from.read_exact(&mut record) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(ProofError::file_error(&self.path)(error)),
        }
        let (mut position, mut hash) = ([0; 8], [0; 32]);
        position.copy_from_slice(&record[..8]);
        hash.copy_from_slice(&record[8..]);
        let position = Position::new(u64::from_be_bytes(position));
        Ok(Some(Leaf { position, hash: Hash(hash) }))
    }

    /// Whether the file at `path` is the one that a checkpoint was made with.
    pub fn check(path: &Path, checkpoint: &Checkpoint) -> Result<LeavesStatus, ProofError> {
        let mut leaves = match Self::open(path) {
            Ok(leaves) => leaves,
            Err(ProofError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(LeavesStatus::Missing);
            }
            Err(error) => return Err(error),
        };
        let (mut tree, mut written) = (Frontier::default(), LeavesWriter::new(io::sink()));
        while let Some(leaf) = leaves.read()? {
            tree.push(leaf.hash);
            written.push(leaf).map_err(ProofError::file_error(path))?;
        }
        let (_, hash) = written.finish();
        let size = leaves.from.get_ref().metadata().map_err(ProofError::file_error(path))?.len();
        let good = hash == checkpoint.leaves
            && tree.root() == checkpoint.root
            && tree.leaves() == checkpoint.events
            && size == checkpoint.events.saturating_mul(RECORD_BYTES as u64);
        Ok(if good { LeavesStatus::Good } else { LeavesStatus::Altered })
    }
}
