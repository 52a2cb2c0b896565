//! Opens the log of a process, and compares it with the evidence beside it.

use std::sync::Arc;
use std::time::Duration;

use chat_ports::event_store::{EventStore, EventStoreError, LogId, LogLineage};
use chat_projector::generations::Generations;
use chat_sqlite::SqliteEventStore;
use tokio::sync::watch;

use super::evidence::{LogEvidence, LogProblem, MISSING_LOG_ADVICE};
use super::gate::LogGate;
use super::missing_log::MissingLog;
use crate::engines::{
    EventStoreLocation, StorageLocations, lacks_log, open_event_store, open_existing_event_store,
    refuse_backup, retry_until_available,
};
use crate::failure::Failure;
use crate::start_progress::StartProgress;

/// The interval at which a process whose log has a problem looks for an operator's decision.
const DECISION_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The log of a serving process.
pub(crate) struct OpenedLog {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) lineage: LogLineage,
    /// The generations of the projections, now and later. With a problem, they don't change.
    pub(crate) generations: watch::Receiver<Generations>,
    /// Why the log takes no commands; `None` if it takes commands.
    pub(crate) problem: Option<LogProblem>,
}

impl OpenedLog {
    /// Opens the log, or creates a missing one. Does not create a SQLite log if there is evidence that it existed: a
    /// [`MissingLog`] takes its place. Waits until the store is available.
    pub(crate) async fn open(
        locations: &StorageLocations,
        progress: &StartProgress,
    ) -> Result<Self, Failure> {
        let name = locations.event_store.describe();
        progress.begin(&name);
        let evidence = LogEvidence::read(locations).await;
        if let Some(problem) = evidence.problem_of_missing_log(&locations.event_store) {
            // The answers of queries carry a log id: that of the log that the projections were folded from.
            let log = evidence.furthest_log().unwrap_or(LogId::NIL);
            let event_store = Arc::new(MissingLog(problem.clone()));
            return Ok(Self::with_problem(event_store, LogLineage::new(log, Vec::new()), &evidence, problem));
        }
        let (event_store, _) = open_event_store(&locations.event_store, progress).await?;
        let read = || event_store.lineage();
        let lineage = retry_until_available(&name, progress, read, EventStoreError::is_retryable).await;
        let lineage =
            lineage.map_err(|error| Failure::because("the incarnations of the log can't be read", &error))?;
        let check = || evidence.problem_of_log(&*event_store);
        let problem = retry_until_available(&name, progress, check, EventStoreError::is_retryable).await;
        let problem = problem.map_err(|error| Failure::because("the event log can't be read", &error))?;
        if let Some(problem) = problem {
            return Ok(Self::with_problem(event_store, lineage, &evidence, problem));
        }
        let read = || Generations::load(&*event_store);
        let generations = retry_until_available(&name, progress, read, EventStoreError::is_retryable).await;
        let generations =
            generations.map_err(|error| Failure::because("the operators' actions can't be read", &error))?;
        let generations = generations.follow(Arc::clone(&event_store));
        Ok(Self { event_store, lineage, generations, problem: None })
    }

    fn with_problem(
        event_store: Arc<dyn EventStore>,
        lineage: LogLineage,
        evidence: &LogEvidence,
        problem: LogProblem,
    ) -> Self {
        tracing::error!(
            "{problem}; no commands are taken and projections stay as they are until an operator has moved away what belongs \
             to another log, restored the log, or accepted the loss with `chat-api events accept-loss`"
        );
        let (_, generations) = watch::channel(Generations::with_live(evidence.furthest_generations()));
        Self { event_store, lineage, generations, problem: Some(problem) }
    }
}

/// Returns when the log has no problem any more. While it has one, the gate is closed for that problem, which may not be
/// the one that was found at the start.
pub(crate) async fn wait_for_decision(locations: &StorageLocations, gate: &LogGate) {
    loop {
        tokio::time::sleep(DECISION_POLL_INTERVAL).await;
        match find_problem(locations).await {
            Ok(None) => return,
            Ok(problem) => gate.set_problem(problem),
            // The log can't be read now.
            Err(_) => {}
        }
    }
}

/// Looks for a problem of the log. Changes nothing.
pub(crate) async fn find_problem(locations: &StorageLocations) -> Result<Option<LogProblem>, Failure> {
    refuse_backup(&locations.event_store)?;
    let unreadable = |error| Failure::because("the event log can't be read", &error);
    let evidence = LogEvidence::read(locations).await;
    if let Some(problem) = evidence.problem_of_missing_log(&locations.event_store) {
        return Ok(Some(problem));
    }
    let event_store: Arc<dyn EventStore> = match &locations.event_store {
        EventStoreLocation::Sqlite(path) => {
            let path = path.clone();
            let opened = tokio::task::spawn_blocking(move || SqliteEventStore::open_read_only(&path)).await;
            let opened = opened.map_err(|error| Failure::because("the event log can't be read", &error))?;
            Arc::new(opened.map_err(unreadable)?)
        }
        #[cfg(any(feature = "kurrentdb", feature = "postgres"))]
        _ => open_existing_log(&locations.event_store, &evidence).await?,
    };
    evidence.problem_of_log(&*event_store).await.map_err(unreadable)
}

/// Opens an existing log for an operator command. Creates no log. If there is none in KurrentDB or in a Postgres database,
/// but evidence of one, the failure has the evidence.
pub(crate) async fn open_existing_log(
    location: &EventStoreLocation,
    evidence: &LogEvidence,
) -> Result<Arc<dyn EventStore>, Failure> {
    let opened = open_existing_event_store(location).await;
    if opened.is_err()
        && let Some(problem) = evidence.problem_of_no_log(&format!("there is no event log in {location}"))
        && lacks_log(location).await
    {
        return Err(Failure::new(format!("{problem}; {MISSING_LOG_ADVICE}")));
    }
    opened
}
