//! What is searched for: pieces of messages that are there.

use std::io;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::client::encode_query;
use crate::compare::requests::messages_path;
use crate::compare::seeded_log::SeededLog;

/// Hits that are asked for.
pub const LIMIT: u32 = 20;

/// Letters of the shortest piece: a trigram.
const MIN_CHARS: usize = 3;

/// What a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// A word.
    Word,
    /// The start of a word.
    Prefix,
    /// The inside of a word.
    Substring,
    /// Two words that follow each other.
    Phrase,
}

/// Where a query looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In one chat.
    Chat,
    /// In all chats of an app.
    App,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedResult {
    /// The newest hits.
    Page,
    /// The newest hits, and how many there are in all, as the chat API answers.
    PageAndTotal,
}

/// A query that finds at least the message that it was drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What it is.
    pub kind: QueryKind,
    /// What is looked for, as it stands in the message.
    pub text: String,
    /// The message's chat.
    pub chat: u64,
}

impl QueryKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Word, Self::Prefix, Self::Substring, Self::Phrase];

    /// For people.
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
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Chat, Self::App];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "in a chat",
            Self::App => "in an app",
        }
    }
}

impl Query {
    /// So many queries, drawn from messages at random, always the same ones.
    ///
    /// # Errors
    /// Where hardly a message has a fitting piece.
    pub fn draw(seed: &SeededLog, kind: QueryKind, count: usize) -> io::Result<Vec<Self>> {
        /// Messages without a fitting word are passed over.
        const TRIES: usize = 1_000;
        let mut random = StdRng::seed_from_u64(7);
        let mut drawn = Vec::new();
        for _ in 0..count * TRIES {
            if drawn.len() == count {
                break;
            }
            let message = seed.message(random.random_range(0..seed.messages));
            if let Some(text) = draw_text(&message.body, kind, &mut random) {
                drawn.push(Self { kind, text, chat: message.chat });
            }
        }
        if drawn.len() < count {
            let (name, found) = (kind.name(), drawn.len());
            let error =
                format!("too few messages hold a {name} to search for: {found} of {count} queries drawn");
            return Err(io::Error::other(error));
        }
        Ok(drawn)
    }

    /// The path of the API that searches, newest first.
    pub fn path(&self, app: &str, scope: Scope) -> String {
        let query = match self.kind {
            QueryKind::Phrase => format!("\"{}\"", self.text),
            _ => self.text.clone(),
        };
        let path = match scope {
            Scope::Chat => messages_path(app, self.chat),
            Scope::App => format!("/api/v1/apps/{app}/messages"),
        };
        format!("{path}/search?query={}&sort=newest&limit={LIMIT}", encode_query(&query))
    }
}

fn draw_text(body: &str, kind: QueryKind, random: &mut StdRng) -> Option<String> {
    let words: Vec<&str> = body.split(' ').collect();
    let is_word = |word: &str| word.chars().count() > MIN_CHARS && word.chars().all(char::is_alphanumeric);
    if kind == QueryKind::Phrase {
        let pairs: Vec<_> = words.windows(2).filter(|pair| pair.iter().all(|word| is_word(word))).collect();
        return (!pairs.is_empty()).then(|| pairs[random.random_range(0..pairs.len())].join(" "));
    }
    // One letter more on each side than what is drawn.
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

    fn seed() -> SeededLog {
        let texts = ["the quick brown foxes", "jumped over the lazy dogs, yes", "a b c"];
        SeededLog::new(&TextGenerator::new(texts.map(str::to_owned).to_vec()), 2, 100)
    }

    #[test]
    fn each_kind_is_in_a_message_of_its_chat_and_as_it_says() {
        let seed = seed();
        for kind in QueryKind::ALL {
            let queries = Query::draw(&seed, kind, 50).unwrap();
            assert_eq!(queries.len(), 50);
            for Query { text, chat, .. } in &queries {
                let found = (0..seed.messages)
                    .map(|nth| seed.message(nth))
                    .filter(|message| message.chat == *chat)
                    .any(|message| match kind {
                        QueryKind::Word => message.body.split(' ').any(|word| word == text),
                        QueryKind::Prefix => {
                            message.body.split(' ').any(|word| word.starts_with(text) && word != text)
                        }
                        QueryKind::Substring => {
                            message.body.split(' ').any(|word| word.find(text).is_some_and(|at| at > 0))
                        }
                        QueryKind::Phrase => message.body.contains(text) && text.contains(' '),
                    });
                assert!(found, "{kind:?}: {text}");
            }
        }
    }

    #[test]
    fn a_corpus_with_nothing_to_search_for_is_told() {
        let seed = SeededLog::new(&TextGenerator::new(vec!["a b c".to_owned()]), 2, 100);
        let error = Query::draw(&seed, QueryKind::Word, 9).unwrap_err().to_string();
        assert!(error.ends_with("0 of 9 queries drawn"), "{error}");
    }

    #[test]
    fn the_same_queries_are_drawn_again() {
        let seed = seed();
        let draw = || Query::draw(&seed, QueryKind::Word, 9).unwrap();
        assert_eq!(draw(), draw());
    }

    #[test]
    fn a_phrase_is_quoted_and_everything_is_encoded() {
        let query = Query { kind: QueryKind::Phrase, text: "two words".to_owned(), chat: 3 };
        let path = query.path("t", Scope::Chat);
        assert_eq!(
            path,
            "/api/v1/apps/t/chats/3/messages/search?query=%22two%20words%22&sort=newest&limit=20"
        );
    }
}
