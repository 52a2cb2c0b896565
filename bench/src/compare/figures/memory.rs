//! Figure 10: memory, idle and at the peak. Its growth with stored messages is measured with figure 11.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::reads::{message_paths, page_paths};
use super::search::queries::{Query, QueryKind, RequestedResult, Scope};
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::requests::Gets;
use crate::compare::run_config::{PAGE_SIZE, RunConfig};
use crate::compare::seeded_log::SeededLog;
use crate::compare::server_process::Memory;
use crate::compare::system_under_test::SystemUnderTest;

const MEBIBYTE: f64 = 1_048_576.0;

/// The wait before a process without requests counts as idle. With shorter rounds, the wait is one side of a round.
const MAX_IDLE_WAIT: Duration = Duration::from_secs(5);

pub(in crate::compare) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, config.chats(), &[]).await?;
    tokio::time::sleep(MAX_IDLE_WAIT.min(config.duration)).await;
    let idle = system.server.memory()?;
    let mut table = Table::new("Memory in MiB", &["", "resident", "of that anonymous", "peak until then"]);
    table.rows.push(memory_row("idle, nothing stored but empty chats", idle));
    config.post_all(&system.server.address, &system.paths, config.chats() * PAGE_SIZE).await?;
    for _ in 0..config.rounds {
        config.post_for_duration(&system.server.address, &system.paths).await?;
    }
    table.rows.push(memory_row("after posts at full speed", system.server.memory()?));
    system.catch_up().await?;
    read_and_search(config, &system, search_paths(config, &system)?).await?;
    let busy = system.server.memory()?;
    table.rows.push(memory_row("after reads and searches at full speed", busy));
    tokio::time::sleep(MAX_IDLE_WAIT.min(config.duration)).await;
    table.rows.push(memory_row("idle again", system.server.memory()?));
    for (name, bytes, goal) in [
        ("memory, idle", idle.resident, 40.0),
        ("memory at the peak of posts, reads and searches", busy.peak, 250.0),
    ] {
        results.figures.push(Figure {
            number: 10,
            name: name.to_owned(),
            against: String::new(),
            unit: "MiB".to_owned(),
            goal: Goal::AtMost(goal),
            measured: Measurements::Absolute(vec![bytes / MEBIBYTE]),
        });
    }
    results.tables.push(table);
    Ok(())
}

/// Runs three closed loops, one after another: reads of messages, reads of pages, and searches. Each takes the time of
/// one side of a round.
pub(super) async fn read_and_search(
    config: &RunConfig,
    system: &SystemUnderTest,
    searches: Vec<String>,
) -> io::Result<()> {
    for paths in [message_paths(system), page_paths(system), searches] {
        config.run_closed_loop(&system.server.address, 200, Arc::new(Gets { paths })).await?;
    }
    Ok(())
}

/// Returns the paths of searches for words of the corpus.
fn search_paths(config: &RunConfig, system: &SystemUnderTest) -> io::Result<Vec<String>> {
    let seeded_log = SeededLog::new(&config.texts, config.chats(), config.texts.corpus().len() as u64);
    let words = Query::sample(&seeded_log, QueryKind::Word, 1_000)?;
    Ok(words.iter().map(|query| query.path(&system.app_token, Scope::App, RequestedResult::Page)).collect())
}

/// Returns a table row of the memory of a process.
pub(super) fn memory_row(name: &str, memory: Memory) -> Vec<String> {
    let mebibytes = |bytes: f64| format!("{:.0}", bytes / MEBIBYTE);
    vec![name.to_owned(), mebibytes(memory.resident), mebibytes(memory.anonymous), mebibytes(memory.peak)]
}
