//! Notices in files beside a file or folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use chat_ports::heartbeat::{Heartbeat, ProjectorRole};

use crate::durable_fs::path_with_suffix;

/// Notices in files beside a file or folder: `read-model.db.keeper.json`.
#[derive(Clone, Debug)]
pub struct FileHeartbeats {
    path: PathBuf,
}

impl FileHeartbeats {
    /// Those beside a file or folder.
    pub fn for_path(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Puts a notice up in place of the one before. Blocks.
    pub fn post(&self, role: ProjectorRole, heartbeat: &Heartbeat) -> io::Result<()> {
        let path = self.heartbeat_path(role, "");
        // Each process writes a file of its own and then renames it: a reader never meets half a notice.
        let new = self.heartbeat_path(role, &format!(".{}", std::process::id()));
        fs::write(&new, serde_json::to_vec(heartbeat)?)?;
        fs::rename(new, path)
    }

    /// Takes a notice down. Blocks.
    pub fn remove(&self, role: ProjectorRole) -> io::Result<()> {
        ignore_not_found(fs::remove_file(self.heartbeat_path(role, "")))
    }

    /// The notice that is up, if there is one that can be read. Blocks.
    pub fn read(&self, role: ProjectorRole) -> Option<Heartbeat> {
        serde_json::from_slice(&fs::read(self.heartbeat_path(role, "")).ok()?).ok()
    }

    fn heartbeat_path(&self, role: ProjectorRole, suffix: &str) -> PathBuf {
        path_with_suffix(&self.path, &format!(".{}.json{suffix}", role.as_str()))
    }
}

/// Takes down all notices beside a path that is being removed.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let heartbeats = FileHeartbeats::for_path(path);
    ProjectorRole::ALL.into_iter().try_for_each(|role| heartbeats.remove(role))
}

fn ignore_not_found(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_domain::{Position, Timestamp};

    fn notice(at: i64) -> Heartbeat {
        Heartbeat {
            at: Timestamp::from_millis(at),
            state: "live".to_owned(),
            position: Position::new(7),
            events_per_second: 3,
            last_error: None,
        }
    }

    #[test]
    fn the_latest_heartbeat_of_each_role_is_readable_until_removed() {
        let folder = tempfile::tempdir().unwrap();
        let notices = FileHeartbeats::for_path(folder.path().join("data.db"));
        assert_eq!(notices.read(ProjectorRole::Active), None);
        notices.post(ProjectorRole::Active, &notice(1)).unwrap();
        notices.post(ProjectorRole::Active, &notice(2)).unwrap();
        notices.post(ProjectorRole::Standby, &notice(3)).unwrap();
        assert_eq!(notices.read(ProjectorRole::Active), Some(notice(2)));
        notices.remove(ProjectorRole::Active).unwrap();
        notices.remove(ProjectorRole::Active).unwrap();
        assert_eq!(notices.read(ProjectorRole::Active), None);
        assert_eq!(notices.read(ProjectorRole::Standby), Some(notice(3)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
