//! `chat-api events accept-loss`: goes on with a log that has lost events.

use std::fs::{self, File};
use std::io;
use std::iter;
use std::path::Path;

use chat_files::durable_fs::path_with_suffix;
use chat_operations::incarnation::begin_incarnation;
use chat_ports::clock;
use clap::Args;
use serde_json::json;

use crate::data_owner::{exists, run_command_as_owner};
use crate::engines::{EventStoreLocation, StorageLocations, open_or_create_event_store};
use crate::failure::Failure;
use crate::log_guard::find_problem;
use crate::operator::answer::{Answer, Severity};
use crate::operator::common_args::{ActionArgs, CommonArgs};

#[derive(Args)]
pub(crate) struct AcceptLossArgs {
    /// Execute the action; without this, only print what is missing
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    action: ActionArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

pub(super) async fn accept_loss(arguments: &AcceptLossArgs) -> Result<Answer, Failure> {
    let locations = StorageLocations::from_options(&arguments.common.engines, None)?;
    refuse_folder_without_traces(&locations, &arguments.common.engines.data_dir)?;
    // If the log is missing, this command creates it, and the owner's other processes must be able to use it.
    run_command_as_owner(&locations)?;
    let Some(problem) = find_problem(&locations).await? else {
        let text = "nothing is missing: the log reaches as far as its projections and the other evidence beside it; \
                    `events check` looks for damage inside it";
        return Answer::new(&json!({ "missing": null, "incarnation": null }), text);
    };
    let missing = problem.to_string();
    if !arguments.execute {
        let text = format!(
            "{missing}\nwould begin a new incarnation of the log: positions of the missing events, such as consistency \
             tokens, are refused, and the numbers of these events are assigned again"
        );
        let answer = Answer::new(&json!({ "missing": missing, "incarnation": null }), text)?;
        return Ok(answer.with_finding(true).with_diagnostic(
            Severity::Note,
            "nothing was done; --execute does it. A backup may have the events, or a disk that is not mounted",
        ));
    }
    let (operator, reason) = (arguments.action.operator(), arguments.action.reason()?);
    if let EventStoreLocation::Sqlite(path) = &locations.event_store {
        keep_wal(path).map_err(|error| Failure::because("the write-ahead log can't be copied", &error))?;
    }
    // Creates the log where it is missing.
    let event_store = open_or_create_event_store(&locations.event_store).await?;
    // The new incarnation also replaces these logs, so that positions of theirs are refused.
    let replaces = problem.other_logs;
    let begun = begin_incarnation(&*event_store, &operator, &reason, replaces).await;
    let begun = begun.map_err(|error| Failure::because("the loss is not accepted", &error))?;
    // An error is harmless: the next process checkpoints the WAL if this one does not.
    let _ = event_store.close().await;
    let text = format!(
        "accepted: {missing}\nthe log goes on as incarnation {} after position {}",
        begun.log.0, begun.began_after
    );
    let incarnation = json!({ "log": begun.log, "began_after": begun.began_after });
    Answer::new(&json!({ "missing": missing, "incarnation": incarnation }), text)
}

/// Fails if the data folder has neither the log nor anything else of the system, such as the log's anchor: it is
/// probably the wrong folder, and a log must not be created there. Also fails if the user may not see whether they exist.
fn refuse_folder_without_traces(locations: &StorageLocations, data_dir: &Path) -> Result<(), Failure> {
    let EventStoreLocation::Sqlite(log) = &locations.event_store else { return Ok(()) };
    // The log comes first: a log that the user may not see must not be taken for a missing one.
    for path in iter::once(log).chain(locations.paths().iter().filter(|path| path.starts_with(data_dir))) {
        if exists(path)? {
            return Ok(());
        }
    }
    Err(Failure::new(format!(
        "there is no event log at {}, and nothing of this system in {}; mount its disk, or set --data-dir or \
         --event-store-url to its location. If the log was there and is lost, `touch` it as the user of the service, and \
         run the command again",
        log.display(),
        data_dir.display()
    )))
}

/// Copies the write-ahead log to a file beside it. SQLite ignores all frames after a damaged frame, and overwrites them
/// with the next append, but these frames may be all that is left of the missing events.
fn keep_wal(log: &Path) -> io::Result<()> {
    let wal = path_with_suffix(log, "-wal");
    match fs::metadata(&wal) {
        Ok(file) if file.len() > 0 => {
            let kept = path_with_suffix(&wal, &format!(".other-log-{}", clock::now().millis()));
            fs::copy(&wal, &kept)?;
            File::open(&kept)?.sync_all()
        }
        _ => Ok(()),
    }
}
