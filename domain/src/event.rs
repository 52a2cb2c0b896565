//! Domain events and their stored form.
//!
//! An event is stored as the name of its type, a schema version and a JSON payload. Stored payloads are never changed:
//! upcasters convert a payload of an older version, one version at a time, to the version that [`Event`] decodes.
//! `golden/` holds one payload of every version of every type, and a test decodes them all. Operator actions are stored in
//! the same way, see [`crate::operator_action`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AppName, ChatNumber, MessageBody, MessageNumber};

/// Defines an enum of events, a struct for the payload of each, and their stored form.
macro_rules! define_events {
    (
        $(#[$enum_doc:meta])* pub enum $enum:ident;
        $($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ $(,)? })+
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

            /// The payload as JSON, in the current schema version.
            pub fn payload(&self) -> String {
                let json = match self {
                    $(Self::$name(payload) => serde_json::to_string(payload),)+
                };
                // Strings and whole numbers always serialize.
                json.unwrap_or_default()
            }

            /// Decodes a stored event, after upcasting an older payload to the current schema version.
            pub fn decode(
                event_type: &str,
                version: $crate::event::SchemaVersion,
                payload: &[u8],
            ) -> Result<Self, $crate::event::DecodeError> {
                match $crate::event::upcast_to_current(event_type, version, payload)? {
                    None => Self::from_payload(event_type, payload),
                    Some(upcast) => Self::from_payload(event_type, upcast.as_bytes()),
                }
            }

            fn from_payload(event_type: &str, payload: &[u8]) -> Result<Self, $crate::event::DecodeError> {
                match event_type {
                    $(stringify!($name) => Ok(Self::$name(serde_json::from_slice(payload)?)),)+
                    _ => Err($crate::event::DecodeError::UnknownType),
                }
            }
        }
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
    MessageCreated {
        /// The number of the message in the chat.
        message_number: MessageNumber,
        /// The message's text.
        body: MessageBody
    }
    /// A message's body was replaced.
    MessageEdited {
        /// The message's number.
        message_number: MessageNumber,
        /// The new text.
        body: MessageBody
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

/// The version of a payload's schema, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaVersion(pub u32);

impl SchemaVersion {
    /// The version that new events of every type are written in.
    pub const CURRENT: Self = Self(1);
}

/// The reason why a stored event can't be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// No event type has this name.
    #[error("unknown event type")]
    UnknownType,
    /// The event was written by a newer program, or the version is invalid.
    #[error("schema version {} is not known, the newest known is {}", .0.0, SchemaVersion::CURRENT.0)]
    UnknownVersion(SchemaVersion),
    /// The payload does not match the schema of its version.
    #[error("broken payload")]
    InvalidPayload(#[from] serde_json::Error),
}

/// Converts the payload of one event type from one schema version to the next.
struct Upcaster {
    event_type: &'static str,
    from_version: SchemaVersion,
    upcast: fn(serde_json::Value) -> serde_json::Value,
}

/// All upcasters. A type without an upcaster for a version did not change in the next version.
const UPCASTERS: &[Upcaster] = &[];

/// Converts a payload to the current schema version; returns `None` if it is current already.
pub(crate) fn upcast_to_current(
    event_type: &str,
    version: SchemaVersion,
    payload: &[u8],
) -> Result<Option<String>, DecodeError> {
    if version == SchemaVersion::CURRENT {
        return Ok(None);
    }
    if version < SchemaVersion(1) || version > SchemaVersion::CURRENT {
        return Err(DecodeError::UnknownVersion(version));
    }
    Ok(Some(upcast(UPCASTERS, event_type, version, serde_json::from_slice(payload)?).to_string()))
}

fn upcast(
    upcasters: &[Upcaster],
    event_type: &str,
    version: SchemaVersion,
    payload: serde_json::Value,
) -> serde_json::Value {
    let step = upcasters
        .iter()
        .filter(|upcaster| upcaster.event_type == event_type && upcaster.from_version >= version)
        .min_by_key(|upcaster| upcaster.from_version);
    match step {
        Some(step) => {
            upcast(upcasters, event_type, SchemaVersion(step.from_version.0 + 1), (step.upcast)(payload))
        }
        None => payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn upcasts_older_payloads_one_version_at_a_time() {
        let upcasters = [
            Upcaster {
                event_type: "A",
                from_version: SchemaVersion(3),
                upcast: |payload| json!({ "from_3": payload }),
            },
            Upcaster {
                event_type: "A",
                from_version: SchemaVersion(1),
                upcast: |payload| json!({ "from_1": payload }),
            },
            Upcaster { event_type: "B", from_version: SchemaVersion(1), upcast: |_| json!("not this type") },
        ];
        let upcast_from = |version| upcast(&upcasters, "A", SchemaVersion(version), json!(0));
        assert_eq!(upcast_from(1), json!({ "from_3": { "from_1": 0 } }));
        assert_eq!(upcast_from(2), json!({ "from_3": 0 }));
        assert_eq!(upcast_from(4), json!(0));
    }

    #[test]
    fn distinguishes_unknown_versions_from_unknown_types() {
        let newer = SchemaVersion(SchemaVersion::CURRENT.0 + 1);
        assert!(matches!(Event::decode("AppCreated", newer, b"{}"), Err(DecodeError::UnknownVersion(_))));
        assert!(matches!(
            Event::decode("AppSold", SchemaVersion::CURRENT, b"{}"),
            Err(DecodeError::UnknownType)
        ));
        assert!(matches!(
            Event::decode("AppCreated", SchemaVersion::CURRENT, br#"{"name":""}"#),
            Err(DecodeError::InvalidPayload(_))
        ));
    }
}
