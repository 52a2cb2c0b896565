//! The leaves file: the hashes of all leaves, stored beside a checkpoint to find alterations.
//!
//! The file has 40 bytes for each event, in the order of the log: the event's position (8 bytes, big-endian) and its
//! leaf hash. The checkpoint contains the SHA-256 of the file. The root of the tree of these hashes is the checkpoint's
//! root.

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

/// The path of the leaves file of a checkpoint.
pub fn leaves_path(checkpoint: &Path) -> PathBuf {
    path_with_suffix(checkpoint, ".leaves")
}

/// A record of the leaves file: an event's position and leaf hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafRecord {
    /// The position of the event.
    pub position: Position,
    /// Its leaf hash.
    pub hash: Hash,
}

/// Writes leaves, and hashes the written bytes.
#[derive(Debug)]
pub struct LeavesWriter<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> LeavesWriter<W> {
    /// Creates a writer that writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// Writes the next leaf.
    pub fn push(&mut self, leaf: LeafRecord) -> io::Result<()> {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&leaf.position.get().to_be_bytes());
        record[8..].copy_from_slice(&leaf.hash.0);
        self.hasher.update(record);
        self.inner.write_all(&record)
    }

    /// Returns the underlying writer and the SHA-256 of everything written.
    pub fn finish(self) -> (W, Hash) {
        (self.inner, Hash(self.hasher.finalize().into()))
    }
}

/// Reads leaves in order.
#[derive(Debug)]
pub struct LeavesReader {
    path: PathBuf,
    file: BufReader<File>,
}

/// The status of a leaves file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeavesStatus {
    /// The file matches the checkpoint.
    Good,
    /// The file does not exist.
    Missing,
    /// The file does not match the checkpoint.
    Altered,
}

impl LeavesReader {
    /// Opens a leaves file.
    pub fn open(path: &Path) -> Result<Self, ProofError> {
        let file = File::open(path).map_err(ProofError::file_error(path))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(64 << 10, file) })
    }

    /// Reads the next leaf; `None` at the end, and before an incomplete record.
    pub fn read(&mut self) -> Result<Option<LeafRecord>, ProofError> {
        let mut record = [0; RECORD_BYTES];
        match self.file.read_exact(&mut record) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(ProofError::file_error(&self.path)(error)),
        }
        let (mut position, mut hash) = ([0; 8], [0; 32]);
        position.copy_from_slice(&record[..8]);
        hash.copy_from_slice(&record[8..]);
        let position = Position::new(u64::from_be_bytes(position));
        Ok(Some(LeafRecord { position, hash: Hash(hash) }))
    }

    /// Checks whether the leaves file at `path` matches a checkpoint.
    pub fn check(path: &Path, checkpoint: &Checkpoint) -> Result<LeavesStatus, ProofError> {
        let mut leaves = match Self::open(path) {
            Ok(leaves) => leaves,
            Err(ProofError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(LeavesStatus::Missing);
            }
            Err(error) => return Err(error),
        };
        // Writes nothing: this writer is used only to hash the bytes.
        let (mut tree, mut hashing_writer) = (Frontier::default(), LeavesWriter::new(io::sink()));
        while let Some(leaf) = leaves.read()? {
            tree.push(leaf.hash);
            hashing_writer.push(leaf).map_err(ProofError::file_error(path))?;
        }
        let (_, hash) = hashing_writer.finish();
        let size = leaves.file.get_ref().metadata().map_err(ProofError::file_error(path))?.len();
        let matches = hash == checkpoint.leaves
            && tree.root() == checkpoint.root
            && tree.leaf_count() == checkpoint.events
            && size == checkpoint.events.saturating_mul(RECORD_BYTES as u64);
        Ok(if matches { LeavesStatus::Good } else { LeavesStatus::Altered })
    }
}
