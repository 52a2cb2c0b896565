//! `chat-api restore`: puts the log of a backup in place, if there is no log. Renames the leftovers of an earlier log
//! at the same location: its projections, the answers of its idempotency keys, and its log anchor.

#[cfg(feature = "postgres")]
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[cfg(feature = "postgres")]
use async_trait::async_trait;
#[cfg(feature = "postgres")]
use chat_domain::Timestamp;
#[cfg(feature = "postgres")]
use chat_operations::backup::LeftoverError;
use chat_operations::backup::{
    AcceptedCopy, BackupError, FileLeftover, Leftover, Manifest, RestorePlan, Restored,
};
#[cfg(feature = "postgres")]
use chat_ports::read_model::ReadModelError;
#[cfg(feature = "postgres")]
use chat_postgres::PostgresUrl;
use clap::Args;
use clap::parser::ValueSource;
use serde_json::json;

use super::answer::{self, Answer, Severity};
use super::backup::{backup_failure, describe};
use super::progress::Progress;
use crate::data_owner::PathUse;
use crate::engines::{EventStoreLocation, ReadModelLocation, StorageLocations};
use crate::failure::Failure;
use crate::operator::common_args::{CommonArgs, ExecutionArgs};
use crate::operator::interruption::unless_interrupted;

pub(crate) const EXAMPLES: &str = "\
Examples:
  chat-api restore --from /backup/2026-11-24
  chat-api restore --from /backup/2026-11-24 --execute --reason 'disk failed'";

/// Arguments of `restore`.
#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// Folder of the backup
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// Restore even if the log file in the backup was altered, provided that it is sound and its events are unaltered
    #[arg(long)]
    accept_altered_file: bool,
    #[command(flatten)]
    execution: ExecutionArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs `restore`. `chat_api` is the definition of the whole command line.
pub(super) async fn run(arguments: RestoreArgs, chat_api: clap::Command) -> ExitCode {
    let answer = match refuse_mixed_locations(chat_api) {
        Ok(()) => unless_interrupted("the log was not restored", Box::pin(restore(&arguments))).await,
        Err(failure) => Err(failure),
    };
    answer::print(arguments.common.output, answer)
}

/// Fails if the data folder is given as a flag, but another location comes from the environment. That location may
/// belong to another system, whose projections the restore would rename.
fn refuse_mixed_locations(chat_api: clap::Command) -> Result<(), Failure> {
    let matches = chat_api.get_matches();
    let Some(restore) = matches.subcommand_matches("restore") else { return Ok(()) };
    let comes_from = |id: &str, source| restore.value_source(id) == Some(source);
    if !comes_from("data_dir", ValueSource::CommandLine) {
        return Ok(());
    }
    let locations = [
        ("event_store_url", "EVENT_STORE_URL"),
        ("database_url", "DATABASE_URL"),
        ("search_index_dir", "SEARCH_INDEX_DIR"),
    ];
    for (id, variable) in locations {
        if comes_from(id, ValueSource::EnvVariable) {
            return Err(Failure::new(format!(
                "--data-dir names a folder, but {variable} is set in the environment, perhaps for another folder, and a \
                 restore renames what is there. Unset {variable}, give it as a flag, or set DATA_DIR in the \
                 environment as well"
            )));
        }
    }
    Ok(())
}

