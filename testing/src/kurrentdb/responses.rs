//! Parts of responses that several requests share.

use std::time::Duration;

use ::uuid::Uuid;
use chat_kurrentdb_protocol::streams::ReadResp;
use chat_kurrentdb_protocol::streams::batch_append_resp::success::{CurrentRevisionOption, PositionOption};
use chat_kurrentdb_protocol::streams::batch_append_resp::{Result as AppendResult, Success};
use chat_kurrentdb_protocol::streams::read_resp::read_event::{Position, RecordedEvent};
use chat_kurrentdb_protocol::streams::read_resp::{Content, ReadEvent};
use chat_kurrentdb_protocol::{
    AllStreamPosition, Empty, Status as WireStatus, StreamIdentifier, Uuid as WireUuid, uuid,
};
use tonic::{Code, Status};

use super::log::Record;

/// The creation time of all events, since 1970.
const CREATED_AT: Duration = Duration::from_secs(1_790_000_000);

pub(super) fn wire_uuid(id: Uuid) -> WireUuid {
    WireUuid { value: Some(uuid::Value::String(id.to_string())) }
}

pub(super) fn all_stream_position(position: u64) -> AllStreamPosition {
    AllStreamPosition { commit_position: position, prepare_position: position }
}

/// The result of an append that was stored now or before.
pub(super) fn append_success(revision: u64, position: Option<u64>) -> AppendResult {
    let position = match position {
        Some(position) => PositionOption::Position(all_stream_position(position)),
        None => PositionOption::NoPosition(Empty {}),
    };
    AppendResult::Success(Success {
        current_revision_option: Some(CurrentRevisionOption::CurrentRevision(revision)),
        position_option: Some(position),
    })
}

/// The result of an append that failed. A server that is not ready answers with the code `Ok`.
pub(super) fn append_error(code: Code, message: &str) -> AppendResult {
    AppendResult::Error(WireStatus { code: code.into(), message: message.to_owned() })
}

pub(super) fn read_response(content: Content) -> ReadResp {
    ReadResp { content: Some(content) }
}

pub(super) fn event_response(record: &Record) -> ReadResp {
    let mut metadata = record.proposed.metadata.clone();
    metadata.insert("created".to_owned(), (CREATED_AT.as_secs() * 10_000_000).to_string());
    let event = RecordedEvent {
        id: Some(wire_uuid(record.proposed.id)),
        stream_identifier: Some(StreamIdentifier { stream_name: record.stream.clone() }),
        stream_revision: record.revision,
        prepare_position: record.position,
        commit_position: record.position,
        metadata,
        custom_metadata: record.proposed.custom_metadata.clone(),
        data: record.proposed.data.clone(),
    };
    let position = Some(Position::CommitPosition(record.position));
    read_response(Content::Event(ReadEvent { event: Some(event), link: None, position }))
}

pub(super) fn stream_deleted_status() -> Status {
    let mut status = Status::failed_precondition("Event stream is deleted.");
    set_metadata(&mut status, "exception", "stream-deleted");
    status
}

pub(super) fn set_metadata(status: &mut Status, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        status.metadata_mut().insert(name, value);
    }
}
