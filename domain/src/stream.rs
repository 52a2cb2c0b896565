//! The streams of apps and chats, one for each. Operator actions have a stream of their own.

use std::fmt;

use thiserror::Error;

use crate::{AppToken, ChatNumber};

/// The id of a stream. `Display` writes its name: `app-{token}` or `chat-{token}-{number}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamId {
    /// AppCreated, AppRenamed and ChatCreated of one app.
    App(AppToken),
    /// MessageCreated, MessageEdited and MessageDeleted of one chat.
    Chat(AppToken, ChatNumber),
}

/// The error for the name of a stream that is neither an app's nor a chat's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not the name of an app's or a chat's stream")]
pub struct InvalidStreamName;

impl StreamId {
    /// Parses a stream's name.
    pub fn parse(name: &str) -> Result<Self, InvalidStreamName> {
        if let Some(token) = name.strip_prefix("app-") {
            return AppToken::parse(token).map(Self::App).map_err(|_| InvalidStreamName);
        }
        let (token, number) =
            name.strip_prefix("chat-").and_then(|rest| rest.split_once('-')).ok_or(InvalidStreamName)?;
        let token = AppToken::parse(token).map_err(|_| InvalidStreamName)?;
        let number = ChatNumber::parse(number).map_err(|_| InvalidStreamName)?;
        Ok(Self::Chat(token, number))
    }

    /// The app that the stream belongs to.
    pub fn app(&self) -> &AppToken {
        match self {
            Self::App(token) | Self::Chat(token, _) => token,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(token) => write!(f, "app-{}", token.expose()),
            Self::Chat(token, number) => write!(f, "chat-{}-{number}", token.expose()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_names_it_writes() -> Result<(), Box<dyn std::error::Error>> {
        let token = AppToken::parse(&"k".repeat(36))?;
        for stream in [StreamId::App(token), StreamId::Chat(token, ChatNumber::parse("42")?)] {
            assert_eq!(StreamId::parse(&stream.to_string()), Ok(stream));
        }
        Ok(())
    }

    #[test]
    fn rejects_other_names() {
        let token = "k".repeat(36);
        for name in [
            String::new(),
            "app-".into(),
            format!("app-{token}-1"),
            format!("chat-{token}"),
            format!("chat-{token}-0"),
        ] {
            assert_eq!(StreamId::parse(&name), Err(InvalidStreamName), "{name}");
        }
    }
}
