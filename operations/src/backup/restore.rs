//! Restores of backups, to locations without a log.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_domain::operator_action::ProjectionsDropped;
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_files::durable_fs::{self, parent_dir, path_with_suffix};
use chat_files::ownership::give_to_owner_of;
use chat_ports::clock;
use chat_ports::event_store::{EventStore, LogId};
use chat_projector::generations::{GenerationState, Generations};
use chat_sqlite::SqliteEventStore;
use serde::Serialize;

use super::blocking::{measure_file, run_blocking};
use super::check::{AcceptedCopy, CheckedBackup, check};
use super::error::BackupError;
use super::files::LOG_FILE;
use super::leftovers::Leftover;
use super::manifest::Manifest;
use crate::incarnation::{IncarnationError, begin_incarnation};
use crate::operator_actions::{Operator, record_action};
use crate::proof::ProgressCallback;
use crate::proof::tree::Hash;

/// The suffixes of the log's file and of the files that SQLite reads together with it.
const LOG_SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// A checked backup, ready to be restored.
#[derive(Debug)]
pub struct RestorePlan {
    /// The manifest of the backup.
    pub manifest: Manifest,
    /// The SHA-256 of the backup's copy of the log, when the backup was checked.
    sha256: Hash,
    /// The folder of the backup.
    backup: PathBuf,
    /// The path at which the restored log will be.
    log_file: PathBuf,
    /// The data that will be renamed.
    pub leftovers: Vec<Box<dyn Leftover>>,
}

/// The outcome of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The id of the restored log.
    pub log: LogId,
    /// The last position of the backup. Up to it, the restored log has the events of the log that was backed up.
    pub position: Position,
    /// The data that was renamed.
    pub moved: Vec<MovedLeftover>,
}

/// Data that was renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MovedLeftover {
    /// Its former name.
    pub from: String,
    /// Its new name.
    pub to: String,
}

impl RestorePlan {
    /// Checks a backup, and that it can be restored to `log_file`. Changes nothing. `leftovers` are the data that was
    /// derived from an earlier log at this location.
    ///
    /// Fails with [`BackupError::LogExists`] if there is a log already, or a part of one, and with
    /// [`BackupError::Leftover`] if a process writes one of the leftovers, or if that can't be checked.
    pub async fn new(
        backup: &Path,
        log_file: &Path,
        accepted: AcceptedCopy,
        leftovers: Vec<Box<dyn Leftover>>,
        on_progress: ProgressCallback<'_>,
    ) -> Result<Self, BackupError> {
        let CheckedBackup { manifest, sha256 } = check(backup, accepted, on_progress).await?;
        refuse_existing_log(log_file)?;
        for leftover in &leftovers {
            let unused = leftover.check_unused().await;
            unused.map_err(|source| BackupError::Leftover { leftover: leftover.to_string(), source })?;
        }
        let (backup, log_file) = (backup.to_owned(), log_file.to_owned());
        Ok(Self { manifest, sha256, backup, log_file, leftovers })
    }

    /// Restores the backup as a new incarnation of the log: renames the leftovers, and puts the log in place.
    ///
    /// The log appears complete or not at all. After a failure the restore can be repeated, unless the log is in place:
    /// then only the sync of its folder failed.
    pub async fn execute(self, operator: &Operator, reason: &str) -> Result<Restored, BackupError> {
        let Self { manifest, sha256, backup, log_file, leftovers } = self;
        let now = clock::now();
        let draft = Draft(path_with_suffix(&log_file, &format!(".restoring-{}", now.millis())));
        copy_log(&backup, &draft, sha256).await?;
        let reason = format!("restored from the backup of {}: {reason}", manifest.created_at);
        let log = begin_in_draft(&draft, operator, &reason).await?;
        let mut moved = Vec::new();
        for leftover in &leftovers {
            let from = leftover.to_string();
            let to = leftover.rename(now).await;
            let to = to.map_err(|source| BackupError::Leftover { leftover: from.clone(), source })?;
            moved.push(MovedLeftover { from, to });
        }
        // Checked again: a process may have started meanwhile.
        refuse_existing_log(&log_file)?;
        // A link, unlike a rename, replaces no file.
        let place = || {
            give_to_owner_of(&parent_dir(&log_file), &draft.0)?;
            fs::hard_link(&draft.0, &log_file)?;
            durable_fs::sync_parent_dir(&log_file)
        };
        place().map_err(BackupError::file_error(&log_file))?;
        Ok(Restored { log, position: manifest.position, moved })
    }
}

