//! The fault campaign: a deployment under load while its processes, engines, disks, clocks and networks fail in turn.
//! Afterwards no acknowledged command is lost, doubled, skipped, resurrected or out of order, each client that follows
//! the live feed has seen each event of its scope once and in order, and every projection equals a rebuild from the
//! log.
//!
//! It runs on four deployments: one process with embedded engines; separate processes on Redis and Postgres, with the
//! log in a SQLite file; the same with the log in a fake KurrentDB that drops connections and loses answers; and, as
//! root, hosts with a network between them, on a Postgres and a Redis that fail over. With `KURRENTDB_URL`, also on a
//! real KurrentDB. `just campaign` runs it in full length.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `CAMPAIGN_SEED` | repeats the choices of a run | random |
//! | `CAMPAIGN_FAULTS` | faults for each deployment | 24 |
//! | `CAMPAIGN_FOLLOWERS` | clients that follow the live feed | 50 |
//! | `CAMPAIGN_INTERVAL_MS` | minimum milliseconds from one fault to the next | 1500, and 400 in one process |

#![cfg(target_os = "linux")]
#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and reports its progress"
)]

#[path = "../crash/audit.rs"]
mod audit;
#[path = "../crash/digests.rs"]
mod digests;
#[path = "../crash/environment.rs"]
mod environment;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../crash/ledger.rs"]
mod ledger;
#[expect(dead_code, reason = "shared with the crash test, which uses the rest of it")]
#[path = "../crash/load.rs"]
mod load;

mod cluster;
mod deployment;
mod followers;
mod hosts;
mod one_process;

use std::sync::Arc;
use std::time::Duration;

use chat_testing::hosts::HostNetwork;
use chat_testing::kurrentdb::{FakeKurrentDb, FaultPlan, RealKurrentDb};
use cluster::{Cluster, Log};
use deployment::{Deployment, FaultSequence};
use environment::{seed, setting};
use followers::{ExportedLog, Followers};
use harness::api::app_path;
use harness::client::Client;
use harness::deadline::eventually;
use hosts::Hosts;
use ledger::Ledger;
use load::StopCondition;
use one_process::OneProcess;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};

/// The number of faults between two audits.
const FAULTS_BETWEEN_AUDITS: u64 = 100;

/// One deployment, with its processes and servers, is enough for a small machine, so the deployments take turns.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_in_one_process() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed("CAMPAIGN_SEED");
    run(OneProcess::start().await, seed, 400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_redis_and_postgres() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed("CAMPAIGN_SEED");
    run(Cluster::start(Log::SqliteFile).await, seed, 1_500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_a_log_with_dropped_connections_and_lost_answers() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed("CAMPAIGN_SEED");
    let log = FakeKurrentDb::start().expect("the fake KurrentDB");
    let cluster = Cluster::start(Log::KurrentDb(log.url())).await;
    // Set only now, so that the processes start without these faults. A rate of n is one fault in n appends.
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
    run(cluster, seed, 1_500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_a_real_kurrentdb() {
    let Some(server) = RealKurrentDb::from_environment() else {
        eprintln!("not tested: KURRENTDB_URL is not set");
        return;
    };
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed("CAMPAIGN_SEED");
    run(Cluster::start(Log::RealKurrentDb(server)).await, seed, 1_500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_hosts_that_are_cut_from_each_other() {
    if let Some(reason) = HostNetwork::unavailable() {
        eprintln!("not tested: {reason}. Processes that are cut off from engines are tested on loopback too");
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed("CAMPAIGN_SEED");
    run(Hosts::start().await, seed, 1_500).await;
}

/// Injects faults under load. Audits the deployment after every [`FAULTS_BETWEEN_AUDITS`] faults, and after the last
/// fault. `default_interval_ms` holds if `CAMPAIGN_INTERVAL_MS` is not set.
async fn run<D: Deployment>(mut deployment: D, seed: u64, default_interval_ms: u64) {
    let count = setting("CAMPAIGN_FAULTS", 24);
    let interval = Duration::from_millis(setting("CAMPAIGN_INTERVAL_MS", default_interval_ms));
    eprintln!("CAMPAIGN_SEED={seed} CAMPAIGN_FAULTS={count} CAMPAIGN_INTERVAL_MS={}", interval.as_millis());
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = FaultSequence::<D>::new(random.random());
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let started = Instant::now();
    let mut injected = 0;
    for round in 1.. {
        let (stop, stopped) = watch::channel(false);
        let until = StopCondition::Signaled(stopped);
        let (app, load_clients) =
            load::start(&deployment.writing_clients(), &ledger, round, random.random(), &until).await;
        let start = consistency_token(&deployment.client(), &app).await;
        let followers = Followers::start(
            setting("CAMPAIGN_FOLLOWERS", 50),
            deployment.query_urls(),
            &app,
            &[1, 2, 3],
            &start,
            random.random(),
        );
        let end_of_round = count.min(injected + FAULTS_BETWEEN_AUDITS);
        while injected < end_of_round {
            injected += 1;
            let (fault, since) = (faults.next(&deployment), Instant::now());
            eprintln!("{:>5} s, fault {injected} of {count}: {fault:?}", started.elapsed().as_secs());
            deployment.inject(fault).await;
            sleep(interval.saturating_sub(since.elapsed())).await;
            deployment.check_while_running().await;
        }
        stop.send_replace(true);
        // A client of the load panics if it finds a wrong response.
        load_clients.join_all().await;

        deployment.wait_until_ready().await;
        let mut ledger = ledger.lock().await;
        let is_last = injected == count;
        let audited = audit::check(&deployment.client(), &mut ledger, is_last).await;
        eprintln!("{audited}; the slowest request took {:?}", ledger.longest_request);
        assert!(
            ledger.known_messages() > usize::try_from(injected).expect("a count"),
            "hardly anything was written"
        );
        let end = consistency_token(&deployment.client(), &app).await;
        let log = ExportedLog::read(&deployment.log_flags(), &end);
        eprintln!("{}", followers.check(followers::position(&end), &log).await);
        drop(ledger);
        deployment.compare_with_rebuild(audited.head).await;
        if is_last {
            eprintln!("{injected} faults in {} s", started.elapsed().as_secs());
            return;
        }
    }
}

/// Waits until the app can be read, and returns the consistency token of the response: the position of the read model.
async fn consistency_token(client: &Client, app: &str) -> String {
    eventually("the app can be read", async || {
        let reply = client.get(app_path(app)).try_send().await.ok()?;
        (reply.status == 200).then(|| reply.header("consistency-token").to_owned())
    })
    .await
}
