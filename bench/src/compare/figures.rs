//! The figures, one function each.

use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::blast::{Burst, blast};
use super::process::Server;
use super::requests::{Gets, Posts};
use super::rounds::Rounds;
use super::setting::{CONNECTIONS, Setting, Stage, all_answered, answer, caller};
use super::{Figure, Goal};
use crate::client::{CONSISTENCY_TOKEN, Call, PREFER};
use crate::latency::Latencies;

/// The numbers of those there are.
pub const ALL: [u32; 5] = [1, 2, 3, 5, 9];

/// Chats that messages are spread over, where they are.
const CHATS: u64 = 1_000;

const BARE: &str = "a bare axum handler that parses the same JSON and stores nothing";

/// Measures one.
pub async fn measure(number: u32, setting: &Setting) -> io::Result<Vec<Figure>> {
    match number {
        1 => {
            Ok(vec![posts(setting, 1, "POST of messages to 1,000 chats", CHATS, Goal::AtLeast(0.45)).await?])
        }
        2 => Ok(vec![posts(setting, 2, "POST of messages to one chat", 1, Goal::AtLeast(0.40)).await?]),
        3 => Ok(vec![sustained(setting).await?]),
        5 => reads(setting).await,
        9 => Ok(vec![latency(setting).await?]),
        _ => Ok(Vec::new()),
    }
}

/// Durable posts a second, all projections running.
async fn posts(
    setting: &Setting,
    number: u32,
    name: &'static str,
    chats: u64,
    goal: Goal,
) -> io::Result<Figure> {
    let stage = setting.stage(chats).await?;
    let bare = Server::bare(None)?;
    let (stage, bare) = (&stage, &bare);
    // What is loaded and compiled once is not what is measured.
    setting.posts(&bare.address, &stage.paths).await?;
    setting.posts(&stage.server.address, &stage.paths).await?;
    let rounds = Rounds::measure(
        setting.rounds,
        async |_| {
            let rate = setting.posts(&stage.server.address, &stage.paths).await?.rate();
            catch_up(stage).await?;
            Ok::<_, io::Error>(rate)
        },
        async |_| Ok(setting.posts(&bare.address, &stage.paths).await?.rate()),
    );
    Ok(Figure { number, name, against: BARE, unit: "requests/s", goal, rounds: rounds.await? })
}

/// Posts a second until the last one can be read and found.
async fn sustained(setting: &Setting) -> io::Result<Figure> {
    let bare = Server::bare(None)?;
    let bare = &bare;
    let rounds = Rounds::measure(
        setting.rounds,
        async |_| {
            let stage = setting.stage(CHATS).await?;
            let started = Instant::now();
            post_all(setting, &stage.server.address, &stage.paths).await?;
            catch_up(&stage).await?;
            Ok::<_, io::Error>(setting.messages as f64 / started.elapsed().as_secs_f64())
        },
        async |_| {
            let paths: Vec<String> =
                (1..=CHATS).map(|chat| super::requests::messages_path("bare", chat)).collect();
            let started = Instant::now();
            post_all(setting, &bare.address, &paths).await?;
            Ok(setting.messages as f64 / started.elapsed().as_secs_f64())
        },
    );
    Ok(Figure {
        number: 3,
        name: "POST of messages until the last one is readable and searchable",
        against: BARE,
        unit: "messages/s",
        goal: Goal::AtLeast(0.30),
        rounds: rounds.await?,
    })
}

async fn post_all(setting: &Setting, address: &str, paths: &[String]) -> io::Result<()> {
    let source = Arc::new(Posts::new(paths.to_vec(), &setting.texts, setting.messages));
    let burst = Burst { connections: CONNECTIONS, duration: Duration::MAX, rate: None };
    all_answered(blast(address, 201, burst, source).await?).map(|_| ())
}

/// Waits until the projections hold what was posted last: a query with the token of a command sees it.
async fn catch_up(stage: &Stage) -> io::Result<()> {
    let mut caller = caller(&stage.server)?;
    let failed = |error: crate::caller::CallError| io::Error::other(error.to_string());
    let last = Call::post(stage.paths[0].clone(), &serde_json::json!({ "body": "catch up" }));
    let posted = caller.call(&last).await.map_err(failed)?;
    let token = posted.headers.get(CONSISTENCY_TOKEN).cloned();
    let token = token.ok_or_else(|| io::Error::other("no Consistency-Token"))?;
    for path in
        [format!("{}?limit=1", stage.paths[0]), format!("{}/search?query=catch&limit=1", stage.paths[0])]
    {
        let wait = http::HeaderValue::from_static("wait=10");
        let query = Call::get(path).with(CONSISTENCY_TOKEN, token.clone()).with(PREFER, wait);
        // Behind by more than ten seconds it answers 503, and is asked again.
        caller.call(&query).await.map_err(failed)?;
    }
    Ok(())
}

