//! Tests a rebuild of both projections, its promotion and a rollback while clients write, read and follow the live
//! feed.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::consistency_checker::{CHATS, ConsistencyChecker};
use crate::followers::{self, ExportedLog, Followers};
use crate::harness::api::app_path;
use crate::harness::deadline::eventually;
use crate::test_system::{TestSystem, Topology};

/// Before the test's next step, the clients write at least this many messages, request this many lists and send this many
/// searches. `SWITCH_ROUNDS` sets another number: 30 in `just soak`.
const DEFAULT_ROUNDS: u64 = 10;

/// The number of clients that follow the live feed.
const FOLLOWERS: u64 = 20;

/// The seed of the followers' choices.
const FOLLOWERS_SEED: u64 = 18;

async fn wait_for_client_progress(checker: &ConsistencyChecker) {
    let counts = checker.counts();
    let current =
        || [&counts.written, &counts.read, &counts.searched].map(|count| count.load(Ordering::SeqCst));
    let before = current();
    let rounds: u64 =
        std::env::var("SWITCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(DEFAULT_ROUNDS);
    eventually("the clients make progress", async || {
        let now = current();
        now.iter().zip(before).all(|(count, earlier)| *count >= earlier + rounds).then_some(())
    })
    .await;
}

/// Waits until every process that answers queries has switched over `times` times.
async fn wait_until_switched(system: &TestSystem, times: usize) {
    for process in system.query_processes() {
        eventually(&format!("{} has switched over {times} times", process.url()), async || {
            let count = process.stderr().matches("queries are answered from these generations now").count();
            (count >= times).then_some(())
        })
        .await;
    }
}

/// Creates a chat, and returns the consistency token of its creation.
async fn consistency_token_of_new_chat(system: &TestSystem, app: &str) -> String {
    let created =
        system.client().post(format!("{}/chats", app_path(app)), &json!({})).send().await.expect(201);
    created.header("consistency-token").to_owned()
}

async fn check_readers_across_switch_overs(topology: Topology) {
    let system = TestSystem::start(topology).await;
    let checker = ConsistencyChecker::start(&system.clients()).await;
    let start = consistency_token_of_new_chat(&system, &checker.app).await;
    let urls = system.query_processes().iter().map(|process| process.url().to_owned()).collect();
    let chats: Vec<u64> = (1..=CHATS).collect();
    let followers = Followers::start(FOLLOWERS, urls, &checker.app, &chats, &start, FOLLOWERS_SEED);
    wait_for_client_progress(&checker).await;

    let rebuild = ["projections", "rebuild", "--all", "--execute", "--reason", "a test"];
    let output = system.run(&rebuild).await.expect(0).text();
    assert!(output.contains("readers see read_model 2, search_index 2"), "{output}");
    wait_until_switched(&system, 1).await;
    wait_for_client_progress(&checker).await;

    let roll_back = ["projections", "rollback", "--execute", "--reason", "a test"];
    let output = system.run(&roll_back).await.expect(0).text();
    assert!(output.contains("readers see read_model 1, search_index 1"), "{output}");
    wait_until_switched(&system, 2).await;
    wait_for_client_progress(&checker).await;

    // A single projection can be promoted, too.
    let promote = ["projections", "promote", "search-index", "--execute", "--reason", "a test"];
    system.run(&promote).await.expect(0);
    wait_until_switched(&system, 3).await;
    wait_for_client_progress(&checker).await;
    let app = checker.stop().await;
    let end = consistency_token_of_new_chat(&system, &app).await;
    let log = ExportedLog::read(&system.log_flags(), &end);
    followers.check(followers::position(&end), &log).await;

    for projection in ["read-model", "search-index"] {
        system.run(&["projections", "verify", projection, "--full"]).await.expect(0);
        system.run(&["projections", "verify", projection, "--sample", "3"]).await.expect(0);
    }
    let output = system.projector_process().stderr();
    assert!(!output.contains("panicked"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_stay_consistent_during_a_rebuild_and_a_rollback() {
    check_readers_across_switch_overs(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_stay_consistent_during_a_rebuild_and_a_rollback_at_scale() {
    check_readers_across_switch_overs(Topology::AtScale).await;
}
