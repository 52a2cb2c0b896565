//! Rows of the read model, with the field names of the HTTP API.

use chat_domain::{Position, Timestamp};
use chat_ports::read_model::{AppRow, ChatRow, MessageRow, Missing, ReadModel, ReadModelError};
use serde_json::{Value, json};

use super::subject::Subject;
use super::subject_state::Existence;
use crate::row_fields::{FieldValue, attribute_fields, json_fields};

/// A row of the read model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The position of the read model.
    pub(super) position: Position,
    pub(super) existence: Existence,
    pub(super) fields: Vec<(&'static str, FieldValue)>,
}

/// Reads the row of a subject.
pub(super) async fn read_row(read_model: &dyn ReadModel, subject: Subject) -> Result<Row, ReadModelError> {
    let (position, row_fields) = match subject {
        Subject::App(app) => {
            let snapshot = read_model.app(app).await?;
            (snapshot.position, snapshot.value.as_ref().map(app_fields).map_err(|missing| *missing))
        }
        Subject::Chat(app, chat) => {
            let snapshot = read_model.chat(app, chat).await?;
            (snapshot.position, snapshot.value.as_ref().map(chat_fields).map_err(|missing| *missing))
        }
        Subject::Message(app, chat, message) => {
            let snapshot = read_model.message(app, chat, message).await?;
            (snapshot.position, snapshot.value.as_ref().map(message_fields).map_err(|missing| *missing))
        }
    };
    let (existence, fields) = match row_fields {
        Ok(fields) => (Existence::Present, fields),
        Err(Missing::Deleted) => (Existence::Deleted, Vec::new()),
        Err(Missing::App | Missing::Chat | Missing::Message) => (Existence::Absent, Vec::new()),
    };
    Ok(Row { position, existence, fields })
}

fn app_fields(row: &AppRow) -> Vec<(&'static str, FieldValue)> {
    json_fields([
        ("name", json!(row.name.as_str())),
        ("app_token", json!(row.token.expose())),
        ("chat_count", json!(row.chat_count)),
        ("created_at", timestamp_json(row.created_at)),
        ("updated_at", timestamp_json(row.updated_at)),
        ("version", json!(row.version.get())),
    ])
    .collect()
}

fn chat_fields(row: &ChatRow) -> Vec<(&'static str, FieldValue)> {
    json_fields([
        ("chat_number", json!(row.number.get())),
        ("message_count", json!(row.message_count)),
        ("created_at", timestamp_json(row.created_at)),
        ("updated_at", timestamp_json(row.updated_at)),
        ("version", json!(row.version.get())),
    ])
    .collect()
}

fn message_fields(row: &MessageRow) -> Vec<(&'static str, FieldValue)> {
    let number_and_body =
        json_fields([("message_number", json!(row.number.get())), ("body", json!(row.body))]);
    let attributes = attribute_fields(row.sender.as_ref(), row.data.as_ref());
    let times_and_version = json_fields([
        ("created_at", timestamp_json(row.created_at)),
        ("updated_at", timestamp_json(row.updated_at)),
        ("version", json!(row.version.get())),
    ]);
    number_and_body.chain(attributes).chain(times_and_version).collect()
}

fn timestamp_json(time: Timestamp) -> Value {
    json!(time.to_string())
}
