//! The destination of a replay, parsed from `--to`.

use std::path::{Path, PathBuf};

/// The value of `--to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DestinationArg {
    Program(String),
    File(PathBuf),
    Endpoint(String),
}

impl DestinationArg {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let destination = if text.starts_with("http://") || text.starts_with("https://") {
            Self::Endpoint(text.to_owned())
        } else if let Some(path) = text.strip_prefix("file:") {
            Self::File(path.into())
        } else if let Some(command) = text.strip_prefix("cmd:") {
            Self::Program(command.to_owned())
        } else if is_json_lines_file(text) {
            Self::File(text.into())
        } else {
            Self::Program(text.to_owned())
        };
        match &destination {
            Self::Program(command) if command.trim().is_empty() => Err("no program is named"),
            Self::File(path) if path.as_os_str().is_empty() => Err("no file is named"),
            _ => Ok(destination),
        }
    }
}

/// Whether the text is the name of a JSON Lines file. Text with blanks is a command, even if it ends in such a name.
fn is_json_lines_file(text: &str) -> bool {
    let extension = Path::new(text).extension();
    !text.contains(char::is_whitespace) && extension.is_some_and(|name| name == "jsonl" || name == "ndjson")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_a_destination_by_its_form() {
        for (text, expected) in [
            (
                "https://example.com/x.jsonl",
                DestinationArg::Endpoint("https://example.com/x.jsonl".to_owned()),
            ),
            ("out/events.jsonl", DestinationArg::File("out/events.jsonl".into())),
            ("events.ndjson", DestinationArg::File("events.ndjson".into())),
            ("file:events", DestinationArg::File("events".into())),
            ("file:two words.jsonl", DestinationArg::File("two words.jsonl".into())),
            ("cat > events.jsonl", DestinationArg::Program("cat > events.jsonl".to_owned())),
            ("cmd:./feed.jsonl", DestinationArg::Program("./feed.jsonl".to_owned())),
            ("./feed", DestinationArg::Program("./feed".to_owned())),
        ] {
            assert_eq!(DestinationArg::parse(text), Ok(expected), "{text}");
        }
        for nothing in ["", " ", "cmd:", "file:"] {
            assert!(DestinationArg::parse(nothing).is_err(), "{nothing:?}");
        }
    }
}
