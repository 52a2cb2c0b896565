//! Senders of messages, as the application names them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::define_text;

/// The person or program that sent a message, as the application named it when the message was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    /// The application's own id of the sender.
    pub id: SenderId,
    /// The name that was shown when the message was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SenderName>,
}

/// The reason why text is not a valid sender id or name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidSender {
    /// The id is empty.
    #[error("the sender's id is empty")]
    IdEmpty,
    /// The id is longer than [`SenderId::MAX_CHARS`].
    #[error("the sender's id is longer than {} characters", SenderId::MAX_CHARS)]
    IdTooLong,
    /// The id holds a control character.
    #[error("the sender's id holds a control character")]
    IdControlCharacter,
    /// The name is longer than [`SenderName::MAX_CHARS`].
    #[error("the sender's name is longer than {} characters", SenderName::MAX_CHARS)]
    NameTooLong,
    /// The name holds a NUL character, which Postgres does not accept in text.
    #[error("the sender's name holds a NUL character")]
    NameNul,
}

define_text! {
    /// A sender's id: 1 to 128 characters without control characters. `Debug` shows only its length.
    SenderId, InvalidSender
}
define_text! {
    /// A sender's name: up to 255 characters without a NUL. `Debug` shows only its length.
    SenderName, InvalidSender
}

impl SenderId {
    /// The maximal length of an id, in characters. It may be raised but never lowered, so that stored events stay
    /// readable.
    pub const MAX_CHARS: usize = 128;

    /// Returns the text as an id, if it is valid.
    pub fn parse(text: String) -> Result<Self, InvalidSender> {
        if text.is_empty() {
            return Err(InvalidSender::IdEmpty);
        }
        if text.chars().nth(Self::MAX_CHARS).is_some() {
            return Err(InvalidSender::IdTooLong);
        }
        if text.contains(char::is_control) {
            return Err(InvalidSender::IdControlCharacter);
        }
        Ok(Self(text))
    }
}

impl SenderName {
    /// The maximal length of a name, in characters. It may be raised but never lowered, so that stored events stay
    /// readable.
    pub const MAX_CHARS: usize = 255;

    /// Returns the text as a name, if it is valid.
    pub fn parse(text: String) -> Result<Self, InvalidSender> {
        if text.chars().nth(Self::MAX_CHARS).is_some() {
            return Err(InvalidSender::NameTooLong);
        }
        if text.contains('\0') {
            return Err(InvalidSender::NameNul);
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_ids_and_names_by_characters() {
        assert!(SenderId::parse("é".repeat(128)).is_ok());
        assert_eq!(SenderId::parse("é".repeat(129)), Err(InvalidSender::IdTooLong));
        assert_eq!(SenderId::parse(String::new()), Err(InvalidSender::IdEmpty));
        assert!(SenderName::parse("é".repeat(255)).is_ok());
        assert_eq!(SenderName::parse("é".repeat(256)), Err(InvalidSender::NameTooLong));
        assert!(SenderName::parse(String::new()).is_ok());
    }

    #[test]
    fn rejects_control_characters_in_ids_and_nul_in_names_and_changes_nothing_else() {
        for control in ["a\0", "\n", "a\u{7f}b", "\u{85}"] {
            let parsed = SenderId::parse(control.to_owned());
            assert_eq!(parsed, Err(InvalidSender::IdControlCharacter), "{control:?}");
        }
        assert_eq!(SenderName::parse("a\0".to_owned()), Err(InvalidSender::NameNul));
        let odd = " e\u{301}/%?\u{202e}\u{1F98A} ";
        assert_eq!(SenderId::parse(odd.to_owned()).map(SenderId::into_string).as_deref(), Ok(odd));
    }

    #[test]
    fn a_stored_sender_has_a_valid_id_and_no_unknown_fields() {
        let sender = |json| serde_json::from_str::<Sender>(json);
        assert!(sender(r#"{"id":"u-17"}"#).is_ok());
        assert!(sender(r#"{"id":"u-17","name":"Nadia"}"#).is_ok());
        assert!(sender(r#"{"id":"u-17","avatar":"x"}"#).is_err());
        assert!(sender(r#"{"name":"Nadia"}"#).is_err());
        assert!(sender(r#"{"id":""}"#).is_err());
    }
}
