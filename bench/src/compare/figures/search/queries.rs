//! Search queries: parts of stored messages.

use std::io;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::client::encode_query;
use crate::compare::requests::messages_path;
use crate::compare::seeded_log::SeededLog;

/// The number of hits on a page.
pub const LIMIT: u32 = 20;

/// The highest `track_total` of the API, so that all hits are counted.
const MAX_TRACK_TOTAL: u64 = 1_000_000_000;

/// The number of characters of the shortest query: a trigram.
const MIN_CHARS: usize = 3;

/// The part of a message that is used as the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// A word.
    Word,
    /// The start of a word.
    Prefix,
    /// A part that neither starts nor ends a word.
    Substring,
    /// Two consecutive words.
    Phrase,
}

/// The messages that a query covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The messages of one chat.
    Chat,
    /// The messages of all chats of an app.
    App,
}

/// The result that an engine returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedResult {
    /// The newest hits.
    Page,
    /// The newest hits and the total number of hits.
    PageAndTotal,
}

/// A query that matches at least the message that it was taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The kind.
    pub kind: QueryKind,
    /// The text, as it is in the message.
    pub text: String,
    /// The number of the chat of the message.
    pub chat: u64,
}

impl QueryKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Word, Self::Prefix, Self::Substring, Self::Phrase];

    /// Returns the display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Word => "word",
            Self::Prefix => "prefix",
            Self::Substring => "substring",
            Self::Phrase => "phrase",
        }
    }
}

impl Scope {
    /// Both scopes.
    pub const ALL: [Self; 2] = [Self::Chat, Self::App];

    /// Returns the display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "in a chat",
            Self::App => "in an app",
        }
    }
}

impl Query {
    /// Takes queries from random messages. The same log gives the same queries.
    ///
    /// # Errors
    /// Fails if too few messages have a fitting part.
    pub fn sample(seeded_log: &SeededLog, kind: QueryKind, count: usize) -> io::Result<Vec<Self>> {
        /// The number of messages that are tried for each query.
        const TRIES: usize = 1_000;
        let mut random = StdRng::seed_from_u64(7);
        let mut queries = Vec::new();
        for _ in 0..count * TRIES {
            if queries.len() == count {
                break;
            }
            let message = seeded_log.message(random.random_range(0..seeded_log.messages));
            if let Some(text) = sample_text(&message.body, kind, &mut random) {
                queries.push(Self { kind, text, chat: message.chat });
            }
        }
        if queries.len() < count {
            let (name, sampled) = (kind.name(), queries.len());
            let error =
                format!("too few messages have a {name} to search for: {sampled} of {count} queries sampled");
            return Err(io::Error::other(error));
        }
        Ok(queries)
    }

    /// Returns the path of the search in the API, newest hits first.
    pub fn path(&self, app: &str, scope: Scope, requested: RequestedResult) -> String {
        let query = match self.kind {
            QueryKind::Phrase => format!("\"{}\"", self.text),
            _ => self.text.clone(),
        };
        let path = match scope {
            Scope::Chat => messages_path(app, self.chat),
            Scope::App => format!("/api/v1/apps/{app}/messages"),
        };
        let track_total = match requested {
            RequestedResult::Page => 0,
            RequestedResult::PageAndTotal => MAX_TRACK_TOTAL,
        };
        let query = encode_query(&query);
        format!("{path}/search?query={query}&sort=newest&limit={LIMIT}&track_total={track_total}")
    }
}

fn sample_text(body: &str, kind: QueryKind, random: &mut StdRng) -> Option<String> {
    let words: Vec<&str> = body.split(' ').collect();
    // A word is longer than the shortest query, so that it also has a prefix that is a query.
    let is_word = |word: &str| word.chars().count() > MIN_CHARS && word.chars().all(char::is_alphanumeric);
    if kind == QueryKind::Phrase {
        let pairs: Vec<_> = words.windows(2).filter(|pair| pair.iter().all(|word| is_word(word))).collect();
        return (!pairs.is_empty()).then(|| pairs[random.random_range(0..pairs.len())].join(" "));
    }
    // A substring needs one more character on each side.
    let words: Vec<Vec<char>> = words
        .into_iter()
        .filter(|word| is_word(word))
        .map(|word| word.chars().collect())
        .filter(|word: &Vec<char>| kind != QueryKind::Substring || word.len() > MIN_CHARS + 1)
        .collect();
    if words.is_empty() {
        return None;
    }
    let word = &words[random.random_range(0..words.len())];
    let (start, end) = match kind {
        QueryKind::Word | QueryKind::Phrase => (0, word.len()),
        QueryKind::Prefix => (0, random.random_range(MIN_CHARS..word.len())),
        QueryKind::Substring => {
            let start = random.random_range(1..word.len() - MIN_CHARS);
            (start, random.random_range(start + MIN_CHARS..word.len()))
        }
    };
    Some(word[start..end].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::text_generator::TextGenerator;

    fn seeded_log() -> SeededLog {
        let texts = ["the quick brown foxes", "jumped over the lazy dogs, yes", "a b c"];
        SeededLog::new(&TextGenerator::new(texts.map(str::to_owned).to_vec()), 2, 100)
    }

    #[test]
    fn each_query_is_in_a_message_of_its_chat() {
        let seeded_log = seeded_log();
        for kind in QueryKind::ALL {
            let queries = Query::sample(&seeded_log, kind, 50).unwrap();
            assert_eq!(queries.len(), 50);
            for Query { text, chat, .. } in &queries {
                let found = (0..seeded_log.messages)
                    .map(|nth| seeded_log.message(nth))
                    .filter(|message| message.chat == *chat)
                    .any(|message| match kind {
                        QueryKind::Word => message.body.split(' ').any(|word| word == text),
                        QueryKind::Prefix => {
                            message.body.split(' ').any(|word| word.starts_with(text) && word != text)
                        }
                        QueryKind::Substring => message.body.split(' ').any(|word| {
                            word.find(text).is_some_and(|start| start > 0 && start + text.len() < word.len())
                        }),
                        QueryKind::Phrase => message.body.contains(text) && text.contains(' '),
                    });
                assert!(found, "no message of chat {chat} has the {kind:?} {text:?}");
            }
        }
    }

    #[test]
    fn fails_for_a_corpus_without_fitting_words() {
        let seeded_log = SeededLog::new(&TextGenerator::new(vec!["a b c".to_owned()]), 2, 100);
        let error = Query::sample(&seeded_log, QueryKind::Word, 9).unwrap_err().to_string();
        assert!(error.ends_with("0 of 9 queries sampled"), "{error}");
    }

    #[test]
    fn samples_the_same_queries_each_time() {
        let seeded_log = seeded_log();
        let sample = || Query::sample(&seeded_log, QueryKind::Word, 9).unwrap();
        assert_eq!(sample(), sample());
    }

    #[test]
    fn quotes_a_phrase_and_encodes_the_query() {
        let query = Query { kind: QueryKind::Phrase, text: "two words".to_owned(), chat: 3 };
        let path = query.path("t", Scope::Chat, RequestedResult::Page);
        assert_eq!(
            path,
            "/api/v1/apps/t/chats/3/messages/search?query=%22two%20words%22&sort=newest&limit=20&track_total=0"
        );
    }
}
