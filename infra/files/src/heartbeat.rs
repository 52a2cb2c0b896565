//! Heartbeats in files beside the file or folder of a projection.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use chat_ports::heartbeat::{Heartbeat, HeartbeatStore, ProjectorRole};
use tokio::task::spawn_blocking;

use crate::durable_fs::path_with_suffix;

/// Heartbeats in files beside the file or folder of a projection: `read-model.db.keeper.json` for the active projector,
/// whose role is stored as `keeper`.
#[derive(Clone, Debug)]
pub struct FileHeartbeats {
    path: PathBuf,
}

impl FileHeartbeats {
    /// The heartbeats beside this file or folder.
    pub fn for_path(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Replaces the heartbeat of a role. Blocks.
    pub fn publish(&self, role: ProjectorRole, heartbeat: &Heartbeat) -> io::Result<()> {
        let path = self.heartbeat_path(role, "");
        // Each process writes a file of its own and then renames it, so that no reader sees half a heartbeat.
        let new = self.heartbeat_path(role, &format!(".{}", std::process::id()));
        let replaced = fs::write(&new, serde_json::to_vec(heartbeat)?).and_then(|()| fs::rename(&new, path));
        replaced.inspect_err(|_| drop(fs::remove_file(&new)))
    }

    /// Removes the heartbeat of a role. Blocks.
    pub fn remove(&self, role: ProjectorRole) -> io::Result<()> {
        ignore_not_found(fs::remove_file(self.heartbeat_path(role, "")))
    }

    /// Reads the heartbeat of a role; `None` if there is none or it is unreadable. Blocks.
    pub fn read(&self, role: ProjectorRole) -> Option<Heartbeat> {
        serde_json::from_slice(&fs::read(self.heartbeat_path(role, "")).ok()?).ok()
    }

    fn heartbeat_path(&self, role: ProjectorRole, suffix: &str) -> PathBuf {
        path_with_suffix(&self.path, &format!(".{}.json{suffix}", role.as_str()))
    }
}

#[async_trait]
impl HeartbeatStore for FileHeartbeats {
    async fn publish(&mut self, role: ProjectorRole, heartbeat: Heartbeat) {
        let files = self.clone();
        let _ = spawn_blocking(move || Self::publish(&files, role, &heartbeat)).await;
    }

    async fn remove(&mut self, role: ProjectorRole) {
        let files = self.clone();
        let _ = spawn_blocking(move || Self::remove(&files, role)).await;
    }

    async fn read(&mut self, role: ProjectorRole) -> Option<Heartbeat> {
        let files = self.clone();
        spawn_blocking(move || Self::read(&files, role)).await.ok()?
    }
}

/// Removes all heartbeats beside a path.
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

    fn heartbeat(at: i64) -> Heartbeat {
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
        let heartbeats = FileHeartbeats::for_path(folder.path().join("data.db"));
        assert_eq!(heartbeats.read(ProjectorRole::Active), None);
        heartbeats.publish(ProjectorRole::Active, &heartbeat(1)).unwrap();
        heartbeats.publish(ProjectorRole::Active, &heartbeat(2)).unwrap();
        heartbeats.publish(ProjectorRole::Standby, &heartbeat(3)).unwrap();
        assert_eq!(heartbeats.read(ProjectorRole::Active), Some(heartbeat(2)));
        heartbeats.remove(ProjectorRole::Active).unwrap();
        heartbeats.remove(ProjectorRole::Active).unwrap();
        assert_eq!(heartbeats.read(ProjectorRole::Active), None);
        assert_eq!(heartbeats.read(ProjectorRole::Standby), Some(heartbeat(3)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