/// A message, and a page of 50.
async fn reads(setting: &Setting) -> io::Result<Vec<Figure>> {
    const STORED: u64 = 50_000;
    let stage = setting.stage(CHATS).await?;
    let source = Arc::new(Posts::new(stage.paths.clone(), &setting.texts, STORED.max(CHATS * 50)));
    let burst = Burst { connections: CONNECTIONS, duration: Duration::MAX, rate: None };
    all_answered(blast(&stage.server.address, 201, burst, source).await?)?;
    catch_up(&stage).await?;
    let messages =
        stage.paths.iter().flat_map(|path| (1..=50).map(move |message| format!("{path}/{message}")));
    let pages = stage.paths.iter().map(|path| format!("{path}?limit=50"));
    let mut figures = Vec::new();
    for (name, paths, goal) in [
        ("GET of a message", messages.collect::<Vec<_>>(), Goal::AtLeast(0.50)),
        ("GET of a page of 50 messages", pages.collect(), Goal::AtLeast(0.25)),
    ] {
        // The same bytes, from memory.
        let sample: serde_json::Value =
            answer(&mut caller(&stage.server)?, &Call::get(paths[0].clone())).await?;
        let (_kept, file) = setting.file("answer.json", sample.to_string().as_bytes())?;
        let bare = Server::bare(Some(&file))?;
        let (ours, theirs) = (Arc::new(Gets { paths }), Arc::new(Gets { paths: vec!["/answer".to_owned()] }));
        let rounds = Rounds::measure(
            setting.rounds,
            async |_| {
                let source = Arc::clone(&ours);
                Ok::<_, io::Error>(setting.at_full_speed(&stage.server.address, 200, source).await?.rate())
            },
            async |_| {
                let source = Arc::clone(&theirs);
                Ok(setting.at_full_speed(&bare.address, 200, source).await?.rate())
            },
        );
        figures.push(Figure {
            number: 5,
            name,
            against: "a bare axum handler that answers the same bytes from memory",
            unit: "requests/s",
            goal,
            rounds: rounds.await?,
        });
    }
    Ok(figures)
}

/// The 99th percentile of a post's latency at half of the peak load, against that of one fsync.
async fn latency(setting: &Setting) -> io::Result<Figure> {
    let stage = setting.stage(CHATS).await?;
    let peak = setting.posts(&stage.server.address, &stage.paths).await?.rate();
    catch_up(&stage).await?;
    let stage = &stage;
    let rounds = Rounds::measure(
        setting.rounds,
        async |_| {
            let source = Arc::new(Posts::new(stage.paths.clone(), &setting.texts, u64::MAX));
            let burst =
                Burst { connections: CONNECTIONS, duration: setting.duration, rate: Some(peak / 2.0) };
            let outcome = all_answered(blast(&stage.server.address, 201, burst, source).await?)?;
            Ok::<_, io::Error>(outcome.latencies.response().p99 as f64)
        },
        async |_| {
            let (folder, duration) = (setting.folder().to_owned(), setting.duration);
            tokio::task::spawn_blocking(move || fsync_p99(&folder, duration))
                .await
                .map_err(io::Error::other)?
        },
    );
    Ok(Figure {
        number: 9,
        name: "p99 of a POST at half of the peak load",
        against: "p99 of one fsync on the same file system",
        unit: "µs",
        goal: Goal::AtMost(3.0),
        rounds: rounds.await?,
    })
}

/// The 99th percentile of writing 4 KiB to the end of a file and syncing it, in microseconds.
fn fsync_p99(folder: &std::path::Path, duration: Duration) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(folder)?;
    let (page, mut latencies) = ([7_u8; 4_096], Latencies::new());
    let started = Instant::now();
    let mut end = 0;
    while started.elapsed() < duration {
        let since = Instant::now();
        file.write_all_at(&page, end)?;
        file.flush()?;
        file.sync_data()?;
        latencies.record_one(since.elapsed());
        end += page.len() as u64;
    }
    Ok(latencies.response().p99 as f64)
}
