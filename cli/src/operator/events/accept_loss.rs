//! `chat-api events accept-loss`: goes on with a log that has lost events.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use chat_files::durable_fs::{parent_dir, path_with_suffix};
use chat_operations::incarnation::begin_incarnation;
use chat_ports::clock;
use clap::Args;
use serde_json::json;

use crate::data_owner::{exists, run_command_as_owner};
use crate::engines::{EventStoreLocation, StorageLocations, open_or_create_event_store};
use crate::failure::Failure;
use crate::log_guard::{LogEvidence, MISSING_LOG_ADVICE, find_problem};
use crate::operator::answer::{Answer, Diagnostic, Severity};
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
    // If the log is missing, this command creates it, and the owner's other processes must be able to use it.
    run_command_as_owner(&locations)?;
    if let EventStoreLocation::Sqlite(log) = &locations.event_store {
        let is_location_given = arguments.common.engines.event_store_url.is_some();
        refuse_missing_log(&locations, log, is_location_given).await?;
    }
    let Some(problem) = find_problem(&locations).await? else { return nothing_is_missing(&locations).await };
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

/// The answer if no event is missing. Names the data that the log reaches as far as, and warns of folders without data.
async fn nothing_is_missing(locations: &StorageLocations) -> Result<Answer, Failure> {
    let evidence = LogEvidence::read(locations).await;
    let compared = evidence.names();
    let text = if compared.is_empty() {
        "the log could not be compared with anything: no data at the locations is of a log with events"
            .to_owned()
    } else {
        format!(
            "nothing is missing: the log reaches as far as {}; `events check` looks for damage inside it",
            compared.join(", ")
        )
    };
    let mut folders: Vec<PathBuf> = locations.paths().iter().map(|path| parent_dir(path)).collect();
    folders.sort();
    folders.dedup();
    // The evidence warns of a folder that can't be read.
    folders.retain(|folder| match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    });
    let warning = |folder: &PathBuf| {
        Diagnostic::warning(format!(
            "the folder {} does not exist or holds nothing: set --data-dir, DATABASE_URL and SEARCH_INDEX_DIR as the \
             processes have them",
            folder.display()
        ))
    };
    let answer = Answer::new(&json!({ "missing": null, "incarnation": null, "compared": compared }), text)?;
    Ok(answer.with_diagnostics(folders.iter().map(warning)))
}

/// Fails if the log is missing, unless an option or a variable gives its location and there is evidence that it was
/// there. Projections are often beside a log in another engine, and without the options of the processes the command
/// would begin a new log in place of that one. Also fails if the user may not see whether the log exists.
async fn refuse_missing_log(
    locations: &StorageLocations,
    log: &Path,
    is_location_given: bool,
) -> Result<(), Failure> {
    if exists(log)? {
        return Ok(());
    }
    let problem = LogEvidence::read(locations).await.problem_of_missing_log(&locations.event_store);
    let log = log.display();
    Err(Failure::new(match (problem, is_location_given) {
        (Some(_), true) => return Ok(()),
        (Some(problem), false) => format!(
            "{problem}; {MISSING_LOG_ADVICE}. To begin a new log there, give the location: --event-store-url sqlite://{log}"
        ),
        (None, _) => format!(
            "there is no event log at {log}, and nothing at the other locations was built from one; mount its disk, or set \
             EVENT_STORE_URL, --data-dir and the other options as the processes have them"
        ),
    }))
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
