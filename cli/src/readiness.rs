//! Readiness checks behind `/readyz`.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_command_api::service::CommandService;
use chat_domain::Position;
use chat_operations::counted::counted;
use chat_operations::log_checker::LogCheckStatus;
use chat_ports::clock;
use chat_ports::dead_letter::{DeadLetterCounts, DeadLetterFilter, DeadLetterQuery};
use chat_ports::error_chain;
use chat_ports::event_store::{EventStore, TruncatedStream};
use chat_ports::read_model::ReadModelError;
use chat_ports::search_index::SearchError;
use chat_projector::ProjectorState;
use chat_projector::generations::ActiveReaders;
#[cfg(feature = "redis")]
use chat_redis::RedisConnection;
use chat_web::system_routes::{Part, Projection, Readiness, Status};
use tokio::sync::watch;

use crate::engines::StorageLocations;
use crate::log_guard::LogGate;

/// An engine that does not answer within this time is down.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// A page without dead letters: only their counts are needed.
const COUNTS_ONLY: DeadLetterQuery = DeadLetterQuery {
    after: Position::START,
    limit: 0,
    filter: DeadLetterFilter::NeedsAttention,
    stream: None,
};

/// A projection that lags by more than this is reported as degraded.
const LAG_WARNING_THRESHOLD: Duration = Duration::from_secs(10);

/// The parts of this process that are checked.
pub(crate) struct ReadinessChecks {
    /// Whether the process is about to stop and only serves until gateways have noticed.
    pub(crate) leaving: watch::Receiver<bool>,
    /// The locations of the storage. Reasons why a part is down name them.
    pub(crate) locations: StorageLocations,
    /// Closed while the log has lost events or is not the one that the data belongs to, and once its file was removed or
    /// replaced while the process runs.
    pub(crate) gate: LogGate,
    pub(crate) event_store: Arc<dyn EventStore>,
    /// The background check of the log, if this process takes commands and the log was usable at the start.
    pub(crate) log_check: Option<watch::Receiver<LogCheckStatus>>,
    /// The service of the commands; `None` if this process takes no commands, and once it has stopped serving.
    pub(crate) commands: watch::Receiver<Option<CommandService>>,
    /// The Redis that reserves numbers, if there is one and this process takes commands.
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<RedisConnection>,
    /// The statuses of the projectors of this process.
    pub(crate) projectors: Vec<watch::Receiver<chat_projector::ProjectorStatus>>,
    /// The projections that queries are answered from, if this process answers queries and runs no projectors.
    pub(crate) served_projections: Option<watch::Receiver<ActiveReaders>>,
}

#[async_trait]
impl Readiness for ReadinessChecks {
    async fn parts(&self) -> Vec<Part> {
        let head = ask(&self.locations.event_store, self.event_store.head()).await;
        let event_store = match (self.gate.problem(), &head) {
            (Some(problem), _) => Err(problem.to_string()),
            (None, Ok(_)) => Ok(truncated_streams_reason(&self.event_store.truncated_streams())),
            (None, Err(reason)) => Err(reason.clone()),
        };
        let mut parts = vec![part("event_store", event_store)];
        if let Some(log_check) = &self.log_check {
            parts.push(part("event_log", log_check_reason(&log_check.borrow())));
        }
        let commands = self.commands.borrow().as_ref().map(command_writer_reason);
        if let Some(reason) = commands {
            parts.push(part("command_writer", reason));
        }
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.redis {
            let reply = ask(&self.locations.describe_counters(), redis.ping()).await;
            parts.push(part("redis", reply.map(|()| None)));
        }
        for projector in &self.projectors {
            let has_ended = projector.has_changed().is_err();
            let status = projector.borrow().clone();
            // The head in the projector's status may be out of date.
            let head = head.as_ref().map_or(status.head, |head| *head);
            parts.push(projector_part(&status, has_ended, self.events_between(status.position, head)));
        }
        if let Some(served_projections) = &self.served_projections {
            let ActiveReaders { read_model, search, .. } = served_projections.borrow().clone();
            let of_read_model = ask(&self.locations.read_model, async {
                let position = read_model.position().await?;
                let dead_letters = read_model.dead_letter_page(COUNTS_ONLY).await?;
                Ok::<_, ReadModelError>((position, dead_letters.counts))
            });
            parts.push(
                self.served_projection_part("read_model", of_read_model.await, head.as_ref().ok()).await,
            );
            let folder = self.locations.search_index.display();
            let of_index = ask(&folder, async {
                let read = move || {
                    let index = search.newest()?;
                    Ok::<_, SearchError>((index.position(), index.dead_letter_counts()?))
                };
                let unavailable = |error| Err(SearchError::Unavailable(Box::new(error)));
                tokio::task::spawn_blocking(read).await.unwrap_or_else(unavailable)
            });
            let of_index = of_index.await;
            parts.push(self.served_projection_part("search_index", of_index, head.as_ref().ok()).await);
        }
        if *self.leaving.borrow() {
            parts.push(part("process", Err("it is shutting down".to_owned())));
        }
        parts
    }
}

impl ReadinessChecks {
    /// The number of events between two positions; `None` if positions do not count events.
    fn events_between(&self, position: Position, head: Position) -> Option<u64> {
        self.event_store.has_contiguous_positions().then(|| head.get().saturating_sub(position.get()))
    }

