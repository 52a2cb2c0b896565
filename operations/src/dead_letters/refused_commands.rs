//! The commands on a stream that are refused because of a dead letter.

use chat_domain::{Position, StreamId};
use chat_ports::event_store::stream_reader::{StreamReadError, StreamReader};
use chat_ports::event_store::{EventStore, EventStoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The commands on a stream that are refused until an operator resolves a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusedCommands {
    /// All commands: the last number of the stream is not known, because an event can't be read.
    All,
    /// Edits and deletions: the last number is known, but not which message the dead letter edited or deleted.
    EditsAndDeletions,
}

/// Returns the commands that are refused because of the event at `position`, which blocks `stream`; `None` if none are.
pub(super) async fn refused_commands(
    log: &dyn EventStore,
    stream: &str,
    position: Position,
) -> Result<Option<RefusedCommands>, EventStoreError> {
    let creation_type = match StreamId::parse(stream) {
        Ok(StreamId::App(_)) => "ChatCreated",
        Ok(StreamId::Chat(..)) => "MessageCreated",
        Err(_) => return Ok(None),
    };
    let mut reader = StreamReader::new(log);
    let Some(last) = reader.last_event(stream).await? else { return Ok(None) };
    match reader.last_number(&last, creation_type).await {
        Ok(_) => {}
        Err(StreamReadError::Unreadable(_)) => return Ok(Some(RefusedCommands::All)),
        Err(StreamReadError::Store(error)) => return Err(error),
    }
    // Events of an app's stream edit or delete no message.
    if creation_type == "ChatCreated" {
        return Ok(None);
    }
    let event = log.event_at(position).await?;
    let may_hide_change =
        event.is_some_and(|event| event.event_type != creation_type && event.decode().is_err());
    Ok(may_hide_change.then_some(RefusedCommands::EditsAndDeletions))
}
