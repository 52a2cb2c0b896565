//! Tests of the tail: a search of a snapshot with a tail has the same answer as a search of an index that has committed
//! all events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Sender, SenderId, Timestamp, Version};
use chat_ports::search_index::{
    Document, IndexChanges, MessageKey, Scope, SearchCursor, SearchIndex, SearchPage, SearchRequest, Sort,
};
use chat_search::{SearchIndexReader, TailWriter, TantivyIndexWriter};
use proptest::prelude::*;

use crate::fixture::{Fixture, LOG, empty_changes, message};
use crate::properties::any_text;

/// A pseudorandom number generator (splitmix64).
struct PseudoRandom(u64);

impl PseudoRandom {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).unwrap()
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

fn app(number: usize) -> AppToken {
    let letter = char::from(b'A' + u8::try_from(number).unwrap());
    AppToken::parse(&letter.to_string().repeat(AppToken::LENGTH)).unwrap()
}

/// A log of messages that are created, edited and deleted, and the state of each message over time.
#[derive(Default)]
struct Log {
    /// For each position, the message that the event changes, and the state of the message after the event: `None` if
    /// it is deleted.
    events: Vec<(MessageKey, Option<Document>)>,
    /// The number of the last message that was created in each chat. The key is an app number and a chat number.
    last_numbers: BTreeMap<(usize, u64), u64>,
    /// The present states of the messages that were not deleted.
    current: HashMap<MessageKey, Document>,
    /// The keys of `current` as a list, from which a random index picks one.
    keys: Vec<MessageKey>,
}

impl Log {
    fn head(&self) -> u64 {
        self.events.len() as u64
    }

    fn append_random(&mut self, random: &mut PseudoRandom, texts: &[(usize, String)]) {
        let position = self.head() + 1;
        let (app_number, text) = random.pick(texts).clone();
        if self.keys.is_empty() || !random.one_in(4) {
            let chat = 1 + random.below(2) as u64;
            let number = self.last_numbers.entry((app_number, chat)).or_default();
            *number += 1;
            let key = MessageKey {
                app: app(app_number),
                chat: ChatNumber::try_from(chat).unwrap(),
                message: MessageNumber::try_from(*number).unwrap(),
            };
            let sender = (!random.one_in(3)).then(|| {
                let id = SenderId::parse(format!("u-{}", random.below(2))).unwrap();
                Sender { id, name: None }
            });
            self.push(key, Some(Document { key, sender, ..message(position, &text) }));
            self.keys.push(key);
            return;
        }
        let index = random.below(self.keys.len());
        let key = self.keys[index];
        if random.one_in(2) {
            self.keys.swap_remove(index);
            self.push(key, None);
        } else {
            let before = self.current[&key].clone();
            let version = Version::new(before.version.get() + 1);
            let updated_at = Timestamp::from_millis(i64::try_from(position).unwrap() * 1_000);
            self.push(key, Some(Document { body: text, version, updated_at, ..before }));
        }
    }

    fn push(&mut self, key: MessageKey, state: Option<Document>) {
        match &state {
            Some(document) => self.current.insert(key, document.clone()),
            None => self.current.remove(&key),
        };
        self.events.push((key, state));
    }

    /// The changes of the events after `from` up to `to`, and the creation positions of the changed messages that
    /// existed at `from`.
    fn changes(&self, from: u64, to: u64) -> (IndexChanges, HashMap<MessageKey, Position>) {
        let (from_index, to_index) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        let mut changes = empty_changes(from, to);
        let mut created_positions = HashMap::new();
        let mut seen = HashSet::new();
        for (key, state) in self.events[from_index..to_index].iter().rev() {
            if !seen.insert(*key) {
                continue;
            }
            let before = self.events[..from_index].iter().rev().find(|(other, _)| other == key);
            let before = before.and_then(|(_, state)| state.as_ref());
            created_positions.extend(before.map(|document| (*key, document.created_position)));
            match (before, state) {
                (None, Some(document)) => changes.add.push(document.clone()),
                (Some(_), Some(document)) => changes.upsert.push(document.clone()),
                (Some(_), None) => changes.delete.push(*key),
                (None, None) => {}
            }
        }
        changes.add.reverse();
        changes.upsert.reverse();
        (changes, created_positions)
    }
}

