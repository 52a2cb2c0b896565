//! `chat-api events`: checks the stored log, accepts its losses, and sets it up in Postgres.

mod accept_loss;
#[cfg(feature = "postgres")]
mod setup;

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use chat_domain::Position;
use chat_operations::counted::counted;
use chat_operations::events_check::{CheckOptions, EventFinding, EventsCheck, check};
use chat_ports::error_chain;
use chat_ports::event_store::EventStoreError;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::answer::{self, Answer};
use super::progress::Progress;
use super::table::{Column, table_with_wrapped_last_column};
use super::terminal_text::{abbreviated_stream, escaped};
use crate::engines::EventStoreLocation;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::CommandContext;

/// The events commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Read the events, and list those that this program can't read or decode, and where events are missing; changes
    /// nothing
    #[command(after_help = "\
Examples:
  chat-api events check
  chat-api events check --from 120000 --limit 10 -o json")]
    Check(CheckArgs),
    /// Go on with a log that has lost events, as a new incarnation; the decision is recorded in the log
    #[command(after_help = "\
Examples:
  chat-api events accept-loss
  chat-api events accept-loss --execute --reason 'no newer backup'")]
    AcceptLoss(accept_loss::AcceptLossArgs),
    /// Create the event log in Postgres, and grant the processes' user the rights to read and append; needs a user who
    /// may create tables, and may be repeated
    #[command(after_help = "\
Examples:
  chat-api events setup --event-store-url postgres://owner@db/chat
  EVENT_STORE_URL=postgres://owner@db/chat chat-api events setup --grant-to app")]
    #[cfg(feature = "postgres")]
    Setup(setup::SetupArgs),
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Start at this position, without SQLite's quick check of the file [default: the first event, with the quick check]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// Maximum number of findings to list; others are only counted, but the first loss of events is always listed
    #[arg(long, value_name = "FINDINGS", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::Check(arguments) => answer::print(arguments.common.output, run_check(&arguments).await),
        Command::AcceptLoss(arguments) => {
            answer::print(arguments.common.output, accept_loss::accept_loss(&arguments).await)
        }
        #[cfg(feature = "postgres")]
        Command::Setup(arguments) => answer::print(arguments.common.output, setup::set_up(&arguments).await),
    }
}

async fn run_check(arguments: &CheckArgs) -> Result<Answer, Failure> {
    let context = CommandContext::open(&arguments.common).await?;
    let unreadable = |error| Failure::because("the event log can't be read", &error);
    let after = Position::new(arguments.from.unwrap_or(1).saturating_sub(1));
    // If the head of a damaged log can't be read, the check reports that.
    let head = context.event_store.head().await.ok();
    // Only contiguous positions tell how many events are left.
    let head = head.filter(|_| context.event_store.has_contiguous_positions());
    let total = head.map(|head| head.get().saturating_sub(after.get()));
    let mut progress = Progress::start("Checking events", total);
    let options = CheckOptions { after, max_findings: arguments.limit, max_events: u64::MAX };
    let checked = check(&*context.event_store, options, |events| progress.set_done(events))
        .await
        .map_err(unreadable)?;
    drop(progress);
    // The file is checked only together with the whole log.
    let file_problems = if arguments.from.is_none() {
        if let EventStoreLocation::Sqlite(_) = context.locations.event_store {
            // The check takes minutes for a large log. Standard error may be closed.
            let _ = writeln!(stderr(), "SQLite's quick check of the file …");
        }
        file_problems(context.event_store.check_file().await)
    } else {
        None
    };
    let text = report_text(&checked, file_problems.as_deref(), options.max_findings);
    let has_findings =
        checked.finding_count() > 0 || file_problems.as_ref().is_some_and(|found| !found.is_empty());
    Ok(Answer::new(&CheckReport { checked, file_problems }, text)?.with_finding(has_findings))
}

/// The result of a check of the events, and of the file that has them.
#[derive(Serialize)]
struct CheckReport {
    #[serde(flatten)]
    checked: EventsCheck,
    /// The problems that SQLite finds in the file; `None` if the file was not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_problems: Option<Vec<String>>,
}

/// Returns the problems of the log's file; `None` if the log is not in a file. If the check of the file failed, its error
/// is the problem, so that the findings in the events are reported nevertheless.
fn file_problems(checked: Result<Option<Vec<String>>, EventStoreError>) -> Option<Vec<String>> {
    checked.unwrap_or_else(|error| {
        Some(vec![match error {
            EventStoreError::Damaged(error) => error_chain(&*error),
            error => format!("the check could not be finished: {}", error_chain(&error)),
        }])
    })
}

fn report_text(checked: &EventsCheck, file_problems: Option<&[String]>, max_findings: usize) -> String {
    let EventsCheck { position, events, types, findings, discarded, .. } = checked;
    let verdict = match checked.finding_count() {
        0 if *discarded > 0 => format!("all can be read but {discarded} that operators discarded"),
        0 => "all can be read".to_owned(),
        found => counted(found, "finding"),
    };
    let mut text = format!("{} up to position {position}: {verdict}\n", counted(*events, "event"));
    match file_problems {
        None => {}
        Some([]) => text += "SQLite's quick check of the file finds no damage\n",
        Some(problems) => {
            text += "SQLite's quick check of the file finds problems, maybe outside of the events:\n";
            text.extend(problems.iter().map(|problem| format!("  {}\n", escaped(problem))));
        }
    }
    if !findings.is_empty() {
        text.push('\n');
        let rows: Vec<_> = findings.iter().map(finding_row).collect();
        text += &table_with_wrapped_last_column(
            [
                Column::whole("POSITION"),
                Column::whole("PROBLEM"),
                Column::shrinkable_to(10, "EVENT"),
                Column::whole("VERSION"),
                Column::whole("STREAM"),
                Column::whole("REVISION"),
                Column::whole("DETAIL"),
            ],
            &rows,
        );
        if findings.len() >= max_findings && checked.finding_count() > findings.len() as u64 {
            text += "only the first findings are listed; a higher --limit lists more\n";
        }
    }
    if !types.is_empty() {
        text.push('\n');
        let rows: Vec<_> = types.iter().map(|(name, count)| [name.clone(), count.to_string()]).collect();
        text += &table_with_wrapped_last_column(["EVENT", "COUNT"], &rows);
    }
    text
}

fn finding_row(finding: &EventFinding) -> [String; 7] {
    [
        finding.position.to_string(),
        finding.problem.as_str().to_owned(),
        finding.event_type.clone(),
        finding.schema_version.to_string(),
        abbreviated_stream(&finding.stream),
        finding.revision.to_string(),
        finding.detail.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_of_the_file_that_fails_is_a_problem_of_the_file() {
        let unavailable = || EventStoreError::Unavailable("disk I/O error".into());
        let problems = file_problems(Err(unavailable())).unwrap();
        assert!(problems.len() == 1 && problems[0].ends_with("disk I/O error"), "{problems:?}");
        let damaged = file_problems(Err(EventStoreError::Damaged("malformed".into())));
        assert_eq!(damaged, Some(vec!["malformed".to_owned()]));
        assert_eq!(file_problems(Ok(None)), None);
    }
}
