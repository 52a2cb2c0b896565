//! Data that an application attaches to a message: a JSON object, stored without insignificant white space.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use thiserror::Error;

/// A JSON object of the application: at most 4,096 bytes without insignificant white space, and 16 levels deep.
/// Numbers, escapes, and the order of names are kept as they were sent. `Debug` shows only its length.
#[derive(Clone)]
pub struct MessageData(Box<RawValue>);

/// The reason why JSON is not valid data of a message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidMessageData {
    /// The JSON is not an object.
    #[error("`data` must be a JSON object")]
    NotAnObject,
    /// Objects and arrays are nested too deeply.
    #[error("`data` is nested more than {} levels deep", MessageData::MAX_DEPTH)]
    TooDeep,
    /// A string holds half of a surrogate pair, which is not a character.
    #[error("`data` holds a string with half of a surrogate pair")]
    InvalidString,
    /// The JSON is too long.
    #[error("`data` is longer than {} bytes as compact JSON", MessageData::MAX_BYTES)]
    TooLarge,
}

impl MessageData {
    /// The maximal length, in bytes without insignificant white space. It may be raised but never lowered, so that
    /// stored events stay readable.
    pub const MAX_BYTES: usize = 4096;

    /// The maximal depth of nested objects and arrays; the outermost object is level 1. It may be raised but never
    /// lowered, so that stored events stay readable.
    pub const MAX_DEPTH: usize = 16;

    /// Returns the JSON as data of a message, if it is valid. Removes insignificant white space.
    pub fn parse(json: &RawValue) -> Result<Self, InvalidMessageData> {
        // The error does not occur: JSON stays valid when white space is removed.
        RawValue::from_string(compact(json.get())?).map(Self).map_err(|_| InvalidMessageData::InvalidString)
    }

    /// Returns the JSON without insignificant white space.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

/// Removes white space outside of strings from valid JSON; checks the outermost type, the depth, the length, and
/// escapes.
fn compact(json: &str) -> Result<String, InvalidMessageData> {
    let mut rest = json.trim_ascii_start();
    if !rest.starts_with('{') {
        return Err(InvalidMessageData::NotAnObject);
    }
    let mut compact = String::with_capacity(json.len().min(MessageData::MAX_BYTES));
    let mut depth = 0_usize;
    while let Some(first) = rest.chars().next() {
        let (token, after) = rest.split_at(if first == '"' { string_len(rest) } else { first.len_utf8() });
        rest = after;
        match first {
            ' ' | '\t' | '\n' | '\r' => continue,
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            '"' if token.contains("\\u") && serde_json::from_str::<String>(token).is_err() => {
                return Err(InvalidMessageData::InvalidString);
            }
            _ => {}
        }
        if depth > MessageData::MAX_DEPTH {
            return Err(InvalidMessageData::TooDeep);
        }
        if compact.len() + token.len() > MessageData::MAX_BYTES {
            return Err(InvalidMessageData::TooLarge);
        }
        compact.push_str(token);
    }
    Ok(compact)
}

/// The length of the JSON string at the start of `json`, with its quotes.
fn string_len(json: &str) -> usize {
    let mut is_escaped = false;
    for (index, byte) in json.bytes().enumerate().skip(1) {
        if byte == b'"' && !is_escaped {
            return index + 1;
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    json.len()
}

impl FromStr for MessageData {
    type Err = serde_json::Error;

    /// Parses the text of a JSON object, such as [`MessageData::as_str`] returns.
    fn from_str(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

impl PartialEq for MessageData {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for MessageData {}

impl fmt::Debug for MessageData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageData({} bytes)", self.as_str().len())
    }
}

impl Serialize for MessageData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MessageData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(&json).map_err(de::Error::custom)
    }
}

/// The effect of an edit on a message's data. In JSON, a field of this type is absent for `Keep`, `null` for `Remove`,
/// and an object for `Replace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DataChange {
    /// The data stays as it is.
    #[default]
    Keep,
    /// The data is removed.
    Remove,
    /// Other data takes its place.
    Replace(MessageData),
}

impl DataChange {
    /// Whether the data stays as it is.
    pub fn is_keep(&self) -> bool {
        *self == Self::Keep
    }

    /// Returns the single change that has the effect of this change followed by `later`.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        if later.is_keep() { self } else { later }
    }

    /// Returns the data after the change.
    #[must_use]
    pub fn apply(self, data: Option<MessageData>) -> Option<MessageData> {
        match self {
            Self::Keep => data,
            Self::Remove => None,
            Self::Replace(data) => Some(data),
        }
    }
}

impl Serialize for DataChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // `Keep` does not get here: the struct skips the field (`skip_serializing_if`).
            Self::Keep | Self::Remove => serializer.serialize_none(),
            Self::Replace(data) => serializer.serialize_some(data),
        }
    }
}

impl<'de> Deserialize<'de> for DataChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Remove, Self::Replace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<String, InvalidMessageData> {
        let json = serde_json::from_str::<&RawValue>(json).unwrap();
        MessageData::parse(json).map(|data| data.as_str().to_owned())
    }

    #[test]
    fn removes_white_space_outside_of_strings_and_changes_nothing_else() {
        let sent = " { \"b\" : [ 1.0e+2 , 12345678901234567890123 , 1E400 ] ,\r\n\t\"a \\\" { \" : \"\\\\\" , \"a\":null } ";
        let kept = r#"{"b":[1.0e+2,12345678901234567890123,1E400],"a \" { ":"\\","a":null}"#;
        assert_eq!(parse(sent).as_deref(), Ok(kept));
        assert_eq!(parse(kept).as_deref(), Ok(kept));
        assert_eq!(parse("{}").as_deref(), Ok("{}"));
        assert_eq!(parse("{\"é\":\"\u{1F98A}\"}").as_deref(), Ok("{\"é\":\"\u{1F98A}\"}"));
    }

    #[test]
    fn rejects_json_that_is_not_an_object() {
        for other in ["[]", "[{}]", "\"{}\"", "17", "true", "null"] {
            assert_eq!(parse(other), Err(InvalidMessageData::NotAnObject), "{other}");
        }
    }

    #[test]
    fn limits_the_length_without_white_space() {
        let padded = |bytes: usize| format!("{{\"a\" : \"{}\"}}   ", "x".repeat(bytes));
        let longest = MessageData::MAX_BYTES - r#"{"a":""}"#.len();
        assert_eq!(parse(&padded(longest)).unwrap().len(), MessageData::MAX_BYTES);
        assert_eq!(parse(&padded(longest + 1)), Err(InvalidMessageData::TooLarge));
        assert!(parse(&format!("{{{}}}", " ".repeat(100_000))).is_ok());
    }

    #[test]
    fn limits_the_depth() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(parse(&nested(16)).is_ok());
        assert_eq!(parse(&nested(17)), Err(InvalidMessageData::TooDeep));
        let arrays = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&arrays(15)).is_ok());
        assert_eq!(parse(&arrays(16)), Err(InvalidMessageData::TooDeep));
        // Objects side by side are on one level.
        assert!(parse(&format!("{{\"a\":[{}{{}}]}}", "{},".repeat(100))).is_ok());
    }

    #[test]
    fn rejects_half_of_a_surrogate_pair() {
        for half in [r#"{"a":"\ud83e"}"#, r#"{"\udd8a":1}"#, r#"{"a":["\ud83e\ud83e"]}"#] {
            assert_eq!(parse(half), Err(InvalidMessageData::InvalidString), "{half}");
        }
        assert!(parse(r#"{"a":"\ud83e\udd8a \u0000 \\ud83e"}"#).is_ok());
    }
}
