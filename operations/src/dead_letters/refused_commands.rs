//! The commands on a stream that are refused because of a dead letter.

use chat_domain::{Position, StreamId};
use chat_ports::event_store::stream_reader::{StreamReadError, StreamReader};
use chat_ports::event_store::{EventStore, EventStoreError};
use serde::Serialize;
use utoipa::ToSchema;

/// The commands on a stream that are refused until an operator resolves a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusedCommands {
    /// All commands: the stream can't be continued after the event.
    All,
    /// Edits and deletions: other events follow it, but it is not known which messages it edited or deleted.
    EditsAndDeletions,
}

/// Returns the commands that are refused because of the event at `position`, which blocks `stream`.
pub(super) async fn refused_commands(
    log: &dyn EventStore,
    stream: &str,
    position: Position,
) -> Result<Option<RefusedCommands>, EventStoreError> {
    let creation = match StreamId::parse(stream) {
        Ok(StreamId::App(_)) => "ChatCreated",
        Ok(StreamId::Chat(..)) => "MessageCreated",
        Err(_) => return Ok(None),
    };
    let mut reader = StreamReader::new(log);
    let Some(last) = reader.last_event(stream).await? else { return Ok(None) };
    match reader.last_number(&last, creation).await {
        Ok(_) => {}
        Err(StreamReadError::Unreadable(_)) => return Ok(Some(RefusedCommands::All)),
        Err(StreamReadError::Store(error)) => return Err(error),
    }
    if creation == "ChatCreated" {
        return Ok(None);
    }
    let event = log.event_at(position).await?;
    let hides_changes = event.is_some_and(|event| event.event_type != creation && event.decode().is_err());
    Ok(hides_changes.then_some(RefusedCommands::EditsAndDeletions))
}
