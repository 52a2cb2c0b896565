//! A rebuild of everything, to its promotion, and a rollback after it, while clients write and read.

use std::sync::atomic::Ordering;

use crate::consistency_checker::ConsistencyChecker;
use crate::harness::deadline::eventually;
use crate::test_system::{TestSystem, Topology};

/// Rounds of everything that a client does between one step and the next, unless `SWITCH_ROUNDS` says otherwise; 30 in
/// `just soak`.
const DEFAULT_ROUNDS: u64 = 10;

async fn wait_for_client_progress(checker: &ConsistencyChecker) {
    let counts = checker.counts();
    let all = || [&counts.written, &counts.read, &counts.searched].map(|count| count.load(Ordering::SeqCst));
    let before = all();
    let rounds: u64 =
        std::env::var("SWITCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(DEFAULT_ROUNDS);
    eventually("clients get on", async || {
        let now = all();
        now.iter().zip(before).all(|(now, before)| *now >= before + rounds).then_some(())
    })
    .await;
}

/// Waits until every process that answers queries has switched so many times.
async fn switched(stage: &TestSystem, times: usize) {
    for process in stage.answering() {
        eventually(&format!("switched {times} times"), async || {
            let count = process.stderr().matches("queries are answered from these generations now").count();
            (count >= times).then_some(())
        })
        .await;
    }
}

async fn check_readers_across_switch_overs(topology: Topology) {
    let stage = TestSystem::start(topology).await;
    let checker = ConsistencyChecker::start(&stage.clients()).await;
    wait_for_client_progress(&checker).await;

    let rebuild = ["projections", "rebuild", "--all", "--execute", "--reason", "a test"];
    let said = stage.run(&rebuild).await.expect(0).text();
    assert!(said.contains("readers see read_model 2, search_index 2"), "{said}");
    switched(&stage, 1).await;
    wait_for_client_progress(&checker).await;

    let roll_back = ["projections", "rollback", "--execute", "--reason", "a test"];
    let said = stage.run(&roll_back).await.expect(0).text();
    assert!(said.contains("readers see read_model 1, search_index 1"), "{said}");
    switched(&stage, 2).await;
    wait_for_client_progress(&checker).await;

    // One alone, too.
    let promote = ["projections", "promote", "search-index", "--execute", "--reason", "a test"];
    stage.run(&promote).await.expect(0);
    switched(&stage, 3).await;
    wait_for_client_progress(&checker).await;
    checker.stop().await;

    for projection in ["read-model", "search-index"] {
        stage.run(&["projections", "verify", projection, "--full"]).await.expect(0);
        stage.run(&["projections", "verify", projection, "--sample", "3"]).await.expect(0);
    }
    let said = stage.projecting().stderr();
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_process_notice_nothing_of_a_rebuild_and_a_rollback() {
    check_readers_across_switch_overs(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_at_scale_notice_nothing_of_a_rebuild_and_a_rollback() {
    check_readers_across_switch_overs(Topology::AtScale).await;
}
