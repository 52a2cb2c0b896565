//! Where a replay goes, as the command line says it.

use std::path::{Path, PathBuf};

use chat_operations::replay::{BodyFormat, Destination, EndpointOptions};
use chat_ports::event_store::LogId;

use super::{Body, Command};
use crate::failure::Failure;

/// What `--to` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    Program(String),
    File(PathBuf),
    Endpoint(String),
}

impl To {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let to = if text.starts_with("http://") || text.starts_with("https://") {
            Self::Endpoint(text.to_owned())
        } else if let Some(path) = text.strip_prefix("file:") {
            Self::File(path.into())
        } else if let Some(command) = text.strip_prefix("cmd:") {
            Self::Program(command.to_owned())
        } else if is_lines_file(text) {
            Self::File(text.into())
        } else {
            Self::Program(text.to_owned())
        };
        match &to {
            Self::Program(command) if command.trim().is_empty() => Err("no program is named"),
            Self::File(path) if path.as_os_str().is_empty() => Err("no file is named"),
            _ => Ok(to),
        }
    }
}

/// A command line has blanks where it does more than to name a file.
fn is_lines_file(text: &str) -> bool {
    let extension = Path::new(text).extension();
    !text.contains(char::is_whitespace) && extension.is_some_and(|name| name == "jsonl" || name == "ndjson")
}

impl Command {
    pub(super) fn destination(&self, log: LogId, json: bool) -> Result<Destination, Failure> {
        let url = match &self.to {
            To::Endpoint(url) => url,
            // An authorization may be in the environment for other replays.
            To::Program(_) | To::File(_) if self.give_up_after.is_some() => {
                return Err(Failure::new("--give-up-after is for endpoints: http://… or https://…"));
            }
            // The answer is the only JSON on standard output.
            To::Program(command) => {
                return Ok(Destination::Program { command: command.clone(), to_stderr: json });
            }
            To::File(path) => return Ok(Destination::File(path.clone())),
        };
        let wrong = |error| Failure::because("--to can't be used", &error);
        let shape = match self.body {
            Body::Lines => BodyFormat::NdJson,
            Body::Array => BodyFormat::JsonArray,
        };
        let mut options = EndpointOptions::new(url, log).map_err(wrong)?.body_format(shape).max_batch_events(self.batch);
        if let Some(authorization) = &self.authorization {
            options = options.authorization(authorization).map_err(wrong)?;
        }
        if let Some(patience) = self.patience() {
            options = options.give_up_after(patience);
        }
        Ok(Destination::Endpoint(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_told_by_its_form() {
        for (text, expected) in [
            ("https://example.com/x.jsonl", To::Endpoint("https://example.com/x.jsonl".to_owned())),
            ("out/events.jsonl", To::File("out/events.jsonl".into())),
            ("events.ndjson", To::File("events.ndjson".into())),
            ("file:events", To::File("events".into())),
            ("file:two words.jsonl", To::File("two words.jsonl".into())),
            ("cat > events.jsonl", To::Program("cat > events.jsonl".to_owned())),
            ("cmd:./feed.jsonl", To::Program("./feed.jsonl".to_owned())),
            ("./feed", To::Program("./feed".to_owned())),
        ] {
            assert_eq!(To::parse(text), Ok(expected), "{text}");
        }
        for nothing in ["", " ", "cmd:", "file:"] {
            assert!(To::parse(nothing).is_err(), "{nothing:?}");
        }
    }
}
