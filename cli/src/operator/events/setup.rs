//! `chat-api events setup`: creates the event log in Postgres, and grants rights to the user of the processes.

use chat_postgres::PostgresEventStore;
use clap::Args;
use serde_json::json;

use crate::engines::{EventStoreLocation, StorageLocations};
use crate::failure::Failure;
use crate::log_guard::{LogEvidence, find_problem};
use crate::operator::answer::{Answer, Severity};
use crate::operator::common_args::CommonArgs;

#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Postgres user that the processes connect as: gets the rights to read and append events, and not to change them
    #[arg(long, value_name = "USER")]
    grant_to: Option<String>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

pub(super) async fn set_up(arguments: &SetupArgs) -> Result<Answer, Failure> {
    let locations = StorageLocations::from_options(&arguments.common.engines, None)?;
    match &locations.event_store {
        EventStoreLocation::Postgres(url) => {
            let failed = |error| {
                Failure::because(format!("{} can't be set up", locations.event_store.describe()), &error)
            };
            if PostgresEventStore::exists(url).await.map_err(failed)? {
                // A log that this user may not read can be set up by its owner only, whom the setup names.
                if let Ok(Some(problem)) = find_problem(&locations).await
                    && problem.is_other_log()
                {
                    return Err(Failure::new(format!("{problem}. Nothing was set up")));
                }
            } else {
                // An empty database may be in the place of the one with the log.
                let missing = "there is no event log in this database";
                if let Some(problem) = LogEvidence::read(&locations).await.problem_of_no_log(missing) {
                    return Err(Failure::new(format!(
                        "{problem}; to begin a log there nevertheless, run the command with an empty folder as --data-dir, \
                         and without DATABASE_URL and SEARCH_INDEX_DIR"
                    )));
                }
            }
            let user = arguments.grant_to.as_deref();
            PostgresEventStore::set_up(url, user).await.map_err(failed)?;
            let granted =
                user.map(|user| format!("\n{user} may read it and append to it")).unwrap_or_default();
            let text = format!("{} is set up{granted}", locations.event_store.describe());
            let answer = Answer::new(&json!({ "event_store": url.to_string(), "granted_to": user }), text)?;
            Ok(match find_problem(&locations).await {
                Ok(None) => answer,
                Ok(Some(problem)) => {
                    answer.with_finding(true).with_diagnostic(Severity::Warning, problem.to_string())
                }
                Err(failure) => answer.with_diagnostic(
                    Severity::Warning,
                    format!("the log could not be compared with the data at the other locations: {failure}"),
                ),
            })
        }
        location => Err(Failure::new(format!(
            "{} needs no setup: the first process creates the log; only a log in Postgres has users with rights to grant",
            location.describe()
        ))),
    }
}
