//! Figure 6: folding a log anew.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::compare::disk_usage::sizes;
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::postgres;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::RunConfig;
use crate::compare::seeded_log::{SeededLog, read_and_decode};
use crate::compare::server_process::chat_api_command;

/// The command that operators rebuild with, on a log that was seeded, up to its end. What it compares and promotes
/// otherwise is left out: that reads what readers see, and folds nothing.
pub(super) async fn measure(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let folder = setting.new_folder()?;
    let head = SeededLog::new(&setting.texts, setting.chats(), setting.messages).write(folder.path()).await?;
    let server = postgres::start(setting).await?;
    let url = postgres::database(&server).await?;
    let mut table = Table::new("Bytes a message after a rebuild", &["", "bytes a message"]);
    let bytes = |bytes: f64| format!("{:.0}", bytes / setting.messages as f64);
    table.rows.push(vec!["log".to_owned(), bytes(sizes(folder.path())?.log)]);
    for (name, projection, arguments, goal) in [
        ("rebuild of the read model in SQLite", "read-model", &[][..], 0.30),
        ("rebuild of the read model in Postgres", "read-model", &["--database-url", &url], 0.15),
        ("rebuild of the search index", "search-index", &[], 0.10),
    ] {
        let rate = |took: Duration| head as f64 / took.as_secs_f64();
        let rounds = Rounds::measure(
            setting.rounds,
            async |_| Ok(rate(rebuild(setting, folder.path(), projection, arguments, head).await?)),
            async |_| {
                let (events, took) = read_and_decode(folder.path(), head).await?;
                if events == head { Ok(rate(took)) } else { Err(io::Error::other("events are missing")) }
            },
        );
        findings.figures.push(Figure {
            number: 6,
            name: name.to_owned(),
            against: "reading and decoding the same events and throwing them away".to_owned(),
            unit: "events/s".to_owned(),
            goal: Goal::AtLeast(goal),
            measured: Measurements::Ratio(rounds.await?),
        });
    }
    let built = sizes(folder.path())?;
    table.rows.push(vec!["read model in SQLite".to_owned(), bytes(built.read_model)]);
    table.rows.push(vec!["search index".to_owned(), bytes(built.index)]);
    table.rows.push(vec!["read model in Postgres".to_owned(), bytes(postgres::size(&url).await?)]);
    let body = (0..setting.messages.min(10_000)).map(|nth| setting.texts.text(nth).len() as f64);
    let body = body.sum::<f64>() / setting.messages.min(10_000) as f64;
    table.rows.push(vec!["the text itself".to_owned(), format!("{body:.0}")]);
    findings.tables.push(table);
    Ok(())
}

async fn rebuild(
    setting: &RunConfig,
    folder: &Path,
    projection: &'static str,
    arguments: &[&str],
    head: u64,
) -> io::Result<Duration> {
    let mut command = chat_api_command(&setting.program);
    command.args(["projections", "rebuild", projection, "--from-scratch", "--until", &head.to_string()]);
    command.args(["--execute", "--operator", "bench", "--reason", "measured", "-o", "json", "--data-dir"]);
    command.arg(folder).args(arguments).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let started = Instant::now();
    let done = command.kill_on_drop(true).output().await?;
    if !done.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()));
    }
    Ok(started.elapsed())
}
