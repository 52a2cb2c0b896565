//! Replaying to a file, one event per line.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use chat_domain::Position;
use serde::Deserialize;

use super::batch::{BatchLimits, ReplayBatch};
use super::error::ReplayError;
use super::stop_signal::{StatusCallback, StopSignal};
use super::target::{DeliveryProgress, ReplayTarget};

/// The state of the file as a replay checkpoint recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResumeFrom {
    /// The length of the file; `None` if the checkpoint does not have it.
    pub(super) bytes: Option<u64>,
    /// Whether the run that wrote the checkpoint ended normally. Then it wrote nothing to the file after `bytes`.
    pub(super) ended_normally: bool,
}

/// The file, locked for one replay. Lines that an interrupted replay wrote after its last checkpoint are cut off.
pub(super) struct LinesFile {
    path: PathBuf,
    file: File,
    /// The length of the file.
    bytes: u64,
    /// The number of events written in this run.
    events: u64,
    up_to: Position,
}

impl LinesFile {
    pub(super) fn open(
        path: &Path,
        resume_from: Option<ResumeFrom>,
        after: Position,
    ) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::File { path: path.to_owned(), source };
        let mismatch = |reason| ReplayError::FileMismatch { path: path.to_owned(), reason };
        let mut options = File::options();
        // A new file is readable by the owner only: events contain people's messages. A resumed file must exist.
        options.read(true).write(true).create(resume_from.is_none()).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => return Err(mismatch("another replay is writing to it")),
        }
        let length = file.metadata().map_err(failed)?.len();
        let bytes = match resume_from {
            None => length,
            Some(ResumeFrom { bytes: None, .. }) => {
                return Err(mismatch("the checkpoint does not say how long the file was"));
            }
            Some(ResumeFrom { bytes: Some(bytes), .. }) if bytes > length => {
                return Err(mismatch("the file is shorter than when the checkpoint was written"));
            }
            Some(ResumeFrom { bytes: Some(bytes), ended_normally: true }) if bytes < length => {
                return Err(mismatch(
                    "something else has added to the file since the checkpoint was written",
                ));
            }
            Some(ResumeFrom { bytes: Some(bytes), .. }) => bytes,
        };
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(bytes - 1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
            if last != [b'\n'] {
                return Err(mismatch("the file does not end with a whole line"));
            }
        }
        if bytes < length {
            file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
            if !continues_after(after, &file).map_err(failed)? {
                return Err(mismatch(
                    "after the checkpoint's position, it has lines that this replay did not write",
                ));
            }
            file.set_len(bytes).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, bytes, events: 0, up_to: after })
    }
}

/// Reads the file from its current offset. Returns whether all lines there are events with rising positions after
/// `after`, as an interrupted replay writes them. The last line may be incomplete.
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
        _on_status: StatusCallback<'_>,
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
