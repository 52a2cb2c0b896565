//! `chat-api backup`: a verified copy of the log while the system runs.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chat_files::last_backup;
use chat_operations::backup::{self, BackupError, Manifest};
use clap::Args;
use serde::Serialize;

use super::answer::{self, Answer, Severity};
use super::progress::Progress;
use super::table::key_value_lines;
use crate::data_owner::{PathUse, describe_permissions};
use crate::engines::EventStoreLocation;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};
use crate::operator::interruption::unless_interrupted;

pub(crate) const EXAMPLES: &str = "\
Examples:
  chat-api backup --out /backup/2026-11-24
  chat-api backup --out \"/backup/$(date -u +%Y%m%dT%H%M%SZ)\"";

/// Arguments of `backup`.
#[derive(Args)]
pub(crate) struct BackupArgs {
    /// Folder for the backup; it must not exist yet, or must be empty
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    common: CommonArgs,
}

/// A backup, and its folder.
#[derive(Serialize)]
struct BackupAnswer<'a> {
    folder: &'a Path,
    manifest: &'a Manifest,
}

pub(super) async fn run(arguments: BackupArgs) -> ExitCode {
    let unfinished = format!("there is no backup in {}", arguments.out.display());
    answer::print(
        arguments.common.output,
        unless_interrupted(unfinished, Box::pin(back_up(&arguments))).await,
    )
}

async fn back_up(arguments: &BackupArgs) -> Result<Answer, Failure> {
    let BackupArgs { out, common } = arguments;
    let context = CommandContext::open_unless_backup(common).await?;
    let log_file = match &context.locations.event_store {
        EventStoreLocation::Sqlite(path) => path,
        #[cfg(feature = "kurrentdb")]
        EventStoreLocation::KurrentDb(_) => {
            return Err(Failure::new(
                "the log is in KurrentDB: back it up with KurrentDB's own tools, as docs/operations/backup-and-restore.md \
                 describes",
            ));
        }
        #[cfg(feature = "postgres")]
        EventStoreLocation::Postgres(_) => {
            return Err(Failure::new(
                "the log is in Postgres: back it up with Postgres's own tools, as docs/operations/backup-and-restore.md \
                 describes",
            ));
        }
    };
    let head = context.event_store.head().await.map_err(event_store_failure)?;
    // Each event is read twice: from the copy and from the log.
    let mut progress = Progress::start("Verifying the copy", Some(head.get().saturating_mul(2)));
    let created = backup::create(
        &*context.event_store,
        log_file,
        out,
        concat!("chat-api/", env!("CARGO_PKG_VERSION")),
        &mut |events| {
            progress.set_done(events);
        },
    )
    .await;
    drop(progress);
    let manifest = created.map_err(|error| backup_failure("there is no backup", &error, PathUse::File))?;
    let text = describe(&manifest, &[("backup", out.display().to_string())]);
    let answer = Answer::new(&BackupAnswer { folder: out, manifest: &manifest }, text)?;
    if context.event_store.closed_because().is_some() {
        let message = "earlier backups may have events that this one lacks, so keep them";
        return Ok(answer.with_finding(true).with_diagnostic(Severity::Warning, message));
    }
    Ok(match last_backup::record(log_file, manifest.created_at) {
        Ok(()) => answer,
        Err(error) => answer.with_diagnostic(
            Severity::Warning,
            format!(
                "the time of the backup could not be recorded beside the log, so `chat_backup_timestamp_seconds` does not \
                 show it: {error}"
            ),
        ),
    })
}

/// Converts an error into a failure. If a file can't be used for lack of permission, the failure also names its owner
/// and says what to do. `path_use` is the use of the backup's files: [`PathUse::Data`] of an existing backup.
pub(super) fn backup_failure(message: &str, error: &BackupError, path_use: PathUse) -> Failure {
    let failure = Failure::because(message, error);
    let advice = match error {
        BackupError::File { path, source } if source.kind() == ErrorKind::PermissionDenied => {
            describe_permissions(path, path_use)
        }
        _ => None,
    };
    match advice {
        Some(advice) => Failure::new(format!("{failure}; {advice}")),
        None => failure,
    }
}

/// Describes the content of a backup in lines, followed by the lines `more`.
pub(super) fn describe(manifest: &Manifest, more: &[(&str, String)]) -> String {
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let content = [
        ("log", manifest.log.0.to_string()),
        ("events", manifest.events.to_string()),
        ("position", manifest.position.to_string()),
        ("root", manifest.root.to_string()),
        ("time", manifest.created_at.to_string()),
        ("bytes", bytes.to_string()),
    ];
    key_value_lines(&[&content, more].concat())
}