/// The path of a log that is not in place yet. Its files are removed when the draft is dropped.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        for suffix in LOG_SUFFIXES {
            // Nothing reads a draft that can't be removed.
            let _ = fs::remove_file(path_with_suffix(&self.0, suffix));
        }
    }
}

fn refuse_existing_log(log_file: &Path) -> Result<(), BackupError> {
    for suffix in LOG_SUFFIXES {
        let path = path_with_suffix(log_file, suffix);
        if path.symlink_metadata().is_ok() {
            return Err(BackupError::LogExists(path));
        }
    }
    Ok(())
}

/// Copies the log of a backup. Fails if the SHA-256 of the copy is not that of the file that [`check`] read.
async fn copy_log(backup: &Path, draft: &Draft, expected: Hash) -> Result<(), BackupError> {
    let (from, to) = (backup.join(LOG_FILE), draft.0.clone());
    run_blocking(move || {
        let failed = BackupError::file_error(&to);
        durable_fs::create_dir_all(&parent_dir(&to)).map_err(&failed)?;
        let copy = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&to)?;
            io::copy(&mut File::open(&from)?, &mut file)?;
            file.sync_all()
        };
        copy().map_err(&failed)?;
        let (_, sha256) = measure_file(&to)?;
        if sha256 == expected { Ok(()) } else { Err(BackupError::ChangedMeanwhile) }
    })
    .await
}

/// Begins a new incarnation of the log while it is still a draft. So from the moment at which the log is in place,
/// positions and checkpoints of lost events are refused, and the stored answers of idempotency keys are not used.
async fn begin_in_draft(draft: &Draft, operator: &Operator, reason: &str) -> Result<LogId, BackupError> {
    let path = draft.0.clone();
    let log = run_blocking(move || Ok(SqliteEventStore::open(&path)?)).await?;
    let begun = begin_incarnation(&log, operator, reason, Vec::new()).await?;
    drop_other_generations(&log, operator, reason).await?;
    log.close().await?;
    // Only the file itself is put in place, so the WAL must be empty.
    let wal = path_with_suffix(&draft.0, "-wal");
    match fs::metadata(&wal) {
        Ok(found) if found.len() > 0 => {
            Err(BackupError::file_error(&wal)(io::ErrorKind::ResourceBusy.into()))
        }
        _ => Ok(begun.log),
    }
}

/// Records the drop of all generations that are not live. A restore puts no projection in place, and the projectors
/// build only the live ones.
async fn drop_other_generations(
    log: &dyn EventStore,
    operator: &Operator,
    reason: &str,
) -> Result<(), BackupError> {
    let known = Generations::load(log).await?;
    let others_of = |projection: ProjectionName| {
        let all = known.for_projection(projection).all().into_iter();
        let others = all.filter(|(_, state)| *state != GenerationState::Live);
        others.map(move |(generation, _)| ProjectionGeneration { projection, generation })
    };
    let generations: Vec<_> = ProjectionName::ALL.into_iter().flat_map(others_of).collect();
    if generations.is_empty() {
        return Ok(());
    }
    let action = ProjectionsDropped { generations, reason: reason.to_owned() }.into();
    record_action(log, operator, &action).await.map_err(IncarnationError::Record)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_that_changes_after_its_check_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join(LOG_FILE);
        fs::write(&copy, "checked").unwrap();
        let (_, checked) = measure_file(&copy).unwrap();
        copy_log(folder.path(), &Draft(folder.path().join("first")), checked).await.unwrap();
        fs::write(&copy, "changed").unwrap();
        let refused = copy_log(folder.path(), &Draft(folder.path().join("second")), checked).await;
        assert!(matches!(refused, Err(BackupError::ChangedMeanwhile)), "{refused:?}");
    }
}
