//! Manifests: the posted messages with their numbers, written by a load and read by a verification.
//!
//! A manifest file has JSON lines of `{"app","app_token","chat","number","body"}`. The `number` is null if the outcome
//! of a message is unknown: it may be stored or not. The file holds the apps' tokens, which are credentials.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A manifest that can't be read or written.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file can't be read or written.
    #[error("the manifest {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line is not a JSON object with the fields of a message.
    #[error("{}, line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The cause.
        source: serde_json::Error,
    },
}

/// The messages that a load posted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The apps, in order of creation.
    pub apps: Vec<App>,
}

/// An app and its chats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The name.
    pub name: String,
    /// The token.
    pub token: String,
    /// The chats by number.
    pub chats: BTreeMap<u64, Chat>,
}

/// The messages that a load posted to one chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// Acknowledged messages by number.
    pub messages: BTreeMap<u64, String>,
    /// Bodies of messages that may be stored or not.
    pub uncertain: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ManifestLine<'a> {
    app: std::borrow::Cow<'a, str>,
    app_token: std::borrow::Cow<'a, str>,
    chat: u64,
    number: Option<u64>,
    body: std::borrow::Cow<'a, str>,
}

impl Chat {
    /// Adds a message. Without a number, its outcome is unknown.
    pub fn add(&mut self, number: Option<u64>, body: String) {
        match number {
            Some(number) => drop(self.messages.insert(number, body)),
            None => self.uncertain.push(body),
        }
    }
}

impl Manifest {
    /// Returns the number of acknowledged messages.
    pub fn acknowledged_count(&self) -> usize {
        self.apps.iter().flat_map(|app| app.chats.values()).map(|chat| chat.messages.len()).sum()
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let io_error = |source| ManifestError::Io { path: path.to_owned(), source };
        let mut manifest = Self::default();
        let mut indices = HashMap::new();
        for (line, text) in (1..).zip(BufReader::new(File::open(path).map_err(io_error)?).lines()) {
            let text = text.map_err(io_error)?;
            let parsed: ManifestLine<'_> = serde_json::from_str(&text)
                .map_err(|source| ManifestError::Line { path: path.to_owned(), line, source })?;
            let index = *indices.entry(parsed.app_token.into_owned()).or_insert_with_key(|token: &String| {
                let (name, token) = (parsed.app.into_owned(), token.clone());
                manifest.apps.push(App { name, token, chats: BTreeMap::new() });
                manifest.apps.len() - 1
            });
            let chat = manifest.apps[index].chats.entry(parsed.chat).or_default();
            chat.add(parsed.number, parsed.body.into_owned());
        }
        Ok(manifest)
    }

    /// Writes a file.
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        let io_error = |source| ManifestError::Io { path: path.to_owned(), source };
        let mut file = BufWriter::new(File::create(path).map_err(io_error)?);
        for app in &self.apps {
            for (number, chat) in &app.chats {
                chat.write(app, *number, &mut file).map_err(io_error)?;
            }
        }
        file.flush().map_err(io_error)
    }
}

impl Chat {
    fn write(&self, app: &App, chat_number: u64, file: &mut impl Write) -> io::Result<()> {
        let certain = self.messages.iter().map(|(number, body)| (Some(*number), body));
        let uncertain = self.uncertain.iter().map(|body| (None, body));
        for (number, body) in certain.chain(uncertain) {
            let line = ManifestLine {
                app: app.name.as_str().into(),
                app_token: app.token.as_str().into(),
                chat: chat_number,
                number,
                body: body.as_str().into(),
            };
            serde_json::to_writer(&mut *file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_manifest_reads_back_unchanged() {
        let mut chat = Chat::default();
        chat.add(Some(1), "one\n\"two\"".to_owned());
        chat.add(Some(2), "\u{1f98a}".to_owned());
        chat.add(None, "uncertain".to_owned());
        let app = |name: &str, token: &str| App {
            name: name.to_owned(),
            token: token.to_owned(),
            chats: BTreeMap::from([(1, chat.clone()), (2, chat.clone())]),
        };
        let manifest = Manifest { apps: vec![app("same", "t1"), app("same", "t2")] };
        let file = tempfile::NamedTempFile::new().unwrap();
        manifest.write(file.path()).unwrap();
        assert_eq!(Manifest::read(file.path()).unwrap(), manifest);
    }

    #[test]
    fn names_the_number_of_an_invalid_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"app\":\"a\"}\n").unwrap();
        let error = Manifest::read(file.path()).unwrap_err();
        assert!(error.to_string().contains("line 1: "), "{error}");
    }
}
