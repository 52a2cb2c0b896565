//! Kills the server with SIGKILL at random moments under load, repeatedly, and checks after each restart that no
//! acknowledged command is lost or stored twice, that numbers have no gap, and that projections equal a rebuild.
//!
//! `CRASH_SEED` repeats the choices of a run, and `CRASH_ROUNDS` sets the number of rounds, each with a kill under load
//! (15 by default, 50 in `just soak`).

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod audit;
mod digests;
mod environment;
mod ledger;
#[expect(dead_code, reason = "shared with the fault campaign, which uses the rest of it")]
mod load;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use environment::{seed, setting};
use harness::deadline::eventually;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions};
use ledger::Ledger;
use load::StopCondition;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// An audit checks everything in each round whose number is a multiple of this, and in the last round. In other rounds,
/// it checks only what was written to.
const FULL_AUDIT_EVERY: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_command_is_lost_when_the_server_is_killed() {
    let seed = seed("CRASH_SEED");
    let rounds = setting("CRASH_ROUNDS", 15);
    eprintln!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");

    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path()).with("--log", "warn,chat_api=info");
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = options.start().await;
    for round in 1..=rounds {
        let is_last = round == rounds;
        // On a busy machine, hardly anything may be written in the short time before a kill. So the last
        // kill waits until the ledger has more messages than there were rounds.
        let least_messages = if is_last { usize::try_from(rounds).expect("a count") + 1 } else { 0 };
        load_and_kill(server, &ledger, round, &mut random, least_messages).await;
        kill_while_starting(&options, &mut random).await;
        server = options.start().await;
        let everything = is_last || round % FULL_AUDIT_EVERY == 0;
        let audited = audit::check(&server.client(), &mut *ledger.lock().await, everything).await;
        eprintln!("round {round}: {audited}");
        server = compare_with_rebuild(server, &options, folder.path(), audited.head).await;
    }
    server.shut_down().await;
}

/// Lets several clients write, and kills the server while they do, but not before the ledger has `least_messages`
/// messages.
async fn load_and_kill(
    server: Process,
    ledger: &Arc<Mutex<Ledger>>,
    round: u64,
    random: &mut StdRng,
    least_messages: usize,
) {
    let (_, load_clients) =
        load::start(&[server.client()], ledger, round, random.random(), &StopCondition::ServerGone).await;
    sleep(Duration::from_millis(random.random_range(0..=300))).await;
    eventually("messages are written", async || {
        (ledger.lock().await.known_messages() >= least_messages).then_some(())
    })
    .await;
    server.kill();
    // Each client stops at its first request without a response.
    load_clients.join_all().await;
}

/// Sometimes starts a server and kills it within 80 ms, now and then repeatedly.
async fn kill_while_starting(options: &ProcessOptions, random: &mut StdRng) {
    while random.random_ratio(1, 4) {
        let starting = options.spawn();
        sleep(Duration::from_micros(random.random_range(0..=80_000))).await;
        starting.kill();
    }
}

/// Stops the server once it has folded the log up to `head`, the position of the log's last event, asserts that its
/// projections have the same content as a rebuild from the log, and restarts it.
async fn compare_with_rebuild(
    server: Process,
    options: &ProcessOptions,
    folder: &Path,
    head: u64,
) -> Process {
    server.wait_until_folded(head).await;
    server.shut_down().await;
    let live = digests::from_folder(folder).await;
    let rebuilt = digests::from_rebuild(folder, &live).await;
    assert_eq!(live.position, rebuilt.position, "the projections have not folded the whole log");
    assert_eq!(live.content, rebuilt.content, "the projections differ from a rebuild");
    options.start().await
}
