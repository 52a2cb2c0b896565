//! Measures the search index: `cargo run --release -p chat-search --example index_speed -- CORPUS [MESSAGES] [COMMIT]
//! [TAIL]`.
//!
//! Indexes `MESSAGES` messages in about 1,000 chats, and commits `COMMIT` messages at a time. The last `TAIL` messages
//! are not committed but kept in the tail. Prints the CPU time per message (all threads and merges, without the making of texts), the size of the
//! index, and the latency of searches. `CORPUS` is a file of JSON lines with an `app` and a `body`. Each message is
//! made of halves of two bodies of an app. The index is in a temporary folder inside the one that the variable `FOLDER`
//! names, by default the current one.

#![expect(clippy::print_stdout, reason = "prints its results")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "figures are rough, and numbers small"
)]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use chat_ports::event_store::LogId;
use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope, SearchIndex, SearchRequest, Sort};
use chat_search::{SearchIndexReader, TantivyIndexWriter};
use serde::Deserialize;
use uuid::Uuid;

type BoxError = Box<dyn Error>;

const CHATS: usize = 1_000;
const SEARCHES_PER_KIND: usize = 400;
/// The number of messages that are added to the tail together.
const TAIL_BATCH: usize = 32;
/// The CPU time of all threads of this process.
const PROCESS: &str = "/proc/self/stat";
/// The CPU time of the calling thread.
const THREAD: &str = "/proc/thread-self/stat";
/// Clock ticks per second in these files.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<(), BoxError> {
    let mut arguments = env::args().skip(1);
    let corpus =
        Corpus::read(&arguments.next().ok_or("usage: index_speed CORPUS [MESSAGES] [COMMIT] [TAIL]")?)?;
    let messages: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let messages_per_commit: usize = arguments.next().map_or(Ok(32_768), |text| text.parse())?;
    let tail: usize = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let tail = tail.min(messages);
    let committed = messages - tail;
    let folder = tempfile::tempdir_in(env::var_os("FOLDER").unwrap_or_else(|| ".".into()))?;
    let dir = folder.path().join("index");
    let (mut writer, _) = TantivyIndexWriter::open(&dir)?;
    let mut random = PseudoRandom(1);
    let log = LogId(Uuid::from_u128(1));
    let (mut commit_time, mut cpu_of_texts) = (Duration::ZERO, 0.0);
    let cpu_before = cpu_seconds(PROCESS)?;
    for from in (0..committed).step_by(messages_per_commit) {
        let to = (from + messages_per_commit).min(committed);
        // Merges go on meanwhile, on other threads.
        let thread_before = cpu_seconds(THREAD)?;
        let new = (from..to).map(|index| corpus.message(index, &mut random)).collect::<Result<_, _>>()?;
        cpu_of_texts += cpu_seconds(THREAD)? - thread_before;
        let empty = IndexChanges::empty(log, Position::new(from as u64), Position::new(to as u64));
        let started = Instant::now();
        writer.commit(IndexChanges { add: new, ..empty })?;
        commit_time += started.elapsed();
    }
    wait_for_merges(&dir);
    let cpu_time = cpu_seconds(PROCESS)? - cpu_before - cpu_of_texts;
    // Converts seconds for all messages to microseconds for each.
    let micros_each_per_second = 1e6 / committed.max(1) as f64;
    println!(
        "{committed} messages, {messages_per_commit} per commit: {:.1} us CPU each, {:.1} us commit time each, \
         {:.0} bytes each, {} segments, {} peak memory",
        cpu_time * micros_each_per_second,
        commit_time.as_secs_f64() * micros_each_per_second,
        index_bytes(&dir)? as f64 / committed.max(1) as f64,
        segment_count(&dir)?,
        peak_memory()?,
    );
    let reader = SearchIndexReader::new(dir);
    let mut writer = reader.begin_tail(log, Position::new(committed as u64));
    let mut append_time = Duration::ZERO;
    for from in (committed..messages).step_by(TAIL_BATCH) {
        let to = (from + TAIL_BATCH).min(messages);
        let new = (from..to).map(|index| corpus.message(index, &mut random)).collect::<Result<_, _>>()?;
        let empty = IndexChanges::empty(log, Position::new(from as u64), Position::new(to as u64));
        let started = Instant::now();
        writer.append(IndexChanges { add: new, ..empty }, &HashMap::new());
        append_time += started.elapsed();
    }
    println!(
        "{tail} messages in the tail, {TAIL_BATCH} at a time: {:.1} us each, {} peak memory",
        append_time.as_secs_f64() * 1e6 / tail.max(1) as f64,
        peak_memory()?
    );
    search(&corpus, &reader, messages)
}

