//! Domain events and their stored form.
//!
//! An event is stored as the name of its type, a schema version and a JSON payload. Stored payloads are never changed.
//! Each type has versions of its own. [`Event`] has the fields of the newest version; a payload of an older version is
//! decoded as a struct of that version and upcast. An event is written in the oldest version that holds all of its
//! values, so that older programs can read as many events as possible. `golden/` holds one payload of every version of
//! every type, and a test decodes them all. Operator actions are stored in the same way, see
//! [`crate::operator_action`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AppName, ChatNumber, DataChange, MessageBody, MessageData, MessageNumber, Sender};

/// Defines an enum of events, a struct for the payload of each, and their stored form.
///
/// A type with several versions names the structs of its older versions, oldest first: `Name(NameV1, NameV2) { … }`.
/// For the struct of such a type, the caller implements `From<NameV1>` and `From<NameV2>`, which upcast, and a method
/// `written_version`, which returns the oldest version that holds all values of the payload.
macro_rules! define_events {
    (
        $(#[$enum_doc:meta])* pub enum $enum:ident;
        $(
            $(#[$doc:meta])*
            $name:ident $(($($older:ident),+))? { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ $(,)? }
        )+
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $enum {
            $($(#[$doc])* $name($name),)+
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)+
            }

            impl From<$name> for $enum {
                fn from(payload: $name) -> Self {
                    Self::$name(payload)
                }
            }
        )+

        impl $enum {
            /// The names of all event types.
            pub const TYPES: &[&str] = &[$(stringify!($name)),+];

            /// The stored name of the type.
            pub fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)+
                }
            }

            /// The newest schema version of an event type; `None` if this program does not know the type.
            pub fn newest_version(event_type: &str) -> Option<$crate::event::SchemaVersion> {
                match event_type {
                    $(stringify!($name) => {
                        let older = [$($(stringify!($older)),+)?];
                        Some(older.iter().fold($crate::event::SchemaVersion::FIRST, |version, _: &&str| version.next()))
                    })+
                    _ => None,
                }
            }

            /// The schema version that the event is written in: the oldest one that holds all of its values.
            pub fn schema_version(&self) -> $crate::event::SchemaVersion {
                match self {
                    $(Self::$name(_payload) => $crate::event::define_events!(@written _payload $($($older)+)?),)+
                }
            }

            /// The payload as JSON, in the schema version that [`Self::schema_version`] returns.
            pub fn payload(&self) -> String {
                let json = match self {
                    $(Self::$name(payload) => serde_json::to_string(payload),)+
                };
                // The types of the payloads always serialize.
                json.unwrap_or_default()
            }

            /// Decodes a stored event, and upcasts a payload of an older version.
            pub fn decode(
                event_type: &str,
                version: $crate::event::SchemaVersion,
                payload: &[u8],
            ) -> Result<Self, $crate::event::DecodeError> {
                use $crate::event::DecodeError;
                let newest = Self::newest_version(event_type).ok_or(DecodeError::UnknownType)?;
                if version < $crate::event::SchemaVersion::FIRST || version > newest {
                    return Err(DecodeError::UnknownVersion { version, newest });
                }
                match event_type {
                    $(stringify!($name) => {
                        $(
                            let mut _older = $crate::event::SchemaVersion::FIRST;
                            $(
                                if version == _older {
                                    return Ok(Self::$name(serde_json::from_slice::<$older>(payload)?.into()));
                                }
                                _older = _older.next();
                            )+
                        )?
                        Ok(Self::$name(serde_json::from_slice(payload)?))
                    })+
                    _ => Err(DecodeError::UnknownType),
                }
            }
        }
    };
    (@written $payload:ident) => {
        $crate::event::SchemaVersion::FIRST
    };
    (@written $payload:ident $($older:ident)+) => {
        $payload.written_version()
    };
}
pub(crate) use define_events;

define_events! {
    /// A fact about an app, a chat or a message.
    pub enum Event;

    /// An app was created. Always the first event of its stream.
    AppCreated {
        /// The app's name.
        name: AppName
    }
    /// An app was renamed.
    AppRenamed {
        /// The new name.
        name: AppName
    }
    /// A chat was created.
    ChatCreated {
        /// The number of the chat in the app.
        chat_number: ChatNumber
    }
    /// A message was created.
    MessageCreated(MessageCreatedV1) {
        /// The number of the message in the chat.
        message_number: MessageNumber,
        /// The message's text.
        body: MessageBody,
        /// The sender, if the application named one. No later event changes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<Sender>,
        /// The application's data, if there is any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<MessageData>
    }
    /// A message's body was replaced, and possibly its data changed.
    MessageEdited(MessageEditedV1) {
        /// The message's number.
        message_number: MessageNumber,
        /// The new text.
        body: MessageBody,
        /// The change of the application's data.
        #[serde(default, skip_serializing_if = "DataChange::is_keep")]
        data: DataChange
    }
    /// A message was deleted.
    MessageDeleted {
        /// The message's number.
        message_number: MessageNumber
    }
}

impl Event {
    /// The number of the message that the event concerns; `None` for events of apps and chats.
    pub fn message_number(&self) -> Option<MessageNumber> {
        match self {
            Self::MessageCreated(created) => Some(created.message_number),
            Self::MessageEdited(edited) => Some(edited.message_number),
            Self::MessageDeleted(deleted) => Some(deleted.message_number),
            Self::AppCreated(_) | Self::AppRenamed(_) | Self::ChatCreated(_) => None,
        }
    }
}

/// Version 1 of [`MessageCreated`]: it had neither a sender nor data.
#[derive(Deserialize)]
struct MessageCreatedV1 {
    message_number: MessageNumber,
    body: MessageBody,
}

