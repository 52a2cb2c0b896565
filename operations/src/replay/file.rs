//! Replaying to a file of lines.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use chat_domain::Position;
use serde::Deserialize;

use super::batch::{BatchLimits, ReplayBatch};
use super::checkpoint::ReplayCheckpoint;
use super::target::{DeliveryProgress, ReplayTarget};
use super::{ReplayError, StatusCallback, StopSignal};

/// The file, kept for one replay by a lock. What an interrupted replay wrote to it after its last bookmark is cut off.
pub(super) struct LinesFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    events: u64,
    up_to: Position,
}

impl LinesFile {
    pub(super) fn open(
        path: &Path,
        read: Option<&ReplayCheckpoint>,
        after: Position,
    ) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::File { path: path.to_owned(), source };
        let other = |reason| ReplayError::FileMismatch { path: path.to_owned(), reason };
        let mut options = File::options();
        // What is in events are messages of people. One that a bookmark knows is there.
        options.read(true).write(true).create(read.is_none()).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => return Err(other("another replay is writing to it")),
        }
        let length = file.metadata().map_err(failed)?.len();
        let bytes = match read.map(|read| (read.bytes, read.closed)) {
            None => length,
            Some((None, _)) => return Err(other("the checkpoint does not say how long the file was")),
            Some((Some(bytes), _)) if bytes > length => {
                return Err(other("the file is shorter than when the checkpoint was written"));
            }
            Some((Some(bytes), true)) if bytes < length => {
                return Err(other("something else has added to the file since the checkpoint was written"));
            }
            Some((Some(bytes), _)) => bytes,
        };
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(bytes - 1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
            if last != [b'\n'] {
                return Err(other("the file does not end with a whole line"));
            }
        }
        if bytes < length {
            file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
            if !continues_after(after, &file).map_err(failed)? {
                return Err(other(
                    "after what the checkpoint knows, it has lines that this replay did not write",
                ));
            }
            file.set_len(bytes).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, bytes, events: 0, up_to: after })
    }
}

/// Whether these are lines of a replay that goes on after a position; the last one may be cut short.
fn continues_after(mut after: Position, lines: &File) -> io::Result<bool> {
    #[derive(Deserialize)]
    struct Line {
        position: Position,
    }
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        match serde_json::from_slice::<Line>(&line) {
            Ok(Line { position }) if position > after => after = position,
            _ => return Ok(false),
        }
        line.clear();
    }
    Ok(true)
}

#[async_trait]
impl ReplayTarget for LinesFile {
    fn batch_limits(&self) -> BatchLimits {
        BatchLimits { max_events: u64::MAX, max_bytes: 256 << 10 }
    }

    async fn deliver(
        &mut self,
        batch: &ReplayBatch,
        _stop: &mut StopSignal,
        _tell: StatusCallback<'_>,
    ) -> Result<bool, ReplayError> {
        self.file
            .write_all(&batch.lines)
            .map_err(|source| ReplayError::File { path: self.path.clone(), source })?;
        self.bytes += batch.lines.len() as u64;
        self.events += batch.events;
        self.up_to = batch.up_to;
        Ok(true)
    }

    async fn flush(&mut self) -> Result<DeliveryProgress, ReplayError> {
        self.file.sync_data().map_err(|source| ReplayError::File { path: self.path.clone(), source })?;
        Ok(DeliveryProgress { position: self.up_to, events: self.events, bytes: Some(self.bytes) })
    }

    async fn finish(&mut self) -> Result<DeliveryProgress, ReplayError> {
        self.flush().await
    }
}