async fn restore(arguments: &RestoreArgs) -> Result<Answer, Failure> {
    let RestoreArgs { from, accept_altered_file, execution, common } = arguments;
    let action = &execution.action;
    let executed_by = if execution.execute { Some((action.operator(), action.reason()?)) } else { None };
    let locations = StorageLocations::from_options(&common.engines, None)?;
    let log_file = log_file(&locations)?;
    let leftovers = find_leftovers(&locations).await?;
    // The total is for the progress bar only. If the manifest can't be read, `RestorePlan::new` fails below.
    let total = Manifest::read(from).ok().map(|manifest| manifest.events);
    let mut progress = Progress::start("Verifying the backup", total);
    let accepted = if *accept_altered_file { AcceptedCopy::SameEvents } else { AcceptedCopy::SameFile };
    let plan =
        RestorePlan::new(from, log_file, accepted, leftovers, &mut |events| progress.set_done(events)).await;
    drop(progress);
    let plan = plan.map_err(|error| match &error {
        BackupError::OnlyEventsMatch { .. } => {
            Failure::new(format!("nothing was restored: {error}. --accept-altered-file restores it"))
        }
        BackupError::Altered { .. } => Failure::new(format!(
            "nothing was restored: {error}. Its events differ or can't be read, so restore another backup"
        )),
        error => backup_failure("nothing was restored", error, PathUse::Data),
    })?;
    let manifest = plan.manifest.clone();
    let leftovers: Vec<String> = plan.leftovers.iter().map(ToString::to_string).collect();
    let Some((operator, reason)) = executed_by else {
        let mut more = vec![("restore", log_file.display().to_string())];
        more.extend(leftovers.iter().map(|leftover| ("rename", leftover.clone())));
        let text = describe(&manifest, &more);
        let data = json!({ "manifest": manifest, "leftovers": leftovers, "restored": null });
        return Ok(Answer::new(&data, text)?.with_diagnostic(
            Severity::Note,
            "the backup is unaltered; nothing was done, --execute does it",
        ));
    };
    let restored = plan.execute(&operator, &reason).await;
    let restored =
        restored.map_err(|error| backup_failure("the log was not restored", &error, PathUse::Data))?;
    let Restored { log, position, moved } = &restored;
    let mut more = vec![("restored", log_file.display().to_string()), ("new log", log.0.to_string())];
    more.extend(moved.iter().map(|leftover| ("renamed", format!("{} -> {}", leftover.from, leftover.to))));
    let text = describe(&manifest, &more);
    let note = format!(
        "the log goes on as a new incarnation: consistency tokens, replay checkpoints and Redis keys from after \
         position {position} of the old one are not accepted"
    );
    let data = json!({ "manifest": manifest, "leftovers": leftovers, "restored": restored });
    Ok(Answer::new(&data, text)?.with_diagnostic(Severity::Note, note))
}

/// The file of the log that the options name.
fn log_file(locations: &StorageLocations) -> Result<&Path, Failure> {
    match &locations.event_store {
        EventStoreLocation::Sqlite(path) => Ok(path),
        #[cfg(feature = "kurrentdb")]
        EventStoreLocation::KurrentDb(_) => Err(Failure::new(
            "a backup can't be restored into KurrentDB: restore KurrentDB with its own tools, as \
             docs/operations/backup-and-restore.md describes",
        )),
        #[cfg(feature = "postgres")]
        EventStoreLocation::Postgres(_) => Err(Failure::new(
            "a backup can't be restored into Postgres: restore Postgres with its own tools, as \
             docs/operations/backup-and-restore.md describes",
        )),
    }
}

/// Finds the leftovers: the data that was derived from an earlier log at the same location.
async fn find_leftovers(locations: &StorageLocations) -> Result<Vec<Box<dyn Leftover>>, Failure> {
    let generations = |first_generation: &Path| {
        FileLeftover::find_generations(first_generation).map_err(|error| {
            Failure::because(format!("the folder of {} can't be read", first_generation.display()), &error)
        })
    };
    let mut files = generations(&locations.search_index)?;
    let mut found: Vec<Box<dyn Leftover>> = Vec::new();
    match &locations.read_model {
        ReadModelLocation::Sqlite(first) => files.append(&mut generations(first)?),
        #[cfg(feature = "postgres")]
        ReadModelLocation::Postgres(first) => {
            let stored = first.stored_generations().await;
            let stored =
                stored.map_err(|error| Failure::because(format!("{first} can't be read"), &error))?;
            found.extend(stored.into_iter().map(|url| Box::new(SchemaLeftover(url)) as Box<dyn Leftover>));
        }
    }
    files.extend(FileLeftover::find(&locations.idempotency_keys));
    files.extend(FileLeftover::find(&locations.log_anchor));
    found.extend(files.into_iter().map(|file| Box::new(file) as Box<dyn Leftover>));
    Ok(found)
}

/// A generation of the read model in a schema of a Postgres database.
#[cfg(feature = "postgres")]
#[derive(Debug)]
struct SchemaLeftover(PostgresUrl);

#[cfg(feature = "postgres")]
impl SchemaLeftover {
    fn error(error: ReadModelError) -> LeftoverError {
        match error {
            ReadModelError::InUse => LeftoverError::InUse,
            error => LeftoverError::Failed(error.into()),
        }
    }
}

#[cfg(feature = "postgres")]
#[async_trait]
impl Leftover for SchemaLeftover {
    async fn check_unused(&self) -> Result<(), LeftoverError> {
        self.0.check_unused().await.map_err(Self::error)
    }

    /// Renames the schema to `<name>_log_<unix seconds>`.
    async fn rename(&self, now: Timestamp) -> Result<String, LeftoverError> {
        let name = format!("{}_log_{}", self.0.schema_name(), now.millis() / 1_000);
        self.0.rename_schema(&name).await.map_err(Self::error)?;
        Ok(name)
    }
}

#[cfg(feature = "postgres")]
impl fmt::Display for SchemaLeftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, schema {}", self.0, self.0.schema_name())
    }
}
