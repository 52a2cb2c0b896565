//! The time of the last backup of a log, in a small file beside it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use chat_domain::Timestamp;

use crate::durable_fs::path_with_suffix;
use crate::ownership::give_to_owner_of;

/// The first words of the file, with the version of its format.
const FORMAT: &str = "chat-api last-backup 1";

/// Returns the path of the file beside a log.
pub fn path(log: &Path) -> PathBuf {
    path_with_suffix(log, ".last-backup")
}

/// Records when a verified backup of a log was begun. A file that root writes is given to the owner of the log. Blocks.
pub fn record(log: &Path, began_at: Timestamp) -> io::Result<()> {
    let path = path(log);
    // Each process writes a file of its own and then renames it.
    let new = path_with_suffix(&path, &format!(".{}", std::process::id()));
    fs::write(&new, format!("{FORMAT} {}\n", began_at.millis()))?;
    let recorded = give_to_owner_of(log, &new).and_then(|()| fs::rename(&new, &path));
    if recorded.is_err() {
        // If the removal fails too, only the earlier error is reported.
        let _ = fs::remove_file(&new);
    }
    recorded
}

/// Reads when the last backup of a log was begun; `None` if none is recorded. Blocks.
pub fn read(log: &Path) -> io::Result<Option<Timestamp>> {
    let text = match fs::read_to_string(path(log)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let millis = text.strip_prefix(FORMAT).and_then(|millis| millis.trim().parse().ok());
    millis.map(|millis| Some(Timestamp::from_millis(millis))).ok_or_else(|| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_backup_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("events.db");
        fs::write(&log, "").unwrap();
        assert_eq!(read(&log).unwrap(), None);
        for millis in [1_700_000_000_000, 1_800_000_000_001] {
            record(&log, Timestamp::from_millis(millis)).unwrap();
            assert_eq!(read(&log).unwrap(), Some(Timestamp::from_millis(millis)));
        }
        fs::write(path(&log), "something else").unwrap();
        assert_eq!(read(&log).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
