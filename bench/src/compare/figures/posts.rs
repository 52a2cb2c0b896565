//! Figures 1 to 3: posting messages.

use std::io;
use std::time::Instant;

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements};
use crate::compare::requests::messages_path;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::RunConfig;
use crate::compare::server_process::Server;
use crate::compare::system_under_test::Stage;

const BASELINE: &str = "a bare axum handler that parses the same JSON and stores nothing";

pub(super) async fn many_chats(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let stage = Stage::new(setting, setting.chats(), &[]).await?;
    let name = format!("POST of messages to {} chats", setting.chats());
    posts(setting, findings, &stage, (1, &name), Goal::AtLeast(0.45)).await
}

pub(super) async fn one_chat(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let stage = Stage::new(setting, 1, &[]).await?;
    posts(setting, findings, &stage, (2, "POST of messages to one chat"), Goal::AtLeast(0.40)).await
}

/// Durable posts a second, all projections running.
async fn posts(
    setting: &RunConfig,
    findings: &mut FigureResults,
    stage: &Stage,
    (number, name): (u32, &str),
    goal: Goal,
) -> io::Result<()> {
    let rounds = posts_against_baseline(setting, stage).await?;
    findings.figures.push(Figure {
        number,
        name: name.to_owned(),
        against: BASELINE.to_owned(),
        unit: "requests/s".to_owned(),
        goal,
        measured: Measurements::Ratio(rounds),
    });
    Ok(())
}

/// Posts a second to a stage, against those to the bare handler.
pub(super) async fn posts_against_baseline(setting: &RunConfig, stage: &Stage) -> io::Result<Rounds> {
    let bare = Server::bare(None)?;
    let bare = &bare;
    // What is loaded and compiled once is not what is measured.
    setting.posts(&bare.address, &stage.paths).await?;
    setting.posts(&stage.server.address, &stage.paths).await?;
    stage.catch_up().await?;
    Rounds::measure(
        setting.rounds,
        async |_| {
            let rate = setting.posts(&stage.server.address, &stage.paths).await?.rate();
            stage.catch_up().await?;
            Ok::<_, io::Error>(rate)
        },
        async |_| Ok(setting.posts(&bare.address, &stage.paths).await?.rate()),
    )
    .await
}

/// Posts a second until the last one can be read and found.
pub(super) async fn sustained(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let bare = Server::bare(None)?;
    let bare = &bare;
    let messages = setting.messages;
    let rounds = Rounds::measure(
        setting.rounds,
        async |_| {
            let stage = Stage::new(setting, setting.chats(), &[]).await?;
            let started = Instant::now();
            setting.post_all(&stage.server.address, &stage.paths, messages).await?;
            stage.catch_up().await?;
            Ok::<_, io::Error>(messages as f64 / started.elapsed().as_secs_f64())
        },
        async |_| {
            let paths: Vec<String> = (1..=setting.chats()).map(|chat| messages_path("bare", chat)).collect();
            let started = Instant::now();
            setting.post_all(&bare.address, &paths, messages).await?;
            Ok(messages as f64 / started.elapsed().as_secs_f64())
        },
    );
    findings.figures.push(Figure {
        number: 3,
        name: "POST of messages until the last one is readable and searchable".to_owned(),
        against: BASELINE.to_owned(),
        unit: "messages/s".to_owned(),
        goal: Goal::AtLeast(0.30),
        measured: Measurements::Ratio(rounds.await?),
    });
    Ok(())
}
