//! Figures 1 to 3: posts of messages.

use std::io;
use std::time::Instant;

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements};
use crate::compare::requests::messages_path;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::RunConfig;
use crate::compare::server_process::ServerProcess;
use crate::compare::system_under_test::SystemUnderTest;

const BASELINE: &str = "a bare axum handler that parses the same JSON and stores nothing";

pub(super) async fn many_chats(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, config.chats(), &[]).await?;
    let name = format!("POST of messages to {} chats", config.chats());
    measure_posts(config, results, &system, (1, &name), Goal::AtLeast(0.45)).await
}

pub(super) async fn one_chat(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, 1, &[]).await?;
    measure_posts(config, results, &system, (2, "POST of messages to one chat"), Goal::AtLeast(0.40)).await
}

/// Measures durable posts per second with running projections.
async fn measure_posts(
    config: &RunConfig,
    results: &mut FigureResults,
    system: &SystemUnderTest,
    (number, name): (u32, &str),
    goal: Goal,
) -> io::Result<()> {
    let rounds = posts_against_baseline(config, system).await?;
    results.figures.push(Figure {
        number,
        name: name.to_owned(),
        against: BASELINE.to_owned(),
        unit: "requests/s".to_owned(),
        goal,
        measured: Measurements::Ratio(rounds),
    });
    Ok(())
}

/// Measures the posts per second of a system, compared with the baseline.
pub(super) async fn posts_against_baseline(
    config: &RunConfig,
    system: &SystemUnderTest,
) -> io::Result<Rounds> {
    let baseline = ServerProcess::start_baseline(None)?;
    let baseline = &baseline;
    // The first posts warm up both servers and are not measured.
    config.post_for_duration(&baseline.address, &system.paths).await?;
    config.post_for_duration(&system.server.address, &system.paths).await?;
    system.catch_up().await?;
    Rounds::measure(
        config.rounds,
        async |_| {
            let rate = config.post_for_duration(&system.server.address, &system.paths).await?.rate();
            system.catch_up().await?;
            Ok::<_, io::Error>(rate)
        },
        async |_| Ok(config.post_for_duration(&baseline.address, &system.paths).await?.rate()),
    )
    .await
}

/// Measures posts per second, from the first post until the last message can be read and found.
pub(super) async fn sustained(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let baseline = ServerProcess::start_baseline(None)?;
    let baseline = &baseline;
    let messages = config.messages;
    let rounds = Rounds::measure(
        config.rounds,
        async |_| {
            let system = SystemUnderTest::start(config, config.chats(), &[]).await?;
            let start = Instant::now();
            config.post_all(&system.server.address, &system.paths, messages).await?;
            system.catch_up().await?;
            Ok::<_, io::Error>(messages as f64 / start.elapsed().as_secs_f64())
        },
        async |_| {
            let paths: Vec<String> =
                (1..=config.chats()).map(|chat| messages_path("baseline", chat)).collect();
            let start = Instant::now();
            config.post_all(&baseline.address, &paths, messages).await?;
            Ok(messages as f64 / start.elapsed().as_secs_f64())
        },
    );
    results.figures.push(Figure {
        number: 3,
        name: "POST of messages until the last one is readable and searchable".to_owned(),
        against: BASELINE.to_owned(),
        unit: "messages/s".to_owned(),
        goal: Goal::AtLeast(0.30),
        measured: Measurements::Ratio(rounds.await?),
    });
    Ok(())
}
