//! Begins a new incarnation of the log, after it was set back or has lost events.

use chat_domain::operator_action::LogIncarnationBegan;
use chat_ports::clock;
use chat_ports::event_store::{EventStore, EventStoreError, Incarnation, LogId, NewIncarnation};
use thiserror::Error;
use uuid::Uuid;

use crate::operator_actions::{Operator, OperatorActionError, record_action};

/// Why an incarnation did not begin, or was not recorded as an operator action.
#[derive(Debug, Error)]
pub enum IncarnationError {
    /// It did not begin.
    #[error("no new incarnation of the log could begin")]
    Begin(#[source] EventStoreError),
    /// It began, and the log has the reason, but not the operator's name.
    #[error("the new incarnation has begun, but the operator action could not be recorded")]
    Record(#[source] OperatorActionError),
}

/// Begins an incarnation after the last event of a log, and records the operator action as the first event of the
/// incarnation. No process may append to the log meanwhile. After the beginning of the incarnation, positions that were
/// taken from the logs in `replaces` are refused, among them those in consistency tokens.
pub async fn begin_incarnation(
    log: &dyn EventStore,
    operator: &Operator,
    reason: &str,
    replaces: Vec<LogId>,
) -> Result<Incarnation, IncarnationError> {
    let incarnation = NewIncarnation {
        log: LogId(Uuid::new_v4()),
        began_at: clock::now(),
        reason: reason.to_owned(),
        replaces,
    };
    let begun = log.begin_incarnation(incarnation).await.map_err(IncarnationError::Begin)?;
    let action = LogIncarnationBegan {
        log: begun.log.0.to_string(),
        kept_up_to: begun.began_after,
        reason: reason.to_owned(),
    };
    record_action(log, operator, &action.into()).await.map_err(IncarnationError::Record)?;
    Ok(begun)
}
