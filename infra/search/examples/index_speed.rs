//! What the search index costs: `cargo run --release -p chat-infra --example index_speed -- CORPUS [MESSAGES] [COMMIT]`.
//!
//! Puts messages into a new index, `COMMIT` of them a commit, into 1,000 chats, and prints the processor time of each
//! (all threads, merges included), the size of the index, and how long searches in it take. `CORPUS` is a file of JSON
//! lines with an `app` and a `body`; where it is too short, halves of two of an app's bodies make more of them.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "figures are rough, and numbers small"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use chat_ports::event_store::LogId;
use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope, SearchRequest, Sort};
use chat_search::{TantivyIndex, TantivyIndexWriter};
use serde::Deserialize;
use uuid::Uuid;

type BoxError = Box<dyn Error>;

const CHATS: usize = 1_000;
const SEARCHES_PER_KIND: usize = 400;
/// Ticks of `/proc/self/stat`.
const TICKS_A_SECOND: f64 = 100.0;

fn main() -> Result<(), BoxError> {
    let mut arguments = env::args().skip(1);
    let corpus = Corpus::read(&arguments.next().ok_or("which corpus?")?)?;
    let messages: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let commit: usize = arguments.next().map_or(Ok(32_768), |text| text.parse())?;
    let folder = tempfile::tempdir_in(env::var_os("FOLDER").unwrap_or_else(|| ".".into()))?;
    let dir = folder.path().join("index");
    let (mut writer, _) = TantivyIndexWriter::open(&dir)?;
    let mut dice = PseudoRandom(1);
    let log = LogId(Uuid::from_u128(1));
    let (mut wall, mut processor) = (Duration::ZERO, 0.0);
    for from in (0..messages).step_by(commit) {
        let to = (from + commit).min(messages);
        let new = (from..to).map(|index| corpus.message(index, &mut dice)).collect::<Result<_, _>>()?;
        let nothing = IndexChanges::empty(log, Position::new(from as u64), Position::new(to as u64));
        let (started, used) = (Instant::now(), cpu_seconds()?);
        writer.commit(IndexChanges { add: new, ..nothing })?;
        wall += started.elapsed();
        processor += self::cpu_seconds()? - used;
    }
    let used = cpu_seconds()?;
    wait_for_merges(&dir);
    processor += self::cpu_seconds()? - used;
    let each = 1e6 / messages as f64;
    println!(
        "{messages} messages, {commit} a commit: {:.1} us of processor each, {:.1} us of commit each, {:.0} bytes \
         each, {} segments, {} at the peak",
        processor * each,
        wall.as_secs_f64() * each,
        index_bytes(&dir)? as f64 / messages as f64,
        segment_count(&dir)?,
        peak_memory()?,
    );
    let reader = writer.reader();
    reader.refresh()?;
    search(&corpus, &reader, messages)
}

/// Texts of several apps.
struct Corpus {
    apps: Vec<(AppToken, Vec<String>)>,
    /// Of each text, its app and its place there.
    text_locations: Vec<(usize, usize)>,
}

impl Corpus {
    fn read(path: &str) -> Result<Self, BoxError> {
        #[derive(Deserialize)]
        struct CorpusLine {
            app: String,
            body: String,
        }
        let mut apps: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in fs::read_to_string(path)?.lines() {
            let line: CorpusLine = serde_json::from_str(line)?;
            apps.entry(line.app).or_default().push(line.body);
        }
        let mut dice = PseudoRandom(7);
        let mut corpus = Self { apps: Vec::new(), text_locations: Vec::new() };
        for (app, (_, bodies)) in apps.into_iter().enumerate() {
            corpus.text_locations.extend((0..bodies.len()).map(|text| (app, text)));
            let token = AppToken::generate(|bytes| bytes.fill_with(|| dice.next_below(256) as u8));
            corpus.apps.push((token, bodies));
        }
        Ok(corpus)
    }

    /// One of the texts, or halves of two.
    fn random_text(&self, dice: &mut PseudoRandom) -> (usize, String) {
        let (app, text) = self.text_locations[dice.next_below(self.text_locations.len())];
        let bodies = &self.apps[app].1;
        let (a, b) = (&bodies[text], &bodies[dice.next_below(bodies.len())]);
        let (a, b) = (split_in_half(a).0, split_in_half(b).1);
        (app, format!("{a}{b}"))
    }