impl From<MessageCreatedV1> for MessageCreated {
    fn from(MessageCreatedV1 { message_number, body }: MessageCreatedV1) -> Self {
        Self { message_number, body, sender: None, data: None }
    }
}

impl MessageCreated {
    fn written_version(&self) -> SchemaVersion {
        SchemaVersion(if self.sender.is_none() && self.data.is_none() { 1 } else { 2 })
    }
}

/// Version 1 of [`MessageEdited`]: an edit always kept the data.
#[derive(Deserialize)]
struct MessageEditedV1 {
    message_number: MessageNumber,
    body: MessageBody,
}

impl From<MessageEditedV1> for MessageEdited {
    fn from(MessageEditedV1 { message_number, body }: MessageEditedV1) -> Self {
        Self { message_number, body, data: DataChange::Keep }
    }
}

impl MessageEdited {
    fn written_version(&self) -> SchemaVersion {
        SchemaVersion(if self.data.is_keep() { 1 } else { 2 })
    }
}

/// The version of an event type's payload schema, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaVersion(pub u32);

impl SchemaVersion {
    /// The first version of every type.
    pub const FIRST: Self = Self(1);

    /// The highest version among all event types.
    pub const NEWEST: Self = Self(2);

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The reason why a stored event can't be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// No event type has this name.
    #[error("unknown event type")]
    UnknownType,
    /// The event was written by a newer program, or the version is invalid.
    #[error("schema version {} is not known, the newest known is {}", .version.0, .newest.0)]
    UnknownVersion {
        /// The version of the stored event.
        version: SchemaVersion,
        /// The newest known version of its type.
        newest: SchemaVersion,
    },
    /// The payload does not match the schema of its version.
    #[error("broken payload")]
    InvalidPayload(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"message_number":7,"body":"Hi","sender":{"id":"u-17"},"data":{"a":1}}"#;

    fn decode(event_type: &str, version: u32, payload: &str) -> Result<Event, DecodeError> {
        Event::decode(event_type, SchemaVersion(version), payload.as_bytes())
    }

    #[test]
    fn version_1_of_a_created_message_has_no_sender_and_no_data() {
        // A program of version 1 ignored such fields, so their values have no meaning.
        let Ok(Event::MessageCreated(created)) = decode("MessageCreated", 1, FULL) else { panic!() };
        assert_eq!((created.sender, created.data), (None, None));
        let Ok(Event::MessageCreated(created)) = decode("MessageCreated", 2, FULL) else { panic!() };
        assert_eq!(created.sender.map(|sender| sender.id.into_string()).as_deref(), Some("u-17"));
        assert_eq!(created.data.as_ref().map(MessageData::as_str), Some(r#"{"a":1}"#));
    }

    #[test]
    fn version_1_of_an_edited_message_keeps_the_data() {
        let change = |version, field: &str| {
            let payload = format!(r#"{{"message_number":7,"body":"Hi"{field}}}"#);
            let Ok(Event::MessageEdited(edited)) = decode("MessageEdited", version, &payload) else {
                panic!()
            };
            edited.data
        };
        assert_eq!(change(1, r#","data":null"#), DataChange::Keep);
        assert_eq!(change(2, ""), DataChange::Keep);
        assert_eq!(change(2, r#","data":null"#), DataChange::Remove);
        assert!(matches!(change(2, r#","data":{"a":1}"#), DataChange::Replace(_)));
    }

    #[test]
    fn writes_the_oldest_version_that_holds_all_values() {
        for (event_type, fields, expected) in [
            ("MessageCreated", "", 1),
            ("MessageCreated", r#","sender":{"id":"u-17"}"#, 2),
            ("MessageCreated", r#","data":{}"#, 2),
            ("MessageEdited", "", 1),
            ("MessageEdited", r#","data":null"#, 2),
            ("MessageEdited", r#","data":{}"#, 2),
        ] {
            let payload = format!(r#"{{"message_number":7,"body":"Hi"{fields}}}"#);
            let event = decode(event_type, 2, &payload).unwrap();
            assert_eq!(event.schema_version(), SchemaVersion(expected), "{event_type} {payload}");
            assert_eq!(event.payload(), payload);
        }
    }

    #[test]
    fn a_stored_message_with_an_invalid_sender_or_invalid_data_is_not_decoded() {
        for fields in [r#","sender":{"id":""}"#, r#","sender":{"id":"a","x":1}"#, r#","data":[]"#] {
            let payload = format!(r#"{{"message_number":7,"body":"Hi"{fields}}}"#);
            let decoded = decode("MessageCreated", 2, &payload);
            assert!(matches!(decoded, Err(DecodeError::InvalidPayload(_))), "{payload}");
        }
    }

    #[test]
    fn each_type_has_versions_of_its_own() {
        let newest = |event_type| Event::newest_version(event_type).map(|version| version.0);
        assert_eq!(newest("AppCreated"), Some(1));
        assert_eq!(newest("MessageCreated"), Some(2));
        assert_eq!(newest("AppSold"), None);
        let newest = Event::TYPES.iter().filter_map(|name| Event::newest_version(name)).max();
        assert_eq!(newest, Some(SchemaVersion::NEWEST));
    }

    #[test]
    fn distinguishes_unknown_types_unknown_versions_and_invalid_payloads() {
        for (event_type, unknown) in [("AppCreated", 0), ("AppCreated", 2), ("MessageCreated", 3)] {
            let decoded = decode(event_type, unknown, "{}");
            assert!(matches!(decoded, Err(DecodeError::UnknownVersion { .. })), "{event_type} {unknown}");
        }
        assert!(matches!(decode("AppSold", 1, "{}"), Err(DecodeError::UnknownType)));
        assert!(matches!(decode("AppCreated", 1, r#"{"name":""}"#), Err(DecodeError::InvalidPayload(_))));
    }
}
