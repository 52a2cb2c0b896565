//! The log anchor: a small file in the data folder that says how far the log reached.
//!
//! The process that appends rewrites the anchor about every second while the log grows, and at an orderly stop. The
//! anchor holds a position up to which all events are durable. If the folder holds another log later, or the log ends
//! before that position, events were lost.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_ports::event_store::LogId;

use crate::durable_fs::path_with_suffix;

/// The first words of the file, with the version of its format.
const FORMAT: &str = "chat-api log-anchor 1";

/// A position that the log has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogAnchor {
    /// The id of the log.
    pub log: LogId,
    /// The log's events up to this position were durable when the anchor was written.
    pub position: Position,
}

impl LogAnchor {
    /// Returns the path of the anchor in a data folder.
    pub fn path_in(data_dir: &Path) -> PathBuf {
        data_dir.join("log-anchor")
    }

    /// Reads an anchor; `None` if there is none. Fails with [`ErrorKind::InvalidData`] if it is incomplete or altered.
    /// Blocks.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the anchor atomically. Blocks for one sync of a small file.
    ///
    /// The folder is not synced. After a power failure the anchor may be missing, or an earlier anchor may be in its
    /// place, whose position the log has reached too.
    pub fn write(self, path: &Path) -> io::Result<()> {
        // Each process writes a file of its own and then renames it.
        let new = path_with_suffix(path, &format!(".{}", std::process::id()));
        let written = self.write_new(&new).and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            // If the removal fails too, only the earlier error is reported.
            let _ = fs::remove_file(&new);
        }
        written
    }

    fn write_new(self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_data()
    }

    /// Returns the content of the file: one line that ends with a checksum.
    pub fn to_text(self) -> String {
        let text = format!("{FORMAT} {} {}", self.log.0, self.position);
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    /// Parses the content of the file. `None` if it is incomplete or altered.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, checksum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        if checksum != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
            return None;
        }
        let (log, position) = text.strip_prefix(FORMAT)?.strip_prefix(' ')?.split_once(' ')?;
        Some(Self { log: LogId(log.parse().ok()?), position: Position::new(position.parse().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_anchor_is_read_back_and_an_altered_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = LogAnchor::path_in(folder.path());
        assert_eq!(LogAnchor::read(&path).unwrap(), None);
        let anchor = |position| LogAnchor {
            log: LogId("0b8ee0a5-5b1c-4a54-a6b6-8a6f3dbba9bb".parse().unwrap()),
            position: Position::new(position),
        };
        for position in [0, 401] {
            anchor(position).write(&path).unwrap();
            assert_eq!(LogAnchor::read(&path).unwrap(), Some(anchor(position)));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let text = fs::read_to_string(&path).unwrap();
        for altered in ["", &text[..text.len() - 2], &text.replace(" 401 ", " 400 ")] {
            fs::write(&path, altered).unwrap();
            assert_eq!(LogAnchor::read(&path).unwrap_err().kind(), ErrorKind::InvalidData, "{altered:?}");
        }
    }
}
