//! Leftovers of a lost log at the location to which a backup of the log is restored: projections, idempotency keys and
//! the log anchor. A process would use them as current data.
//!
//! Leftovers are renamed and never removed: they may be the only place that holds the newest acknowledged messages.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use chat_domain::Timestamp;
use chat_files::durable_fs::{parent_dir, path_with_suffix, sync_parent_dir};
use chat_ports::heartbeat::ProjectorRole;
use thiserror::Error;

/// The name of the lock file in the folder of a search index. The writer of the index holds the lock.
const INDEX_LOCK: &str = ".tantivy-writer.lock";

/// Data that was derived from a log: a projection, the answers of idempotency keys, or the log anchor.
#[async_trait]
pub trait Leftover: fmt::Display + fmt::Debug + Send + Sync {
    /// Checks that no process writes the leftover.
    async fn check_unused(&self) -> Result<(), LeftoverError>;

    /// Renames the leftover, so that nothing reads it. Returns the new name.
    async fn rename(&self, now: Timestamp) -> Result<String, LeftoverError>;
}

/// The error for a leftover that can't be renamed.
#[derive(Debug, Error)]
pub enum LeftoverError {
    /// A process writes it.
    #[error("a process has it open; stop every process that uses it, or restore to a location of its own")]
    InUse,
    /// It could not be checked or renamed.
    #[error("checking or renaming it failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl From<io::Error> for LeftoverError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A file or folder, and the files beside it that belong to it.
#[derive(Clone, Debug)]
pub struct FileLeftover {
    path: PathBuf,
    /// The suffixes of the files beside it: each is named like `path`, followed by a suffix.
    suffixes: Vec<String>,
    /// The suffix of the name in output: empty, or that of the first file beside `path` if nothing is at `path`.
    shown_suffix: String,
}

impl FileLeftover {
    /// The file or folder at `path`; `None` if neither it nor a file that belongs to it exists.
    pub fn find(path: &Path) -> Option<Self> {
        let exists = |suffix: &String| path_with_suffix(path, suffix).symlink_metadata().is_ok();
        let suffixes: Vec<String> = suffixes().into_iter().filter(exists).collect();
        let exists_itself = path.symlink_metadata().is_ok();
        let shown_suffix = if exists_itself { String::new() } else { suffixes.first()?.clone() };
        Some(Self { path: path.to_owned(), suffixes, shown_suffix })
    }

    /// Finds the generations of a projection by their names in the folder of the first generation, `first`, whether the
    /// log knows of them or not.
    pub fn find_generations(first: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(parent_dir(first)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let main_name =
                suffixes().iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned();
            if is_generation(first, &main_name) {
                paths.push(first.with_file_name(main_name));
            }
        }
        paths.sort_unstable();
        paths.dedup();
        Ok(paths.iter().filter_map(|path| Self::find(path)).collect())
    }
}

#[async_trait]
impl Leftover for FileLeftover {
    async fn check_unused(&self) -> Result<(), LeftoverError> {
        check_unlocked(&path_with_suffix(&self.path, ".lock"))?;
        check_unlocked(&self.path.join(INDEX_LOCK))
    }

    /// Renames it to `<name>.other-log-<unix milliseconds>`.
    async fn rename(&self, now: Timestamp) -> Result<String, LeftoverError> {
        let new_path = path_with_suffix(&self.path, &format!(".other-log-{}", now.millis()));
        // After a failure, the next attempt finds the files that still have their old names, even if `path` is none of
        // them.
        for suffix in &self.suffixes {
            fs::rename(path_with_suffix(&self.path, suffix), path_with_suffix(&new_path, suffix))?;
        }
        match fs::rename(&self.path, &new_path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        sync_parent_dir(&self.path)?;
        Ok(path_with_suffix(&new_path, &self.shown_suffix).display().to_string())
    }
}

impl fmt::Display for FileLeftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        path_with_suffix(&self.path, &self.shown_suffix).display().fmt(f)
    }
}

