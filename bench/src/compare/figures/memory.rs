//! Figure 10: memory, idle and at the peak. How it grows with stored messages is measured with figure 11.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::reads::{message_paths, page_paths};
use super::search::queries::{Query, QueryKind, Scope};
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::requests::Gets;
use crate::compare::run_config::{PAGE_SIZE, RunConfig};
use crate::compare::seeded_log::SeededLog;
use crate::compare::server_process::Memory;
use crate::compare::system_under_test::Stage;

const MEBIBYTE: f64 = 1_048_576.0;

/// How long a process is left alone before it counts as idle.
const IDLE_TIME: Duration = Duration::from_secs(5);

pub(super) async fn measure(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let stage = Stage::new(setting, setting.chats(), &[]).await?;
    tokio::time::sleep(IDLE_TIME.min(setting.duration)).await;
    let idle = stage.server.memory()?;
    let mut table = Table::new("Memory in MiB", &["", "resident", "of that its own", "the most until then"]);
    table.rows.push(row("idle, nothing stored but empty chats", idle));
    setting.post_all(&stage.server.address, &stage.paths, setting.chats() * PAGE_SIZE).await?;
    for _ in 0..setting.rounds {
        setting.posts(&stage.server.address, &stage.paths).await?;
    }
    table.rows.push(row("after posts at full speed", stage.server.memory()?));
    stage.catch_up().await?;
    read_all(setting, &stage, search_paths(setting, &stage)?).await?;
    let busy = stage.server.memory()?;
    table.rows.push(row("after reads and searches at full speed", busy));
    tokio::time::sleep(IDLE_TIME.min(setting.duration)).await;
    table.rows.push(row("idle again", stage.server.memory()?));
    for (name, bytes, goal) in [
        ("memory, idle", idle.resident, 40.0),
        ("memory at the peak of posts, reads and searches", busy.peak, 250.0),
    ] {
        findings.figures.push(Figure {
            number: 10,
            name: name.to_owned(),
            against: String::new(),
            unit: "MiB".to_owned(),
            goal: Goal::AtMost(goal),
            measured: Measurements::Absolute(vec![bytes / MEBIBYTE]),
        });
    }
    findings.tables.push(table);
    Ok(())
}

/// Reads messages and pages and searches, each as fast as it goes for as long as a side of a round lasts.
pub(super) async fn read_all(setting: &RunConfig, stage: &Stage, searches: Vec<String>) -> io::Result<()> {
    for paths in [message_paths(stage), page_paths(stage), searches] {
        setting.send_at_full_speed(&stage.server.address, 200, Arc::new(Gets { paths })).await?;
    }
    Ok(())
}

/// Searches for words of the corpus.
fn search_paths(setting: &RunConfig, stage: &Stage) -> io::Result<Vec<String>> {
    let seed = SeededLog::new(&setting.texts, setting.chats(), setting.texts.corpus().len() as u64);
    let words = Query::draw(&seed, QueryKind::Word, 1_000)?;
    Ok(words.iter().map(|query| query.path(&stage.app, Scope::App)).collect())
}

/// A row of what a process has in memory.
pub(super) fn row(name: &str, memory: Memory) -> Vec<String> {
    let mebibytes = |bytes: f64| format!("{:.0}", bytes / MEBIBYTE);
    vec![name.to_owned(), mebibytes(memory.resident), mebibytes(memory.anonymous), mebibytes(memory.peak)]
}
