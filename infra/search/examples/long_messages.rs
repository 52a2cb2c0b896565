//! Measures what a hit costs in messages of 64 KiB: `cargo run --release -p chat-search --example long_messages`.
//!
//! Prints the CPU time per hit, which includes reading and decompressing the message. The texts are in several scripts,
//! with the match at several places.

#![expect(clippy::print_stdout, reason = "prints its results")]

use std::error::Error;
use std::fs;
use std::time::Duration;

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use chat_ports::event_store::LogId;
use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope, SearchRequest, Sort};
use chat_search::TantivyIndexWriter;
use uuid::Uuid;

const MESSAGES: u64 = 100;
const BODY_BYTES: usize = 64 << 10;
const SEARCHES: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let english = "it was the best of times, it was the worst of times; ";
    let german = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. ";
    let russian = "Съешь же ещё этих мягких французских булок, да выпей чаю. ";
    let chinese = "我喜欢吃苹果和香蕉，但是今天没有时间去商店。";
    for (name, filler) in
        [("English", english), ("German", german), ("Russian", russian), ("Chinese", chinese)]
    {
        for (place, halves_before) in [("start", 0), ("middle", 1), ("end", 2)] {
            let before = filler.repeat(BODY_BYTES * halves_before / 2 / filler.len());
            let after = filler.repeat((BODY_BYTES - before.len()).saturating_sub(64) / filler.len());
            let body = format!("{before}needle {after}");
            measure(&format!("{name}, match at the {place}"), &body, &["needle", "need", "eedl"])?;
        }
    }
    let partial_matches = "platform ".repeat(BODY_BYTES / 9);
    measure("English, 7,000 partial matches", &partial_matches, &["form"])?;
    measure("English, matches everywhere", &english.repeat(BODY_BYTES / english.len()), &["it", english])
}

/// Indexes messages with this body, runs each query [`SEARCHES`] times, and prints its average CPU time per hit.
fn measure(name: &str, body: &str, queries: &[&str]) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (mut writer, _) = TantivyIndexWriter::open(&folder.path().join("index"))?;
    let app = AppToken::generate(|bytes| bytes.fill(7));
    let document = |number: u64| -> Result<Document, Box<dyn Error>> {
        Ok(Document {
            key: MessageKey { app, chat: ChatNumber::FIRST, message: MessageNumber::try_from(number)? },
            created_position: Position::new(number),
            body: body.to_owned(),
            sender: None,
            data: None,
            version: Version::new(1),
            created_at: Timestamp::from_millis(1),
            updated_at: Timestamp::from_millis(1),
        })
    };
    let add = (1..=MESSAGES).map(document).collect::<Result<_, _>>()?;
    let changes = IndexChanges::empty(LogId(Uuid::from_u128(1)), Position::START, Position::new(MESSAGES));
    writer.commit(IndexChanges { add, ..changes })?;
    let index = writer.reader();
    for query in queries {
        let request =
            SearchRequest { sort: Sort::Newest, limit: 100, ..SearchRequest::new(Scope::App(app), *query) };
        let started = cpu_time()?;
        let mut hits = 0;
        for _ in 0..SEARCHES {
            hits += index.search(&request)?.hits.len();
        }
        let used = cpu_time()?.saturating_sub(started);
        let each = used.as_secs_f64() * 1e3 / f64::from(u32::try_from(hits)?);
        println!("{name}, `{query}`: {each:.2} ms");
    }
    Ok(())
}

/// The CPU time of this thread so far.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(stat.split(' ').next().unwrap_or_default().parse()?))
}
