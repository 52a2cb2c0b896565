//! Corpora: JSON lines of `{"app","chat","body"}`, in the order of the conversations.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Why a corpus can't be read.
#[derive(Debug, Error)]
pub enum CorpusError {
    /// The file can't be read.
    #[error("can't read the corpus {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
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
    /// No messages.
    #[error("the corpus {} holds no messages", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

/// Conversations to post.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    /// The apps' names, in the order they first appear.
    pub apps: Vec<String>,
    /// The chats, in the order they first appear.
    pub chats: Vec<Chat>,
}

/// A conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// The index of its app in [`Corpus::apps`].
    pub app: usize,
    /// Its messages, in order.
    pub bodies: Vec<String>,
}

#[derive(Deserialize)]
struct CorpusLine {
    app: String,
    chat: String,
    body: String,
}

impl Corpus {
    /// Reads a file, up to `limit` messages of it.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, CorpusError> {
        let io = |source| CorpusError::Io { path: path.to_owned(), source };
        let file = BufReader::new(File::open(path).map_err(io)?);
        Self::parse(file, path, limit)
    }

    fn parse(lines: impl BufRead, path: &Path, limit: Option<usize>) -> Result<Self, CorpusError> {
        let mut corpus = Self::default();
        let mut app_indices = HashMap::new();
        let mut chat_indices = HashMap::new();
        let numbered =
            (1..).zip(lines.lines()).filter(|(_, text)| !matches!(text, Ok(text) if text.is_empty()));
        for (line, text) in numbered.take(limit.unwrap_or(usize::MAX)) {
            let text = text.map_err(|source| CorpusError::Io { path: path.to_owned(), source })?;
            let read: CorpusLine = serde_json::from_str(&text).map_err(|source| CorpusError::Line {
                path: path.to_owned(),
                line,
                source,
            })?;
            let app = *app_indices.entry(read.app).or_insert_with_key(|name: &String| {
                corpus.apps.push(name.clone());
                corpus.apps.len() - 1
            });
            let chat = *chat_indices.entry((app, read.chat)).or_insert_with(|| {
                corpus.chats.push(Chat { app, bodies: Vec::new() });
                corpus.chats.len() - 1
            });
            corpus.chats[chat].bodies.push(read.body);
        }
        if corpus.chats.is_empty() {
            return Err(CorpusError::Empty { path: path.to_owned() });
        }
        Ok(corpus)
    }

    /// Messages in all chats.
    pub fn messages(&self) -> usize {
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
    fn chats_of_the_same_name_in_two_apps_are_two_chats() {
        let corpus = parse(TWO_APPS, None).unwrap();
        assert_eq!(corpus.apps, ["a", "b"]);
        let chats: Vec<_> = corpus.chats.iter().map(|chat| (chat.app, chat.bodies.join("+"))).collect();
        assert_eq!(chats, [(0, "1+3".to_owned()), (1, "2".to_owned()), (0, "4".to_owned())]);
        assert_eq!(corpus.messages(), 4);
    }

    #[test]
    fn a_limit_takes_the_first_messages() {
        let corpus = parse(TWO_APPS, Some(3)).unwrap();
        assert_eq!(corpus.messages(), 3);
        assert_eq!(corpus.chats.len(), 2);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        for bad in ["{\"app\":\"a\",\"chat\":\"x\"}", "nonsense", "{\"app\":1,\"chat\":\"x\",\"body\":\"\"}"]
        {
            let refused = parse(&format!("{TWO_APPS}\n{bad}\n"), None).unwrap_err();
            assert!(refused.to_string().starts_with("c.jsonl, line 7: "), "{refused}");
        }
    }

    #[test]
    fn nothing_is_not_a_corpus() {
        assert!(matches!(parse("\n\n", None), Err(CorpusError::Empty { .. })));
    }
}
