//! Corpora of conversations: files of JSON lines `{"app","chat","body"}`, in order of time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// A corpus that can't be read.
#[derive(Debug, Error)]
pub enum CorpusError {
    /// The file can't be read.
    #[error("can't read the corpus {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is not a JSON object with the three fields.
    #[error("{}, line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The cause.
        source: serde_json::Error,
    },
    /// The file holds no messages.
    #[error("the corpus {} holds no messages", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A corpus of conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    /// The names of the apps, in order of first appearance.
    pub apps: Vec<String>,
    /// The chats, in order of first appearance.
    pub chats: Vec<Chat>,
}

/// A conversation of one chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// The index of the app in [`Corpus::apps`].
    pub app: usize,
    /// The bodies of the messages, in order.
    pub bodies: Vec<String>,
}

#[derive(Deserialize)]
struct CorpusLine {
    app: String,
    chat: String,
    body: String,
}

impl Corpus {
    /// Reads a file, or the first `limit` messages of it.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, CorpusError> {
        let io_error = |source| CorpusError::Io { path: path.to_owned(), source };
        let file = BufReader::new(File::open(path).map_err(io_error)?);
        Self::parse(file, path, limit)
    }

    fn parse(lines: impl BufRead, path: &Path, limit: Option<usize>) -> Result<Self, CorpusError> {
        let mut corpus = Self::default();
        let mut app_indices = HashMap::new();
        let mut chat_indices = HashMap::new();
        let nonempty_lines =
            (1..).zip(lines.lines()).filter(|(_, text)| !matches!(text, Ok(text) if text.is_empty()));
        for (line, text) in nonempty_lines.take(limit.unwrap_or(usize::MAX)) {
            let text = text.map_err(|source| CorpusError::Io { path: path.to_owned(), source })?;
            let parsed: CorpusLine = serde_json::from_str(&text).map_err(|source| CorpusError::Line {
                path: path.to_owned(),
                line,
                source,
            })?;
            let app = *app_indices.entry(parsed.app).or_insert_with_key(|name: &String| {
                corpus.apps.push(name.clone());
                corpus.apps.len() - 1
            });
            let chat = *chat_indices.entry((app, parsed.chat)).or_insert_with(|| {
                corpus.chats.push(Chat { app, bodies: Vec::new() });
                corpus.chats.len() - 1
            });
            corpus.chats[chat].bodies.push(parsed.body);
        }
        if corpus.chats.is_empty() {
            return Err(CorpusError::Empty { path: path.to_owned() });
        }
        Ok(corpus)
    }

    /// Returns the number of messages in all chats.
    pub fn message_count(&self) -> usize {
        self.chats.iter().map(|chat| chat.bodies.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, limit: Option<usize>) -> Result<Corpus, CorpusError> {
        Corpus::parse(text.as_bytes(), Path::new("c.jsonl"), limit)
    }

    const TWO_APPS: &str = r#"{"app":"a","chat":"x","body":"1"}
{"app":"b","chat":"x","body":"2"}

{"app":"a","chat":"x","body":"3"}
{"app":"a","chat":"y","body":"4"}
"#;

    #[test]
    fn keeps_chats_of_the_same_name_in_two_apps_apart() {
        let corpus = parse(TWO_APPS, None).unwrap();
        assert_eq!(corpus.apps, ["a", "b"]);
        let chats: Vec<_> = corpus.chats.iter().map(|chat| (chat.app, chat.bodies.join("+"))).collect();
        assert_eq!(chats, [(0, "1+3".to_owned()), (1, "2".to_owned()), (0, "4".to_owned())]);
        assert_eq!(corpus.message_count(), 4);
    }

    #[test]
    fn reads_the_first_messages_up_to_a_limit() {
        let corpus = parse(TWO_APPS, Some(3)).unwrap();
        assert_eq!(corpus.message_count(), 3);
        assert_eq!(corpus.chats.len(), 2);
    }

    #[test]
    fn names_the_number_of_an_invalid_line() {
        for line in ["{\"app\":\"a\",\"chat\":\"x\"}", "nonsense", "{\"app\":1,\"chat\":\"x\",\"body\":\"\"}"]
        {
            let error = parse(&format!("{TWO_APPS}\n{line}\n"), None).unwrap_err();
            assert!(error.to_string().starts_with("c.jsonl, line 7: "), "{error}");
        }
    }

    #[test]
    fn rejects_an_empty_corpus() {
        assert!(matches!(parse("\n\n", None), Err(CorpusError::Empty { .. })));
    }
}
