//! The background check of the log: reads all events periodically, so that damage is found before a damaged event is
//! needed.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::{Position, operator_action};
use chat_ports::clock;
use chat_ports::event_store::stream_reader::DiscardedEvents;
use chat_ports::event_store::{AppendGate, EventStore, EventStoreError, StreamRead};
use metrics::{Unit, describe_gauge, gauge};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::events_check::{EventFinding, EventProblem, EventsCheck, EventsChecker};

/// The pause after each page, as a multiple of the time that the page took: a check uses a fifth of one core, or of the
/// disk, at most.
const PAUSE_FACTOR: u32 = 4;

/// The pause after a transient error of the event store.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The interval at which new discards are looked for while there are events that can't be decoded.
const DISCARD_INTERVAL: Duration = Duration::from_secs(2);

/// The maximum number of findings that one check keeps. The first loss of events is kept in addition.
const MAX_FINDINGS: usize = 64;

/// The result of the checks so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogCheckStatus {
    /// The reason why the log is closed to appends, if it has lost events.
    pub loss: Option<String>,
    /// The number of payloads and metadata that the last complete check could read but not decode. An event counts
    /// twice if both are invalid, and not at all if it is discarded, before the check or after it.
    pub undecodable: u64,
    /// The position up to which the last complete check read the log; `None` before the first check is complete.
    pub checked_up_to: Option<Position>,
}

/// Checks a log at once, and again `interval` after the end of each check, or sooner if the check failed. If a check
/// finds that the log has lost events, closes the gate and returns.
///
/// Logs one line for each check. A check that did not fail also sets the metrics, see [`register_metrics`].
pub async fn run(
    log: Arc<dyn EventStore>,
    interval: Duration,
    gate: AppendGate,
    status: watch::Sender<LogCheckStatus>,
) {
    loop {
        let mut checked = match check_once(&*log).await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the event log can't be checked now"
                );
                sleep(RETRY_PAUSE.max(interval / 10)).await;
                continue;
            }
        };
        record_metrics(&checked);
        if let Some(finding) = find_loss(&checked) {
            let reason = describe_loss(finding);
            tracing::error!(
                position = finding.position.get(),
                problem = finding.problem.as_str(),
                detail = finding.detail,
                "{reason}"
            );
            gate.close(reason.clone());
            status.send_modify(|status| status.loss = Some(reason));
            return;
        }
        let undecodable = checked.finding_count();
        let (events, position) = (checked.events, checked.position.get());
        if undecodable > 0 {
            tracing::warn!(events, position, undecodable, "the event log has events that can't be decoded");
        } else {
            tracing::info!(events, position, "the event log was checked");
        }
        status.send_replace(LogCheckStatus {
            loss: None,
            undecodable,
            checked_up_to: Some(checked.position),
        });
        wait_for_next_check(&*log, interval, &mut checked, &status).await;
    }
}

/// Waits for the time of the next check. Meanwhile takes the events that operators discard out of the status and the
/// metrics. Returns early if all findings that the check has kept are settled and there are more.
async fn wait_for_next_check(
    log: &dyn EventStore,
    interval: Duration,
    checked: &mut EventsCheck,
    status: &watch::Sender<LogCheckStatus>,
) {
    let started = Instant::now();
    let mut last_action = None;
    while !checked.findings.is_empty() && started.elapsed() + DISCARD_INTERVAL < interval {
        sleep(DISCARD_INTERVAL).await;
        // An error is one of the event store, which `/readyz` reports by itself.
        let Ok(discarded) = new_discards(log, &mut last_action).await else { continue };
        if discarded.is_some_and(|discarded| checked.remove_discarded(&discarded)) {
            let undecodable = checked.finding_count();
            tracing::info!(undecodable, "operators have discarded events that can't be decoded");
            record_findings(checked);
            status.send_modify(|status| status.undecodable = undecodable);
        }
    }
    if checked.findings.is_empty() && checked.finding_count() > 0 {
        return;
    }
    sleep(interval.saturating_sub(started.elapsed())).await;
}

/// Reads the discards of the log if operators have acted since the last call.
async fn new_discards(
    log: &dyn EventStore,
    last_action: &mut Option<Position>,
) -> Result<Option<DiscardedEvents>, EventStoreError> {
    let last = log.read_stream(StreamRead::last_event(operator_action::STREAM)).await?;
    let last = last.first().map(|event| event.position);
    if last == *last_action {
        return Ok(None);
    }
    let discarded = DiscardedEvents::load(log).await?;
    *last_action = last;
    Ok(Some(discarded))
}

/// Checks the whole log, or the part before the first loss of events.
async fn check_once(log: &dyn EventStore) -> Result<EventsCheck, EventStoreError> {
    let mut checker = EventsChecker::new(log, Position::START, MAX_FINDINGS).await?;
    loop {
        let started = Instant::now();
        let has_more = match checker.check_page().await {
            Ok(has_more) => has_more,
            Err(error) if error.is_retryable() => {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !has_more || checker.checked().problems.keys().any(|problem| problem.is_loss()) {
            return Ok(checker.checked().clone());
        }
        sleep(started.elapsed() * PAUSE_FACTOR).await;
    }
}

/// Returns the first finding that proves a loss of events.
fn find_loss(checked: &EventsCheck) -> Option<&EventFinding> {
    checked.findings.iter().find(|finding| finding.problem.is_loss())
}

fn describe_loss(finding: &EventFinding) -> String {
    let position = finding.position;
    let damage = match finding.problem {
        EventProblem::Missing => format!("the events directly before position {position} are missing"),
        EventProblem::Gap => format!("the stream of the event at position {position} lacks events before it"),
        _ => format!("the event at position {position} can't be read"),
    };
    format!("the event log is damaged: {damage}; `chat-api events check` lists the damage")
}

fn record_metrics(checked: &EventsCheck) {
    record_findings(checked);
    #[expect(clippy::cast_precision_loss, reason = "a time in seconds is far below 2^53")]
    gauge!("chat_event_log_checked_timestamp_seconds").set((clock::now().millis() / 1_000) as f64);
}

fn record_findings(checked: &EventsCheck) {
    for problem in EventProblem::ALL {
        let count = checked.problems.get(&problem).copied().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "a count of events is far below 2^53")]
        gauge!("chat_event_log_findings", "problem" => problem.as_str()).set(count as f64);
    }
}

/// Registers the metrics of a process that checks its log.
pub fn register_metrics() {
    describe_gauge!(
        "chat_event_log_findings",
        "Problems that the last check of the event log found, by problem."
    );
    describe_gauge!(
        "chat_event_log_checked_timestamp_seconds",
        Unit::Seconds,
        "When the last check of the event log ended, in seconds since 1970; 0 before the first one has ended."
    );
    for problem in EventProblem::ALL {
        gauge!("chat_event_log_findings", "problem" => problem.as_str()).set(0.0);
    }
    gauge!("chat_event_log_checked_timestamp_seconds").set(0.0);
}