/// An index with a tail, beside an index that commits everything.
struct Comparison {
    log: Log,
    /// The writer of the index with a tail.
    writer: TantivyIndexWriter,
    reader: SearchIndexReader,
    tail: TailWriter,
    _folder: tempfile::TempDir,
    /// The index that commits everything.
    reference: Fixture,
    random: PseudoRandom,
    /// The texts of messages, each with the number of its app.
    texts: Vec<(usize, String)>,
}

impl Comparison {
    fn new(seed: u64, texts: Vec<(usize, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir: PathBuf = folder.path().join("index");
        let (writer, _) = TantivyIndexWriter::open(&dir).unwrap();
        let reader = SearchIndexReader::new(dir);
        let tail = reader.begin_tail(LOG, Position::START);
        Self {
            log: Log::default(),
            writer,
            reader,
            tail,
            _folder: folder,
            reference: Fixture::new(),
            random: PseudoRandom(seed),
            texts,
        }
    }

    /// Appends fewer than `max_events` events to the log. Then advances the tail a few times, and commits to the index
    /// less often.
    fn advance(&mut self, max_events: usize) {
        for _ in 0..self.random.below(max_events) {
            self.log.append_random(&mut self.random, &self.texts);
        }
        for _ in 0..=self.random.below(4) {
            self.advance_tail();
            if self.random.one_in(3) {
                self.commit();
            }
        }
    }

    fn advance_tail(&mut self) {
        let from = self.tail.position().get();
        let to = from + self.random.below(usize::try_from(self.log.head() - from).unwrap() + 1) as u64;
        let (changes, created_positions) = self.log.changes(from, to);
        self.tail.append(changes, &created_positions);
    }

    fn commit(&mut self) {
        let from = self.writer.checkpoint().position.get();
        let to = from + self.random.below(usize::try_from(self.log.head() - from).unwrap() + 1) as u64;
        if to > from {
            self.writer.commit(self.log.changes(from, to).0).unwrap();
        }
        let committed = Position::new(to);
        if self.tail.position() < committed {
            self.tail = self.reader.begin_tail(LOG, committed);
        } else if self.random.one_in(2) {
            self.tail.trim(committed);
        }
    }

    /// Compares the answers to random queries. Returns the number of pages with hits.
    fn compare(&mut self, queries: usize) -> usize {
        let position = self.writer.checkpoint().position.max(self.tail.position());
        let from = self.reference.writer.checkpoint().position.get();
        if from < position.get() {
            self.reference.writer.commit(self.log.changes(from, position.get()).0).unwrap();
        }
        let mut pages_with_hits = 0;
        for _ in 0..queries {
            let mut request = self.random_request();
            for _ in 0..4 {
                let expected = self.reference.index.search(&request).unwrap();
                let page: SearchPage = self.reader.search(&request).unwrap();
                assert_eq!(
                    page,
                    expected,
                    "{request:?}, tail {:?} to {:?}, committed {:?}",
                    self.tail.start(),
                    self.tail.position(),
                    self.writer.checkpoint().position,
                );
                assert_eq!(page.position, position);
                pages_with_hits += usize::from(!page.hits.is_empty());
                request.cursor = page.next;
                if request.cursor.is_none() {
                    break;
                }
            }
        }
        pages_with_hits
    }

    fn random_request(&mut self) -> SearchRequest {
        let random = &mut self.random;
        let (app_number, query) = random_query(random, &self.texts);
        let app = app(app_number);
        let head = i64::try_from(self.log.head()).unwrap();
        let time = |random: &mut PseudoRandom| {
            random.one_in(5).then(|| {
                let second = random.below(usize::try_from(head).unwrap() + 1);
                Timestamp::from_millis(i64::try_from(second).unwrap() * 1_000)
            })
        };
        SearchRequest {
            scope: match random.below(3) {
                0 => Scope::App(app),
                chat => Scope::Chat(app, ChatNumber::try_from(chat as u64).unwrap()),
            },
            sender: random.one_in(4).then(|| SenderId::parse("u-1".to_owned()).unwrap()),
            query,
            fuzzy: random.one_in(3),
            sort: *random.pick(&[Sort::Relevance, Sort::Newest, Sort::Oldest]),
            created_from: time(random),
            created_until: time(random),
            limit: random.below(6),
            count_up_to: *random.pick(&[0, 3, 20, u64::MAX]),
            cursor: random.one_in(10).then(|| SearchCursor {
                score: random.below(20) as u64,
                position: Position::new(random.below(usize::try_from(head).unwrap() + 1) as u64),
            }),
            min_position: None,
        }
    }
}

/// Returns the number of an app, and a query: parts of texts as words and phrases, some with a typing error.
fn random_query(random: &mut PseudoRandom, texts: &[(usize, String)]) -> (usize, String) {
    let (app, _) = *random.pick(texts);
    let mut query = String::new();
    for _ in 0..=random.below(2) {
        let (_, text) = random.pick(texts).clone();
        let chars: Vec<char> = text.chars().collect();
        if chars.is_empty() {
            continue;
        }
        let mut start = random.below(chars.len());
        let longest = if random.one_in(3) { 16 } else { 6 };
        let mut end = start + 1 + random.below(longest);
        if random.one_in(2) {
            // Whole words.
            start = chars[..start].iter().rposition(|c| *c == ' ').map_or(0, |space| space + 1);
            let space = chars[start..].iter().position(|c| *c == ' ');
            end = space.map_or(chars.len(), |space| start + space);
        }
        let mut part: Vec<char> = chars[start..end.min(chars.len())].to_vec();
        if random.one_in(3) && part.len() > 2 {
            let index = random.below(part.len() - 1);
            match random.below(3) {
                0 => part.swap(index, index + 1),
                1 => drop(part.remove(index)),
                _ => part.insert(index, 'e'),
            }
        }
        let part: String = part.into_iter().collect();
        query.push(' ');
        let quote = if random.one_in(3) { "\"" } else { "" };
        query.extend([quote, &part, quote]);
    }
    (app, query)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_with_a_tail_are_those_of_an_index_that_committed_everything(
        texts in prop::collection::vec(any_text(), 4..16),
        similar_texts in prop::collection::vec("[ab漢字'._]{1,9}( [ab漢字'.]{1,9}){0,3}", 4..24),
        words in prop::collection::vec("(search|serach|research|sear|chat|chats|l'homme)( (search|chat|homme)){0,3}", 4..12),
        joined in prop::collection::vec("(a'b|b'c|a'b'c|_b|b_c_|1.2|1.2.3)( (a|b|c|a'b|b'c|2.3)){0,2}", 4..12),
        seed in any::<u64>(),
    ) {
        let texts = texts.into_iter().chain(similar_texts).chain(words).chain(joined);
        let texts = texts.enumerate().map(|(index, text)| (index % 2, text)).collect();
        let mut comparison = Comparison::new(seed, texts);
        for _ in 0..6 {
            comparison.advance(30);
            comparison.compare(30);
        }
    }
}

/// The same comparison over real messages in many languages. `CHAT_CORPUS` names a file of JSON lines with an `app` and
/// a `body`; without this variable, the test does nothing.
#[test]
fn answers_over_a_corpus_are_those_of_an_index_that_committed_everything() {
    #[derive(serde::Deserialize)]
    struct Line {
        app: String,
        body: String,
    }
    let Some(corpus) = std::env::var_os("CHAT_CORPUS") else { return };
    let lines = std::fs::read_to_string(corpus).unwrap();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.lines() {
        let Line { app, body } = serde_json::from_str(line).unwrap();
        texts.entry(app).or_default().push(body);
    }
    let queries: usize =
        std::env::var("CHAT_CORPUS_QUERIES").map_or(10_000, |number| number.parse().unwrap());
    let seed = std::env::var("CHAT_CORPUS_SEED").map_or(1, |seed| seed.parse().unwrap());
    // In the corpus, the messages of an app are in one language. Each comparison has one app of the corpus as app 0, and
    // up to 50 messages of the next one as app 1.
    let apps: Vec<_> = texts.into_iter().collect();
    let queries_per_round = queries.div_ceil(8 * apps.len());
    let (mut compared, mut pages_with_hits) = (0, 0);
    for (index, (_, bodies)) in apps.iter().enumerate() {
        let other = &apps[(index + 1) % apps.len()].1;
        let texts = bodies.iter().map(|body| (0, body.clone()));
        let texts = texts.chain(other.iter().take(50).map(|body| (1, body.clone()))).collect();
        let mut comparison = Comparison::new(seed + index as u64, texts);
        for _ in 0..8 {
            comparison.advance(400);
            pages_with_hits += comparison.compare(queries_per_round);
            compared += queries_per_round;
        }
    }
    println!("{compared} queries over {} languages, {pages_with_hits} pages with hits", apps.len());
}
