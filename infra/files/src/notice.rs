//! Notices in files beside a file or folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use chat_ports::notice::{Capacity, Notice};

use crate::durable_folder::beside;

/// Notices in files beside a file or folder: `read-model.db.keeper.json`.
#[derive(Clone, Debug)]
pub struct FileNotices {
    beside: PathBuf,
}

impl FileNotices {
    /// Those beside a file or folder.
    pub fn beside(path: impl Into<PathBuf>) -> Self {
        Self { beside: path.into() }
    }

    /// Puts a notice up in place of the one before. Blocks.
    pub fn post(&self, capacity: Capacity, notice: &Notice) -> io::Result<()> {
        let path = self.path(capacity, "");
        // Each process writes a file of its own and then renames it: a reader never meets half a notice.
        let new = self.path(capacity, &format!(".{}", std::process::id()));
        fs::write(&new, serde_json::to_vec(notice)?)?;
        fs::rename(new, path)
    }

    /// Takes a notice down. Blocks.
    pub fn take_down(&self, capacity: Capacity) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.path(capacity, "")))
    }

    /// The notice that is up, if there is one that can be read. Blocks.
    pub fn read(&self, capacity: Capacity) -> Option<Notice> {
        serde_json::from_slice(&fs::read(self.path(capacity, "")).ok()?).ok()
    }

    fn path(&self, capacity: Capacity, suffix: &str) -> PathBuf {
        beside(&self.beside, &format!(".{}.json{suffix}", capacity.as_str()))
    }
}

/// Takes down all notices beside a path that is being removed.
pub fn clear(path: &Path) -> io::Result<()> {
    let notices = FileNotices::beside(path);
    Capacity::ALL.into_iter().try_for_each(|capacity| notices.take_down(capacity))
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_domain::{Position, Timestamp};

    fn notice(at: i64) -> Notice {
        Notice {
            at: Timestamp::from_millis(at),
            state: "live".to_owned(),
            position: Position::new(7),
            events_per_second: 3,
            last_error: None,
        }
    }

    #[test]
    fn the_last_notice_of_each_capacity_is_up_until_it_is_taken_down() {
        let folder = tempfile::tempdir().unwrap();
        let notices = FileNotices::beside(folder.path().join("data.db"));
        assert_eq!(notices.read(Capacity::Keeper), None);
        notices.post(Capacity::Keeper, &notice(1)).unwrap();
        notices.post(Capacity::Keeper, &notice(2)).unwrap();
        notices.post(Capacity::StandBy, &notice(3)).unwrap();
        assert_eq!(notices.read(Capacity::Keeper), Some(notice(2)));
        notices.take_down(Capacity::Keeper).unwrap();
        notices.take_down(Capacity::Keeper).unwrap();
        assert_eq!(notices.read(Capacity::Keeper), None);
        assert_eq!(notices.read(Capacity::StandBy), Some(notice(3)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
