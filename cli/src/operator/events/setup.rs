//! `chat-api events setup`: creates the event log in Postgres, and grants rights to the user of the processes.

use clap::Args;
use serde_json::json;

use crate::engines::{EventStoreLocation, StorageLocations};
use crate::failure::Failure;
use crate::log_guard::find_problem;
use crate::operator::answer::{Answer, Diagnostic};
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
            let user = arguments.grant_to.as_deref();
            let set_up = chat_postgres::PostgresEventStore::set_up(url, user).await;
            set_up.map_err(|error| {
                Failure::because(format!("{} can't be set up", locations.event_store.describe()), &error)
            })?;
            let granted =
                user.map(|user| format!("\n{user} may read it and append to it")).unwrap_or_default();
            let text = format!("{} is set up{granted}", locations.event_store.describe());
            let answer = Answer::new(&json!({ "event_store": url.to_string(), "granted_to": user }), text)?;
            // An empty database may be in the place of the one with the log.
            let problem = find_problem(&locations).await?;
            Ok(answer
                .with_finding(problem.is_some())
                .with_diagnostics(problem.map(|problem| Diagnostic::warning(problem.to_string()))))
        }
        location => Err(Failure::new(format!(
            "{} needs no setup: the first process creates the log; only a log in Postgres has users with rights to grant",
            location.describe()
        ))),
    }
}