    /// Reports a projection whose projector runs in another process.
    async fn served_projection_part(
        &self,
        name: &str,
        found: Result<(Position, DeadLetterCounts), String>,
        head: Option<&Position>,
    ) -> Part {
        let (position, dead_letters) = match found {
            Ok(found) => found,
            Err(reason) => return part(name, Err(reason)),
        };
        let head = head.copied().unwrap_or(position);
        let mut lag_ms = 0;
        if position < head
            && let Ok(events) = ask(&self.locations.event_store, self.event_store.read_all(position, 1)).await
            && let Some(event) = events.first()
        {
            lag_ms = u64::try_from(clock::now().millis() - event.recorded_at.millis()).unwrap_or(0);
        }
        let state = if lag_ms > 0 { "catching_up" } else { "live" };
        let projection = Projection {
            state: state.to_owned(),
            position: position.get(),
            lag_events: self.events_between(position, head),
            lag_ms,
            pending_dead_letters: dead_letters.pending,
            discarded: dead_letters.unacknowledged_discards,
            last_error: None,
        };
        let reason = dead_letter_reason(dead_letters).or_else(|| lag_reason(Duration::from_millis(lag_ms)));
        Part { projection: Some(projection), ..part(name, Ok(reason)) }
    }
}

/// Reports a projection whose projector runs in this process.
fn projector_part(
    status: &chat_projector::ProjectorStatus,
    has_ended: bool,
    lag_events: Option<u64>,
) -> Part {
    let lag = status.lag(clock::now());
    let reason = match status.state {
        _ if has_ended => Err("the projector has ended".to_owned()),
        ProjectorState::Starting => Err("the projector has not started yet".to_owned()),
        ProjectorState::Waiting => Err(match &status.last_error {
            Some(error) => format!("the projector waits for an engine: {error}"),
            None => "the projector waits for an engine".to_owned(),
        }),
        ProjectorState::Stopped => Err("the projector has stopped".to_owned()),
        ProjectorState::Rebuilding => Ok(Some("it is being rebuilt from the log".to_owned())),
        ProjectorState::StandingBy | ProjectorState::CatchingUp | ProjectorState::Live => {
            let dead_letters =
                DeadLetterCounts { pending: status.dead_letters, unacknowledged_discards: status.discarded };
            Ok(dead_letter_reason(dead_letters).or_else(|| lag_reason(lag)))
        }
    };
    let projection = Projection {
        state: status.state.as_str().to_owned(),
        position: status.position.get(),
        lag_events,
        lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
        pending_dead_letters: status.dead_letters,
        discarded: status.discarded,
        last_error: status.last_error.clone(),
    };
    Part { projection: Some(projection), ..part(status.name, reason) }
}

fn log_check_reason(status: &LogCheckStatus) -> Result<Option<String>, String> {
    match (&status.loss, status.undecodable) {
        (Some(loss), _) => Err(loss.clone()),
        (None, 0) => Ok(None),
        // An event may have two problems: in its payload and in its metadata.
        (None, problems) => {
            Ok(Some(format!("events of the log can't be decoded ({})", counted(problems, "problem"))))
        }
    }
}

fn dead_letter_reason(dead_letters: DeadLetterCounts) -> Option<String> {
    let DeadLetterCounts { pending, unacknowledged_discards: discarded } = dead_letters;
    match (pending, discarded) {
        (0, 0) => None,
        (0, 1) => Some("1 event was discarded and not acknowledged".to_owned()),
        (0, discarded) => Some(format!("{discarded} events were discarded and not acknowledged")),
        (1, _) => Some("1 event could not be applied and is a dead letter".to_owned()),
        (pending, _) => Some(format!("{pending} events could not be applied and are dead letters")),
    }
}

fn command_writer_reason(commands: &CommandService) -> Result<Option<String>, String> {
    let writer = commands.writer();
    let full_queue_reason = (writer.available_capacity() == 0).then(|| "its queue is full".to_owned());
    commands.write_failure().map_or_else(
        || Ok(full_queue_reason.or_else(|| refused_commands_reason(&writer.refused_positions()))),
        Err,
    )
}

/// Names up to three streams that were or will be deleted or truncated in the event store. The tokens in the names are
/// left out.
fn truncated_streams_reason(streams: &[TruncatedStream]) -> Option<String> {
    const MAX_NAMED: usize = 3;
    let named: Vec<String> = streams.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = streams.len().saturating_sub(MAX_NAMED);
    (!named.is_empty()).then(|| {
        let named = named.join("; ");
        if more > 0 { format!("{named}; and {more} more") } else { named }
    })
}

/// Names the positions of up to three events because of which commands are refused. Does not name their streams,
/// because the names of streams hold tokens of apps.
fn refused_commands_reason(positions: &[Position]) -> Option<String> {
    const MAX_NAMED: usize = 3;
    let named: Vec<String> = positions.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = if positions.len() > MAX_NAMED { ", …" } else { "" };
    (!named.is_empty()).then(|| {
        let named = named.join(", ");
        let events = if positions.len() == 1 { "the event at position" } else { "the events at positions" };
        format!("commands on some streams are refused: {events} {named}{more} can't be read")
    })
}

fn lag_reason(lag: Duration) -> Option<String> {
    (lag > LAG_WARNING_THRESHOLD).then(|| format!("it trails the log by {} seconds", lag.as_secs()))
}

/// Reports a part: `Err` with a reason is down, `Ok` with a reason is degraded.
fn part(name: &str, found: Result<Option<String>, String>) -> Part {
    let (status, reason) = match found {
        Ok(None) => (Status::Ok, None),
        Ok(Some(reason)) => (Status::Degraded, Some(reason)),
        Err(reason) => (Status::Down, Some(reason)),
    };
    Part { name: name.to_owned(), status, reason, projection: None }
}

/// Waits for an engine's answer until the timeout. Errors name the engine's location.
async fn ask<T, E: Error + 'static>(
    location: &impl fmt::Display,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(CHECK_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| format!("{location}: {}", error_chain(&error))),
        Err(_) => Err(format!("{location} does not answer")),
    }
}
