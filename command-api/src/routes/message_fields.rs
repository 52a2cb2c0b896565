//! The sender and the data of a message in request bodies.

use chat_domain::{DataChange, MessageData, Sender, SenderId, SenderName};
use chat_web::error_code::ErrorCode;
use chat_web::problem::Problem;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A member of a request body, as it was sent. Fields of this type need `#[serde(default)]`: without it, serde reads an
/// absent member as [`JsonMember::Null`].
#[derive(Default)]
pub(super) enum JsonMember {
    /// The body does not have the member.
    #[default]
    Absent,
    /// The member is `null`.
    Null,
    /// The member has another value.
    Value(Box<RawValue>),
}

impl<'de> Deserialize<'de> for JsonMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

impl JsonMember {
    /// Returns the sender of a new message. `null` means the same as an absent member.
    pub(super) fn into_sender(self) -> Result<Option<Sender>, Problem> {
        match self {
            Self::Absent | Self::Null => Ok(None),
            Self::Value(json) => parse_sender(&json).map(Some),
        }
    }

    /// Returns the data of a new message. `null` means the same as an absent member.
    pub(super) fn into_data(self) -> Result<Option<MessageData>, Problem> {
        Ok(self.into_data_change()?.apply(None))
    }

    /// Returns the change of a message's data.
    pub(super) fn into_data_change(self) -> Result<DataChange, Problem> {
        match self {
            Self::Absent => Ok(DataChange::Keep),
            Self::Null => Ok(DataChange::Remove),
            Self::Value(json) => {
                MessageData::parse(&json).map(DataChange::Replace).map_err(Problem::invalid_message_data)
            }
        }
    }
}

fn parse_sender(json: &RawValue) -> Result<Sender, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct SenderMembers {
        id: String,
        name: Option<String>,
    }

    // serde also deserializes a struct from an array.
    let is_object = json.get().starts_with('{');
    let members = serde_json::from_str(json.get()).ok().filter(|_| is_object);
    let SenderMembers { id, name } = members.ok_or_else(|| Problem::from_code(ErrorCode::SenderInvalid))?;
    let id = SenderId::parse(id).map_err(Problem::invalid_sender)?;
    let name = name.map(SenderName::parse).transpose().map_err(Problem::invalid_sender)?;
    Ok(Sender { id, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(json: &str) -> Result<Option<Sender>, (ErrorCode, String)> {
        let member: JsonMember = serde_json::from_str(json).unwrap();
        member.into_sender().map_err(|problem| (problem.code(), problem.detail().to_owned()))
    }

    #[test]
    fn a_sender_has_an_id_and_optionally_a_name() {
        let named = sender(r#"{ "name": "Nadia", "id": "u-17" }"#).unwrap().unwrap();
        assert_eq!((named.id.as_str(), named.name.as_ref().map(SenderName::as_str)), ("u-17", Some("Nadia")));
        for without_name in [r#"{"id":"u-17"}"#, r#"{"id":"u-17","name":null}"#] {
            assert_eq!(sender(without_name).unwrap().unwrap().name, None, "{without_name}");
        }
        assert_eq!(sender("null"), Ok(None));
    }

    #[test]
    fn an_invalid_sender_is_refused_without_quoting_it() {
        let shape = "`sender` must be an object with the string `id` and, optionally, the string `name`";
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(129));
        for (json, detail) in [
            (r#""secret""#, shape),
            ("17", shape),
            (r#"["secret","secret"]"#, shape),
            ("{}", shape),
            (r#"{"id":17}"#, shape),
            (r#"{"id":null}"#, shape),
            (r#"{"id":"a","secret":1}"#, shape),
            (r#"{"id":"a","id":"secret"}"#, shape),
            (r#"{"id":"\ud800"}"#, shape),
            (r#"{"id":""}"#, "the sender's id is empty"),
            (&long, "the sender's id is longer than 128 characters"),
            (r#"{"id":"a\n"}"#, "the sender's id holds a control character"),
            (r#"{"id":"a","name":"\u0000"}"#, "the sender's name holds a NUL character"),
        ] {
            assert_eq!(sender(json), Err((ErrorCode::SenderInvalid, detail.to_owned())), "{json}");
        }
    }
}
