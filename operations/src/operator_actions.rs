//! Recording what operators do, in a stream of its own.

use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::{Actor, ActorKind, EventId};
use chat_domain::{ExpectedRevision, Metadata, OperatorAction, operator_action};
use chat_ports::clock;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventStore, EventStoreError, EventTypeFilter, NewEvent, ReadStart,
    StreamAppend, StreamRead,
};
use thiserror::Error;
use uuid::Uuid;

/// How often an act is tried again that somebody else's act came before.
const MAX_ATTEMPTS: usize = 20;

/// Who does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// A name that others know the person by, such as `alice@ops-1`.
    pub name: String,
    /// The program that carries it out, with its version.
    pub program: String,
}

/// Why an act could not be recorded. It has not been carried out then, unless its outcome is unknown.
#[derive(Debug, Error)]
pub enum OperatorActionError {
    /// The log could not be read.
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    /// The log took other acts first, again and again.
    #[error("others keep recording acts at the same time; nothing was recorded")]
    Contended,
    /// The log could not be written.
    #[error("the act could not be recorded")]
    Append(#[source] AppendError),
}

/// Records an act at the end of the operators' stream; answers where it ended up.
pub async fn record_action(
    log: &dyn EventStore,
    operator: &Operator,
    operation: &OperatorAction,
) -> Result<AppendReceipt, OperatorActionError> {
    let id = Uuid::now_v7();
    let metadata = Metadata {
        command: operation.event_type().to_owned(),
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
        let end = StreamRead {
            stream: Arc::clone(&stream),
            start: ReadStart::End,
            filter: EventTypeFilter::All,
            limit: 1,
        };
        let last = log.read_stream(end).await?.pop().map(|event| event.revision);
        let event = NewEvent {
            id: EventId::new(id),
            event_type: operation.event_type(),
            schema_version: SchemaVersion::CURRENT,
            recorded_at: clock::now(),
            data: operation.payload(),
            metadata: Arc::clone(&metadata),
        };
        let append = StreamAppend {
            stream: Arc::clone(&stream),
            expected_revision: ExpectedRevision::from_last_revision(last),
            events: vec![event],
        };
        match log.append(vec![append]).await.pop() {
            Some(Ok(appended)) => return Ok(appended),
            Some(Err(AppendError::Conflict)) | None => {}
            Some(Err(error)) => return Err(OperatorActionError::Append(error)),
        }
    }
    Err(OperatorActionError::Contended)
}
