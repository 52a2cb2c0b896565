//! Puts separate command APIs, projectors and query APIs under load while engines and processes are flushed, restarted,
//! paused and killed. Checks afterwards that every acknowledged command is stored once, that numbers have no gap, and
//! that every projection equals a rebuild from the log.
//!
//! `CHAOS_SEED` repeats the choices of a run, `CHAOS_FAULTS` sets the number of faults (12 by default), and
//! `CHAOS_SECONDS` the minimum duration of the load (40 by default). `just soak` runs 36 faults in 125 seconds.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints its progress"
)]

#[path = "../crash/audit.rs"]
mod audit;
#[expect(dead_code, reason = "shared with the crash test, which uses more of it")]
#[path = "../crash/digests.rs"]
mod digests;
#[path = "../crash/environment.rs"]
mod environment;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../crash/ledger.rs"]
mod ledger;
#[expect(dead_code, reason = "shared with the crash test, which uses more of it")]
#[path = "../crash/load.rs"]
mod load;

mod cluster;
mod faults;

use std::sync::Arc;
use std::time::Duration;

use chat_testing::kurrentdb::{FakeKurrentDb, FaultPlan};
use cluster::{Cluster, Log};
use environment::{seed, setting};
use faults::Faults;
use ledger::Ledger;
use load::StopCondition;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};

/// Runs one test at a time: each has ten processes and three servers.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_command_is_lost_under_faults_of_redis_and_postgres() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed("CHAOS_SEED");
    run_under_faults(Cluster::start(Log::SqliteFile).await, seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_command_is_lost_under_faults_of_kurrentdb_redis_and_postgres() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed("CHAOS_SEED");
    let log = FakeKurrentDb::start().expect("a fake KurrentDB");
    let cluster = Cluster::start(Log::KurrentDb(log.url())).await;
    // Faults begin here, because the start of the processes is not tested.
    log.set_fault_plan(FaultPlan {
        seed,
        lost_answers: 40,
        dropped: 40,
        not_leader: 200,
        not_ready: 200,
        timed_out: 200,
        slow: 50,
        ended_subscriptions: 500,
    });
    run_under_faults(cluster, seed).await;
}

/// Injects faults under load, and checks the result.
async fn run_under_faults(mut cluster: Cluster, seed: u64) {
    let (count, min_duration) =
        (setting("CHAOS_FAULTS", 12), Duration::from_secs(setting("CHAOS_SECONDS", 40)));
    eprintln!("CHAOS_SEED={seed} CHAOS_FAULTS={count} CHAOS_SECONDS={}", min_duration.as_secs());
    let mut random = StdRng::seed_from_u64(seed);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let (stop, stopped) = watch::channel(false);
    let writers = load::start(
        &cluster.writing_clients(),
        &ledger,
        1,
        random.random(),
        &StopCondition::Signaled(stopped),
    )
    .await;

    let (started, pause) = (Instant::now(), min_duration / u32::try_from(count).expect("a count"));
    let mut waits = 0;
    for (number, fault) in (1..=count).zip(Faults::new(random.random())) {
        let injected_at = Instant::now();
        eprintln!("{:>4} s, fault {number}: {fault:?}", started.elapsed().as_secs());
        cluster.inject(fault).await;
        sleep(pause.saturating_sub(injected_at.elapsed())).await;
        let (total_waits, long_waits) = cluster.predecessor_waits().await;
        assert_eq!(
            long_waits, 0,
            "a command waited for over a second for a number that a dead process had reserved"
        );
        waits = waits.max(total_waits);
    }
    sleep(min_duration.saturating_sub(started.elapsed())).await;
    stop.send_replace(true);
    // A writer panics if it finds an error.
    writers.join_all().await;

    cluster.wait_until_ready().await;
    let mut ledger = ledger.lock().await;
    let audited = audit::check(&cluster.client(), &mut ledger, true).await;
    eprintln!("{audited}; the longest command took {:?}", ledger.longest);
    eprintln!("command APIs waited {waits} times for the append of a preceding number");
    assert!(
        ledger.acknowledged() > usize::try_from(count).expect("a count"),
        "too few messages were acknowledged"
    );
    cluster.compare_with_rebuild().await;
}
