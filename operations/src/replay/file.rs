//! Replaying to a file of lines.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use chat_domain::Position;

use super::batch::{Batch, Size};
use super::bookmark::Bookmark;
use super::target::{Settled, Target};
use super::{ReplayError, Stop, Tell};

/// The file. What was written after the last bookmark is cut off when it is opened again with it.
pub(super) struct LinesFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    events: u64,
    up_to: Position,
}

impl LinesFile {
    pub(super) fn open(path: &Path, read: Option<&Bookmark>, after: Position) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::File { path: path.to_owned(), source };
        let other = |reason| ReplayError::NotTheFile { path: path.to_owned(), reason };
        let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let bytes = match read.map(|read| read.bytes) {
            None => length,
            Some(None) => return Err(other("the checkpoint is of a replay that did not go to a file")),
            Some(Some(bytes)) if bytes > length => {
                return Err(other("the file is shorter than when the checkpoint was written"));
            }
            Some(Some(bytes)) => bytes,
        };
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(bytes - 1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
            if last != [b'\n'] {
                return Err(other("the file does not end with a whole line"));
            }
        }
        file.set_len(bytes).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, bytes, events: 0, up_to: after })
    }
}

#[async_trait]
impl Target for LinesFile {
    fn size(&self) -> Size {
        Size { events: u64::MAX, bytes: 256 << 10 }
    }

    async fn deliver(
        &mut self,
        batch: &Batch,
        _stop: &mut Stop,
        _tell: Tell<'_>,
    ) -> Result<bool, ReplayError> {
        self.file
            .write_all(&batch.lines)
            .map_err(|source| ReplayError::File { path: self.path.clone(), source })?;
        self.bytes += batch.lines.len() as u64;
        self.events += batch.events;
        self.up_to = batch.up_to;
        Ok(true)
    }

    async fn settle(&mut self) -> Result<Settled, ReplayError> {
        self.file.sync_data().map_err(|source| ReplayError::File { path: self.path.clone(), source })?;
        Ok(Settled { position: self.up_to, events: self.events, bytes: Some(self.bytes) })
    }

    async fn finish(&mut self) -> Result<Settled, ReplayError> {
        self.settle().await
    }
}
