//! Figure 10: memory, idle and at the peak. How it grows with stored messages is measured with figure 11.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::reads::{message_paths, page_paths};
use super::search::queries::{Kind, Query, Scope};
use crate::compare::figure::{Figure, Findings, Goal, Measured, Table};
use crate::compare::process::Memory;
use crate::compare::requests::Gets;
use crate::compare::seed::Seed;
use crate::compare::setting::{PAGE, Setting};
use crate::compare::stage::Stage;

const MEBIBYTE: f64 = 1_048_576.0;

/// How long a process is left alone before it counts as idle.
const REST: Duration = Duration::from_secs(5);

pub(super) async fn measure(setting: &Setting, findings: &mut Findings) -> io::Result<()> {
    let stage = Stage::new(setting, setting.chats(), &[]).await?;
    tokio::time::sleep(REST.min(setting.duration)).await;
    let idle = stage.server.memory()?;
    let mut table = Table::new("Memory in MiB", &["", "resident", "of that its own", "the most until then"]);
    table.rows.push(row("idle, nothing stored but empty chats", idle));
    setting.post_all(&stage.server.address, &stage.paths, setting.chats() * PAGE).await?;
    for _ in 0..setting.rounds {
        setting.posts(&stage.server.address, &stage.paths).await?;
    }
    table.rows.push(row("after posts at full speed", stage.server.memory()?));
    stage.catch_up().await?;
    read_all(setting, &stage, searches(setting, &stage)?).await?;
    let busy = stage.server.memory()?;
    table.rows.push(row("after reads and searches at full speed", busy));
    tokio::time::sleep(REST.min(setting.duration)).await;
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
            measured: Measured::Absolute(vec![bytes / MEBIBYTE]),
        });
    }
    findings.tables.push(table);
    Ok(())
}

/// Reads messages and pages and searches, each as fast as it goes for as long as a side of a round lasts.
pub(super) async fn read_all(setting: &Setting, stage: &Stage, searches: Vec<String>) -> io::Result<()> {
    for paths in [message_paths(stage), page_paths(stage), searches] {
        setting.at_full_speed(&stage.server.address, 200, Arc::new(Gets { paths })).await?;
    }
    Ok(())
}

/// Searches for words of the corpus.
fn searches(setting: &Setting, stage: &Stage) -> io::Result<Vec<String>> {
    let seed = Seed::new(&setting.texts, setting.chats(), setting.texts.corpus().len() as u64);
    let words = Query::draw(&seed, Kind::Word, 1_000)?;
    Ok(words.iter().map(|query| query.path(&stage.app, Scope::App)).collect())
}

/// A row of what a process has in memory.
pub(super) fn row(name: &str, memory: Memory) -> Vec<String> {
    let mebibytes = |bytes: f64| format!("{:.0}", bytes / MEBIBYTE);
    vec![name.to_owned(), mebibytes(memory.resident), mebibytes(memory.own), mebibytes(memory.peak)]
}
