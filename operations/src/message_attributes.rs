//! The sender and the data of a message as JSON values.

use chat_domain::{MessageData, Sender};
use serde_json::{Value, json};

/// The fields of a message that has them: `sender` and `data`.
pub(crate) fn attribute_fields(
    sender: Option<&Sender>,
    data: Option<&MessageData>,
) -> impl Iterator<Item = (&'static str, Value)> {
    let sender = sender.map(|sender| ("sender", json!(sender)));
    sender.into_iter().chain(data.map(|data| ("data", data_json(data))))
}

/// Data as a value, in which numbers of more than 64 bits are rounded; as text if it has a number that is out of range.
pub(crate) fn data_json(data: &MessageData) -> Value {
    serde_json::from_str(data.as_str()).unwrap_or_else(|_| json!(data.as_str()))
}

/// Adds the fields to a JSON object.
pub(crate) fn with_attributes(
    mut object: Value,
    sender: Option<&Sender>,
    data: Option<&MessageData>,
) -> Value {
    for (name, value) in attribute_fields(sender, data) {
        object[name] = value;
    }
    object
}
