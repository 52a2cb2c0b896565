//! App names and message bodies: text from clients, stored unchanged.

use thiserror::Error;

/// The reason why text is not a valid app name or message body.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidText {
    /// The text is empty or has only white space.
    #[error("nothing but white space")]
    Blank,
    /// The text is longer than the limit for its type.
    #[error("too long")]
    TooLong,
    /// The text holds a NUL character, which Postgres does not accept in text.
    #[error("holds a NUL character")]
    Nul,
}

fn check_text(text: &str, is_too_long: bool) -> Result<(), InvalidText> {
    if is_too_long {
        return Err(InvalidText::TooLong);
    }
    if text.contains('\0') {
        return Err(InvalidText::Nul);
    }
    if text.trim().is_empty() {
        return Err(InvalidText::Blank);
    }
    Ok(())
}

/// Defines a type that holds valid text. The caller of the macro adds the type's `parse` function, which returns
/// `$error` for invalid text.
macro_rules! define_text {
    ($(#[$doc:meta])* $name:ident, $error:ty) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the text, unchanged.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the text, unchanged.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}
pub(crate) use define_text;

define_text! {
    /// An app's name: 1 to 255 characters, not blank, without a NUL.
    AppName, InvalidText
}
define_text! {
    /// A message's text: 1 to 65,536 bytes, not blank, without a NUL. `Debug` shows only its length.
    MessageBody, InvalidText
}

impl AppName {
    /// The maximal length of a name, in characters. It may be raised but never lowered, so that stored events stay
    /// readable.
    pub const MAX_CHARS: usize = 255;

    /// Returns the text as a name, if it is valid.
    pub fn parse(text: String) -> Result<Self, InvalidText> {
        let is_too_long = text.chars().nth(Self::MAX_CHARS).is_some();
        check_text(&text, is_too_long)?;
        Ok(Self(text))
    }
}

impl MessageBody {
    /// The maximal length of a body, in bytes of UTF-8. It may be raised but never lowered, so that stored events stay
    /// readable. If it is raised, operators upgrade readers before writers, as for a new event type. In JSON with every
    /// byte escaped, a body of this length takes six times as many bytes. A request (`HttpOptions::max_body_bytes`)
    /// and an append (`MAX_APPEND_BYTES`) must have room for that.
    pub const MAX_BYTES: usize = 65_536;

    /// Returns the text as a message body, if it is valid.
    pub fn parse(text: String) -> Result<Self, InvalidText> {
        let is_too_long = text.len() > Self::MAX_BYTES;
        check_text(&text, is_too_long)?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_names_by_characters_and_bodies_by_bytes() {
        assert!(AppName::parse("é".repeat(255)).is_ok());
        assert_eq!(AppName::parse("é".repeat(256)), Err(InvalidText::TooLong));
        assert!(MessageBody::parse("é".repeat(32_768)).is_ok());
        assert_eq!(MessageBody::parse("é".repeat(32_769)), Err(InvalidText::TooLong));
    }

    #[test]
    fn treats_white_space_of_any_script_as_blank() {
        for blank in ["", " ", "\t\n", "\u{a0}\u{3000}\u{2003}"] {
            assert_eq!(MessageBody::parse(blank.to_owned()), Err(InvalidText::Blank), "{blank:?}");
        }
    }

    #[test]
    fn rejects_nul_and_changes_nothing_else() {
        assert_eq!(MessageBody::parse("a\0b".to_owned()), Err(InvalidText::Nul));
        let odd = " \u{202e}e\u{301}\u{1F468}\u{200D}\u{1F469} \u{feff}";
        assert_eq!(MessageBody::parse(odd.to_owned()).map(MessageBody::into_string).as_deref(), Ok(odd));
    }
}