    fn message(&self, index: usize, dice: &mut PseudoRandom) -> Result<Document, BoxError> {
        let (app, body) = self.random_text(dice);
        let at = Timestamp::from_millis(1_790_000_000_000 + index as i64);
        // An app's chats are those whose number leaves its own as the rest.
        let chat = (index * 7_919 % CHATS) / self.apps.len() + 1;
        Ok(Document {
            key: MessageKey {
                app: self.apps[app].0,
                chat: ChatNumber::try_from(chat as u64)?,
                message: MessageNumber::try_from(index as u64 + 1)?,
            },
            created_position: Position::new(index as u64 + 1),
            body,
            version: Version::new(1),
            created_at: at,
            updated_at: at,
        })
    }
}

/// Cuts a text in two, between words where it has some.
fn split_in_half(text: &str) -> (&str, &str) {
    let middle = text.floor_char_boundary(text.len() / 2);
    let middle = text[middle..].find(' ').map_or(middle, |space| middle + space);
    text.split_at(middle)
}

/// Searches of each kind, newest first, in one chat and in an app.
fn search(corpus: &Corpus, index: &TantivyIndex, messages: usize) -> Result<(), BoxError> {
    let mut dice = PseudoRandom(3);
    for kind in ["word", "prefix", "substring", "phrase"] {
        for in_app in [false, true] {
            let mut took = Vec::new();
            let mut found = 0;
            while took.len() < SEARCHES_PER_KIND {
                let message = corpus.message(dice.next_below(messages), &mut dice)?;
                let Some(query) = random_query(kind, &message.body, &mut dice) else { continue };
                let key = message.key;
                let scope = if in_app { Scope::App(key.app) } else { Scope::Chat(key.app, key.chat) };
                let request = SearchRequest {
                    scope,
                    query,
                    fuzzy: false,
                    sort: Sort::Newest,
                    created_from: None,
                    created_until: None,
                    limit: 20,
                    cursor: None,
                };
                let started = Instant::now();
                found += index.search(&request)?.total;
                took.push(started.elapsed());
            }
            took.sort_unstable();
            let scope = if in_app { "an app" } else { "a chat" };
            println!(
                "{kind:>9} in {scope}: p50 {:>5} us, p99 {:>6} us, {} found on average",
                took[SEARCHES_PER_KIND / 2].as_micros(),
                took[SEARCHES_PER_KIND * 99 / 100].as_micros(),
                found / SEARCHES_PER_KIND as u64
            );
        }
    }
    Ok(())
}

fn random_query(kind: &str, body: &str, dice: &mut PseudoRandom) -> Option<String> {
    let words: Vec<Vec<char>> = body
        .split(|c: char| !c.is_alphanumeric())
        .map(|word| word.chars().collect::<Vec<_>>())
        .filter(|word| word.len() > 3)
        .collect();
    let at = dice.next_below(words.len().max(1));
    let word = words.get(at)?;
    Some(match kind {
        "word" => word.iter().collect(),
        "prefix" => word[..3].iter().collect(),
        "substring" => word[1..].iter().take(4).collect(),
        _ => format!("\"{}\"", body.split_whitespace().skip(at).take(2).collect::<Vec<_>>().join(" ")),
    })
}

/// Numbers that look drawn, the same ones each time.
struct PseudoRandom(u64);

impl PseudoRandom {
    fn next_below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// Waits until nothing is merged any more.
fn wait_for_merges(dir: &Path) {
    let mut last = None;
    loop {
        let now = fs::read(dir.join("meta.json")).ok();
        if now == last {
            return;
        }
        last = now;
        thread::sleep(Duration::from_secs(2));
    }
}

/// Seconds of processor time that this process has used.
fn cpu_seconds() -> Result<f64, BoxError> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    Ok((ticks(11).ok_or("no user time")? + ticks(12).ok_or("no system time")?) / TICKS_A_SECOND)
}

fn peak_memory() -> Result<String, BoxError> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn index_bytes(dir: &Path) -> Result<u64, BoxError> {
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.path().extension().unwrap_or_default().to_string_lossy().into_owned();
        *bytes.entry(name).or_default() += entry.metadata()?.len();
    }
    println!("bytes by kind of file: {bytes:?}");
    Ok(bytes.values().sum())
}

fn segment_count(dir: &Path) -> Result<usize, BoxError> {
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("meta.json"))?)?;
    Ok(meta["segments"].as_array().map_or(0, Vec::len))
}
