//! What was posted and under which numbers: what a load leaves behind and a verification goes by.
//!
//! As a file: JSON lines of `{"app","app_token","chat","number","body"}`. A `number` of null is a message whose answer was lost: it
//! may be there or not. The file holds the apps' tokens, that is, their credentials.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a manifest can't be read or written.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file can't be read or written.
    #[error("the manifest {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("{}, line {line}: {source}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// What was posted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The apps, in the order they were created.
    pub apps: Vec<App>,
}

/// An app and its chats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Its token.
    pub token: String,
    /// Its chats by number.
    pub chats: BTreeMap<u64, Chat>,
}

/// What was posted to a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// Acknowledged messages by number.
    pub messages: BTreeMap<u64, String>,
    /// Messages that are there or not.
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
    /// Adds a message.
    pub fn add(&mut self, number: Option<u64>, body: String) {
        match number {
            Some(number) => drop(self.messages.insert(number, body)),
            None => self.uncertain.push(body),
        }
    }
}

impl Manifest {
    /// Messages that were acknowledged.
    pub fn messages(&self) -> usize {
        self.apps.iter().flat_map(|app| app.chats.values()).map(|chat| chat.messages.len()).sum()
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let io = |source| ManifestError::Io { path: path.to_owned(), source };
        let mut manifest = Self::default();
        let mut indices = HashMap::new();
        for (line, text) in (1..).zip(BufReader::new(File::open(path).map_err(io)?).lines()) {
            let text = text.map_err(io)?;
            let read: ManifestLine<'_> = serde_json::from_str(&text)
                .map_err(|source| ManifestError::Line { path: path.to_owned(), line, source })?;
            let index = *indices.entry(read.app_token.into_owned()).or_insert_with_key(|token: &String| {
                let (name, token) = (read.app.into_owned(), token.clone());
                manifest.apps.push(App { name, token, chats: BTreeMap::new() });
                manifest.apps.len() - 1
            });
            let chat = manifest.apps[index].chats.entry(read.chat).or_default();
            chat.add(read.number, read.body.into_owned());
        }
        Ok(manifest)
    }

    /// Writes a file.
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        let io = |source| ManifestError::Io { path: path.to_owned(), source };
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        for app in &self.apps {
            for (number, chat) in &app.chats {
                chat.write(app, *number, &mut file).map_err(io)?;
            }
        }
        file.flush().map_err(io)
    }
}

impl Chat {
    fn write(&self, app: &App, chat: u64, file: &mut impl Write) -> io::Result<()> {
        let certain = self.messages.iter().map(|(number, body)| (Some(*number), body));
        let uncertain = self.uncertain.iter().map(|body| (None, body));
        for (number, body) in certain.chain(uncertain) {
            let (app, app_token, body) = (app.name.as_str(), app.token.as_str(), body.as_str());
            let line = ManifestLine {
                app: app.into(),
                app_token: app_token.into(),
                chat,
                number,
                body: body.into(),
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
    fn a_manifest_reads_back_as_it_was_written() {
        let mut chat = Chat::default();
        chat.add(Some(1), "one\n\"two\"".to_owned());
        chat.add(Some(2), "\u{1f98a}".to_owned());
        chat.add(None, "who knows".to_owned());
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
    fn a_bad_line_is_named_by_its_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"app\":\"a\"}\n").unwrap();
        let refused = Manifest::read(file.path()).unwrap_err();
        assert!(refused.to_string().contains("line 1: "), "{refused}");
    }
}
