//! The fields of rows and documents, among them the sender and the data of a message.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use chat_domain::{MessageData, Sender};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The value of a field. The data of a message is kept as text, because a [`Value`] rounds long numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// Any value except the data of a message.
    Json(Value),
    /// The data of a message.
    Data(MessageData),
}

/// The fields of a row or document, by name.
pub type Fields = BTreeMap<Cow<'static, str>, FieldValue>;

impl FieldValue {
    /// The value of a field that is not there.
    pub const NULL: Self = Self::Json(Value::Null);
}

impl Default for FieldValue {
    fn default() -> Self {
        Self::NULL
    }
}

impl From<Value> for FieldValue {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

/// Writes the value as JSON.
impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(value) => value.fmt(f),
            Self::Data(data) => f.write_str(data.as_str()),
        }
    }
}

/// Converts JSON values to fields. Not for the data of a message, which is [`FieldValue::Data`].
pub(crate) fn json_fields<Name: From<&'static str>, const N: usize>(
    fields: [(&'static str, Value); N],
) -> impl Iterator<Item = (Name, FieldValue)> {
    fields.into_iter().map(|(name, value)| (name.into(), value.into()))
}

/// Returns the optional fields of a message, `sender` and `data`, if the message has them.
pub(crate) fn attribute_fields<Name: From<&'static str>>(
    sender: Option<&Sender>,
    data: Option<&MessageData>,
) -> impl Iterator<Item = (Name, FieldValue)> {
    let sender = sender.map(|sender| ("sender".into(), json!(sender).into()));
    sender.into_iter().chain(data.map(|data| ("data".into(), FieldValue::Data(data.clone()))))
}