/// The bodies of several apps.
struct Corpus {
    apps: Vec<(AppToken, Vec<String>)>,
    /// For each body, the index of its app in `apps` and the index of the body in the app.
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
        let mut random = PseudoRandom(7);
        let mut corpus = Self { apps: Vec::new(), text_locations: Vec::new() };
        for (app, (_, bodies)) in apps.into_iter().enumerate() {
            corpus.text_locations.extend((0..bodies.len()).map(|text| (app, text)));
            let token = AppToken::generate(|bytes| bytes.fill_with(|| random.next_below(256) as u8));
            corpus.apps.push((token, bodies));
        }
        Ok(corpus)
    }

    /// A text made of halves of two bodies of one app, and the app's index.
    fn random_text(&self, random: &mut PseudoRandom) -> (usize, String) {
        let (app, text) = self.text_locations[random.next_below(self.text_locations.len())];
        let bodies = &self.apps[app].1;
        let (a, b) = (&bodies[text], &bodies[random.next_below(bodies.len())]);
        let (a, b) = (split_in_half(a).0, split_in_half(b).1);
        (app, format!("{a}{b}"))
    }

    fn message(&self, index: usize, random: &mut PseudoRandom) -> Result<Document, BoxError> {
        let (app, body) = self.random_text(random);
        let at = Timestamp::from_millis(1_790_000_000_000 + index as i64);
        let chat = (index * 7_919 % CHATS) / self.apps.len() + 1;
        Ok(Document {
            key: MessageKey {
                app: self.apps[app].0,
                chat: ChatNumber::try_from(chat as u64)?,
                message: MessageNumber::try_from(index as u64 + 1)?,
            },
            created_position: Position::new(index as u64 + 1),
            body,
            sender: None,
            data: None,
            version: Version::new(1),
            created_at: at,
            updated_at: at,
        })
    }
}

/// Splits a text at the first space after its middle, or in the middle if there is none.
fn split_in_half(text: &str) -> (&str, &str) {
    let middle = text.floor_char_boundary(text.len() / 2);
    let middle = text[middle..].find(' ').map_or(middle, |space| middle + space);
    text.split_at(middle)
}

/// Measures searches of each kind, in a chat and in an app. The hits are sorted newest first.
fn search(corpus: &Corpus, index: &SearchIndexReader, messages: usize) -> Result<(), BoxError> {
    let mut random = PseudoRandom(3);
    for kind in ["word", "prefix", "substring", "phrase"] {
        for in_app in [false, true] {
            let mut latencies = Vec::new();
            let mut found = 0;
            while latencies.len() < SEARCHES_PER_KIND {
                let message = corpus.message(random.next_below(messages), &mut random)?;
                let Some(query) = random_query(kind, &message.body, &mut random) else { continue };
                let key = message.key;
                let scope = if in_app { Scope::App(key.app) } else { Scope::Chat(key.app, key.chat) };
                let request =
                    SearchRequest { sort: Sort::Newest, limit: 20, ..SearchRequest::new(scope, query) };
                let started = Instant::now();
                found += index.search(&request)?.total.count();
                latencies.push(started.elapsed());
            }
            latencies.sort_unstable();
            let scope = if in_app { "an app" } else { "a chat" };
            println!(
                "{kind:>9} in {scope}: p50 {:>5} us, p99 {:>6} us, {} found on average",
                latencies[SEARCHES_PER_KIND / 2].as_micros(),
                latencies[SEARCHES_PER_KIND * 99 / 100].as_micros(),
                found / SEARCHES_PER_KIND as u64
            );
        }
    }
    Ok(())
}

fn random_query(kind: &str, body: &str, random: &mut PseudoRandom) -> Option<String> {
    let words: Vec<Vec<char>> = body
        .split(|c: char| !c.is_alphanumeric())
        .map(|word| word.chars().collect::<Vec<_>>())
        .filter(|word| word.len() > 3)
        .collect();
    let index = random.next_below(words.len().max(1));
    let word = words.get(index)?;
    Some(match kind {
        "word" => word.iter().collect(),
        "prefix" => word[..3].iter().collect(),
        "substring" => word[1..].iter().take(4).collect(),
        _ => format!("\"{}\"", body.split_whitespace().skip(index).take(2).collect::<Vec<_>>().join(" ")),
    })
}

/// A pseudo-random generator with the same sequence on every run.
struct PseudoRandom(u64);

impl PseudoRandom {
    fn next_below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Waits until the list of segments has not changed for two seconds.
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

/// The CPU time of this process or thread, in seconds.
fn cpu_seconds(stat_file: &str) -> Result<f64, BoxError> {
    let stat = fs::read_to_string(stat_file)?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    Ok((ticks(11).ok_or("no user time")? + ticks(12).ok_or("no system time")?) / TICKS_PER_SECOND)
}

fn peak_memory() -> Result<String, BoxError> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or_default().trim().to_owned())
}

/// The size of the index. Prints how it is spread over the kinds of files.
fn index_bytes(dir: &Path) -> Result<u64, BoxError> {
    let mut bytes_by_extension: BTreeMap<String, u64> = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let extension = entry.path().extension().unwrap_or_default().to_string_lossy().into_owned();
        *bytes_by_extension.entry(extension).or_default() += entry.metadata()?.len();
    }
    println!("bytes by file extension: {bytes_by_extension:?}");
    Ok(bytes_by_extension.values().sum())
}

fn segment_count(dir: &Path) -> Result<usize, BoxError> {
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("meta.json"))?)?;
    Ok(meta["segments"].as_array().map_or(0, Vec::len))
}