/// The suffixes of the files that belong to a projection or a SQLite file.
fn suffixes() -> Vec<String> {
    let heartbeats = ProjectorRole::ALL.into_iter().map(|role| format!(".{}.json", role.as_str()));
    ["-wal", "-shm", "-journal", ".lock"].map(str::to_owned).into_iter().chain(heartbeats).collect()
}

/// Whether `name` names a generation of the projection whose first generation is at `first`: `read-model.db` or
/// `read-model.2.db`, for example.
fn is_generation(first: &Path, name: &str) -> bool {
    // The part between the stem and the extension: empty, or a dot and the generation's number.
    let infix = || {
        let rest = name.strip_prefix(first.file_stem()?.to_str()?)?;
        match first.extension() {
            Some(extension) => rest.strip_suffix(&format!(".{}", extension.to_str()?)),
            None => Some(rest),
        }
    };
    infix().is_some_and(|infix| {
        infix.is_empty() || infix.strip_prefix('.').is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

/// Fails with [`LeftoverError::InUse`] if a process holds a lock on the file at `path`.
fn check_unlocked(path: &Path) -> Result<(), LeftoverError> {
    let file = match File::open(path) {
        // There is no lock file. `NotADirectory`: the leftover is a file, so it holds no [`INDEX_LOCK`].
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(LeftoverError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(folder: &Path) -> Vec<FileLeftover> {
        let mut found = FileLeftover::find_generations(&folder.join("read-model.db")).unwrap();
        found.append(&mut FileLeftover::find_generations(&folder.join("search-index")).unwrap());
        found.extend(
            ["idempotency.db", "log-anchor"].iter().filter_map(|name| FileLeftover::find(&folder.join(name))),
        );
        found
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn renames_every_leftover_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let kept =
            ["audit.key", "read-model.3.db.damaged-7", "read-model.x.db", "search-index-notes", "z.db"];
        let leftover_names = [
            "idempotency.db",
            "idempotency.db-wal",
            "read-model.12.db",
            "read-model.3.db-wal",
            "read-model.db",
            "read-model.db-shm",
            "read-model.db.keeper.json",
        ];
        for name in kept.iter().chain(&leftover_names) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for name in ["search-index", "search-index.4", "search-index.4.other-log-1"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let found = find(folder.path());
        assert_eq!(found.len(), 6, "{found:?}");
        for leftover in &found {
            leftover.check_unused().await.unwrap();
            let shown = PathBuf::from(leftover.to_string());
            assert!(shown.exists(), "{shown:?} does not exist");
            let renamed = PathBuf::from(leftover.rename(Timestamp::from_millis(5)).await.unwrap());
            assert!(renamed.exists() && !shown.exists(), "{shown:?} was not renamed to {renamed:?}");
        }
        let mut expected: Vec<String> = kept.map(str::to_owned).to_vec();
        expected.extend(
            [
                "idempotency.db.other-log-5",
                "idempotency.db.other-log-5-wal",
                "read-model.12.db.other-log-5",
                "read-model.3.db.other-log-5-wal",
                "read-model.db.other-log-5",
                "read-model.db.other-log-5-shm",
                "read-model.db.other-log-5.keeper.json",
                "search-index.4.other-log-1",
                "search-index.4.other-log-5",
                "search-index.other-log-5",
            ]
            .map(str::to_owned),
        );
        expected.sort();
        assert_eq!(names(folder.path()), expected);
        assert!(find(folder.path()).is_empty());
    }

    #[tokio::test]
    async fn a_leftover_that_a_process_writes_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read-model.db");
        fs::write(&path, "").unwrap();
        let lock = File::create(folder.path().join("read-model.db.lock")).unwrap();
        lock.lock().unwrap();
        let found = find(folder.path());
        assert!(matches!(found[0].check_unused().await, Err(LeftoverError::InUse)));
        lock.unlock().unwrap();
        found[0].check_unused().await.unwrap();
    }
}
