//! Figure 6: rebuilds of projections.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::compare::disk_usage::DiskUsage;
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::postgres;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::RunConfig;
use crate::compare::seeded_log::{SeededLog, read_and_decode};
use crate::compare::server_process::chat_api_command;

/// Measures the rebuild command of operators on a seeded log, up to its head. `--until` skips the comparison and the
/// promotion, so that only the rebuild is measured.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let folder = config.new_folder()?;
    let head = SeededLog::new(&config.texts, config.chats(), config.messages).write(folder.path()).await?;
    let server = postgres::start(config).await?;
    let url = postgres::create_database(&server).await?;
    let mut table = Table::new("Bytes a message after a rebuild", &["", "bytes a message"]);
    let per_message = |bytes: f64| format!("{:.0}", bytes / config.messages as f64);
    table.rows.push(vec!["log".to_owned(), per_message(DiskUsage::of_data_folder(folder.path())?.log)]);
    // The log was not written by the program, so nothing in the folder says where the projections are.
    let sqlite_url = format!("sqlite://{}", folder.path().join("read-model.db").display());
    let index_folder = folder.path().join("search-index").display().to_string();
    for (name, projection, location, goal) in [
        ("rebuild of the read model in SQLite", "read-model", ["--database-url", &sqlite_url], 0.30),
        ("rebuild of the read model in Postgres", "read-model", ["--database-url", &url], 0.15),
        ("rebuild of the search index", "search-index", ["--search-index-dir", &index_folder], 0.10),
    ] {
        let rate = |duration: Duration| head as f64 / duration.as_secs_f64();
        let rounds = Rounds::measure(
            config.rounds,
            async |_| Ok(rate(time_rebuild(config, folder.path(), projection, &location, head).await?)),
            async |_| {
                let (events, duration) = read_and_decode(folder.path(), head).await?;
                if events == head { Ok(rate(duration)) } else { Err(io::Error::other("events are missing")) }
            },
        );
        results.figures.push(Figure {
            number: 6,
            name: name.to_owned(),
            against: "reading, decoding and discarding the same events".to_owned(),
            unit: "events/s".to_owned(),
            goal: Goal::AtLeast(goal),
            measured: Measurements::Ratio(rounds.await?),
        });
    }
    let built = DiskUsage::of_data_folder(folder.path())?;
    table.rows.push(vec!["read model in SQLite".to_owned(), per_message(built.read_model)]);
    table.rows.push(vec!["search index".to_owned(), per_message(built.index)]);
    table
        .rows
        .push(vec!["read model in Postgres".to_owned(), per_message(postgres::database_size(&url).await?)]);
    let bytes_of_bodies = (0..config.messages.min(10_000)).map(|nth| config.texts.text(nth).len() as f64);
    let body = bytes_of_bodies.sum::<f64>() / config.messages.min(10_000) as f64;
    table.rows.push(vec!["the text itself".to_owned(), format!("{body:.0}")]);
    results.tables.push(table);
    Ok(())
}

/// Rebuilds a projection up to `head`, and returns the duration of the command.
pub(super) async fn time_rebuild(
    config: &RunConfig,
    folder: &Path,
    projection: &'static str,
    arguments: &[&str],
    head: u64,
) -> io::Result<Duration> {
    let mut command = chat_api_command(&config.program);
    command.args(["projections", "rebuild", projection, "--from-scratch", "--until", &head.to_string()]);
    command.args(["--execute", "--operator", "bench", "--reason", "measured", "-o", "json", "--data-dir"]);
    command.arg(folder).args(arguments).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let start = Instant::now();
    let output = command.kill_on_drop(true).output().await?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(start.elapsed())
}
