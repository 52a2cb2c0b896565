//! Records operator actions in the operators' stream.

use std::sync::Arc;

use chat_domain::metadata::{Actor, ActorKind, EventId};
use chat_domain::{ExpectedRevision, Metadata, OperatorAction, operator_action};
use chat_ports::clock;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventStore, EventStoreError, NewEvent, StreamAppend, StreamRead,
};
use thiserror::Error;

/// The maximal number of attempts to append an action. An attempt fails if a concurrent action is appended first.
const MAX_ATTEMPTS: usize = 20;

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The person's name, such as `alice@ops-1`.
    pub name: String,
    /// The program that the operator uses, with its version.
    pub program: String,
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

/// Appends an action to the operators' stream.
pub async fn record_action(
    log: &dyn EventStore,
    operator: &Operator,
    action: &OperatorAction,
) -> Result<AppendReceipt, OperatorActionError> {
    let id = clock::time_ordered_uuid();
    let metadata = Metadata {
        command: action.event_type().to_owned(),
        actor: Actor {
            kind: ActorKind::Operator,
            name: Some(operator.name.clone()),
            address: None,
            user_agent: Some(operator.program.clone()),
        },
        correlation_id: id.to_string(),
        causation_id: id.to_string(),
        idempotency: None,
    };
    // Strings always serialize.
    let metadata: Arc<str> = serde_json::to_string(&metadata).unwrap_or_default().into();
    let stream: Arc<str> = operator_action::STREAM.into();
    for _ in 0..MAX_ATTEMPTS {
        let last_event = StreamRead::last_event(Arc::clone(&stream));
        let last = log.read_stream(last_event).await?.pop().map(|event| event.revision);
        let event = NewEvent {
            id: EventId::new(id),
            event_type: action.event_type(),
            schema_version: action.schema_version(),
            recorded_at: clock::now(),
            data: action.payload(),
            metadata: Arc::clone(&metadata),
        };
        let append = StreamAppend {
            stream: Arc::clone(&stream),
            expected_revision: ExpectedRevision::from_last_revision(last),
            events: vec![event],
        };
        match log.append(vec![append]).await.pop() {
            Some(Ok(receipt)) => return Ok(receipt),
            Some(Err(AppendError::Conflict)) | None => {}
            Some(Err(error)) => return Err(OperatorActionError::Append(error)),
        }
    }
    Err(OperatorActionError::Contended)
}
