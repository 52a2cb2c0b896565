//! Records operator actions in the operators' stream.

use std::fmt;

use chat_domain::metadata::{Actor, ActorKind, EventId};
use chat_domain::{ExpectedRevision, Metadata, OperatorAction, Revision, Timestamp, operator_action};
use chat_ports::clock;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, NewEvent, RecordedEvent,
    StreamAppend, StreamRead,
};
use thiserror::Error;
use uuid::Uuid;

use crate::envelope::Diagnostic;

/// The maximal number of attempts to append an action. An attempt fails if a concurrent action is appended first.
pub(crate) const MAX_APPEND_ATTEMPTS: usize = 20;

/// The id of a job: that of the event that requested it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobId(Uuid);

impl JobId {
    /// The job that an event requested.
    pub fn from_request(event: EventId) -> Self {
        Self(event.uuid())
    }

    /// The id of a job that an operator requests: derived from the operator's name and the idempotency key, or a new
    /// one if there is no key.
    pub(crate) fn generate(operator: &Operator, key: Option<&str>) -> Self {
        match key {
            Some(key) => {
                let name = format!("job {} {key}", operator.name);
                Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
            }
            None => Self(clock::time_ordered_uuid()),
        }
    }

    /// Parses an id, as [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok().map(Self);
        id.filter(|id| id.to_string() == text)
    }

    /// The id of the event that requested the job.
    pub(crate) fn request_id(self) -> EventId {
        EventId::new(self.0)
    }

    /// The id of an action of the job. It derives from the job and the action, so that a job which is taken up again,
    /// or which two processes run, records each action once.
    fn action_id(self, action: &OperatorAction) -> EventId {
        let name = match action {
            // Without the payload, because the reports of two processes may differ.
            OperatorAction::JobEnded(_) => action.event_type().to_owned(),
            _ => format!("{} {}", action.event_type(), action.payload()),
        };
        EventId::new(Uuid::new_v5(&self.0, name.as_bytes()))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The person's name, such as `alice@ops-1`.
    pub name: String,
    /// The program that the operator uses: the command line with its version, such as `chat-api/0.1.0`, or the part of
    /// the server that takes the action, `admin-api` or `console`.
    pub program: String,
    /// The job that acts for the operator; `None` if the operator's program acts itself.
    pub job: Option<JobId>,
}

/// Why an operator action could not be recorded. The action has no effect, unless the outcome of the append is unknown.
#[derive(Debug, Error)]
pub enum OperatorActionError {
    /// The log could not be read.
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    /// Concurrent actions were appended first in every attempt.
    #[error("other operators record actions at the same time; nothing was recorded")]
    Contended,
    /// The log could not be written.
    #[error("the operator action could not be recorded")]
    Append(#[source] AppendError),
}

/// The error for a log that takes no appends. Says why, and where to read what to do.
#[derive(Debug, Error)]
#[error("{0}; docs/operations/lost-events.md says what to do first")]
pub struct LogClosed(String);

/// Fails if the log takes no appends, as while it has lost events.
pub(crate) fn ensure_takes_appends(log: &dyn EventStore) -> Result<(), LogClosed> {
    log.closed_because().map_or(Ok(()), |reason| Err(LogClosed(reason)))
}

/// Appends an action to the operators' stream. An action of a job is appended once: a repetition returns the receipt of
/// the first one.
pub async fn record_action(
    log: &dyn EventStore,
    operator: &Operator,
    action: &OperatorAction,
) -> Result<AppendReceipt, OperatorActionError> {
    record_action_if(log, operator, action, async || Ok(())).await
}

/// Appends an action to the operators' stream if `ensure_possible` succeeds. No other action is appended between that
/// check and this action.
pub(crate) async fn record_action_if<E: From<OperatorActionError>>(
    log: &dyn EventStore,
    operator: &Operator,
    action: &OperatorAction,
    ensure_possible: impl AsyncFn() -> Result<(), E>,
) -> Result<AppendReceipt, E> {
    let id = match operator.job {
        Some(job) => job.action_id(action),
        None => EventId::new(clock::time_ordered_uuid()),
    };
    let mut failure = OperatorActionError::Contended;
    for _ in 0..MAX_APPEND_ATTEMPTS {
        let read = StreamRead::last_event(operator_action::STREAM);
        let last_revision = log
            .read_stream(read)
            .await
            .map_err(OperatorActionError::EventStore)?
            .pop()
            .map(|event| event.revision);
        // The action is looked up after the last revision was read. So if another process appends the same action
        // meanwhile, the append below conflicts.
        if operator.job.is_some()
            && let Some(recorded) = find_action(log, id).await.map_err(OperatorActionError::EventStore)?
        {
            return Ok(AppendReceipt { position: recorded.position, revision: recorded.revision });
        }
        ensure_possible().await?;
        match append_action(log, id, operator, action, last_revision).await {
            Ok(receipt) => return Ok(receipt),
            Err(AppendError::Conflict) => failure = OperatorActionError::Contended,
            // The next attempt finds the action if it was stored.
            Err(error @ AppendError::OutcomeUnknown(_)) if operator.job.is_some() => {
                failure = OperatorActionError::Append(error);
            }
            Err(error) => return Err(OperatorActionError::Append(error).into()),
        }
    }
    Err(failure.into())
}

/// Finds an event of the operators' stream.
pub(crate) async fn find_action(
    log: &dyn EventStore,
    id: EventId,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let since = Timestamp::from_millis(0);
    log.find_event(EventLookup { id, stream: operator_action::STREAM.into(), since }).await
}

/// Returns a warning if the log takes no appends, as while it has lost events.
pub fn closed_log_warning(log: &dyn EventStore) -> Option<Diagnostic> {
    let reason = log.closed_because()?;
    Some(Diagnostic::warning(format!("{reason}; nothing is appended to it, and actions are refused")))
}

/// Makes one attempt to append an action after `last_revision` of the operators' stream.
pub(crate) async fn append_action(
    log: &dyn EventStore,
    id: EventId,
    operator: &Operator,
    action: &OperatorAction,
    last_revision: Option<Revision>,
) -> Result<AppendReceipt, AppendError> {
    // The events of a job are one trace, which its request begins.
    let trace = operator.job.map_or(id, JobId::request_id).uuid().to_string();
    let metadata = Metadata {
        command: action.event_type().to_owned(),
        actor: Actor {
            kind: ActorKind::Operator,
            name: Some(operator.name.clone()),
            address: None,
            user_agent: Some(operator.program.clone()),
        },
        correlation_id: trace.clone(),
        causation_id: trace,
        idempotency: None,
    };
    let event = NewEvent {
        id,
        event_type: action.event_type(),
        schema_version: action.schema_version(),
        recorded_at: clock::now(),
        data: action.payload(),
        // Strings always serialize.
        metadata: serde_json::to_string(&metadata).unwrap_or_default().into(),
    };
    let append = StreamAppend {
        stream: operator_action::STREAM.into(),
        expected_revision: ExpectedRevision::from_last_revision(last_revision),
        events: vec![event],
    };
    log.append(vec![append]).await.pop().unwrap_or(Err(AppendError::Conflict))
}
