//! Tests a rebuild of both projections, its promotion and a rollback while clients write and read.

use std::sync::atomic::Ordering;

use crate::consistency_checker::ConsistencyChecker;
use crate::harness::deadline::eventually;
use crate::test_system::{TestSystem, Topology};

/// The number of rounds of each client between two steps, unless `SWITCH_ROUNDS` is set; 30 in `just soak`.
const DEFAULT_ROUNDS: u64 = 10;

async fn wait_for_client_progress(checker: &ConsistencyChecker) {
    let counts = checker.counts();
    let current =
        || [&counts.written, &counts.read, &counts.searched].map(|count| count.load(Ordering::SeqCst));
    let before = current();
    let rounds: u64 =
        std::env::var("SWITCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(DEFAULT_ROUNDS);
    eventually("progress of the clients", async || {
        let now = current();
        now.iter().zip(before).all(|(now, before)| *now >= before + rounds).then_some(())
    })
    .await;
}

/// Waits until every process that answers queries has switched over `times` times.
async fn wait_until_switched(system: &TestSystem, times: usize) {
    for process in system.answering() {
        eventually(&format!("switched {times} times"), async || {
            let count = process.stderr().matches("queries are answered from these generations now").count();
            (count >= times).then_some(())
        })
        .await;
    }
}

async fn check_readers_across_switch_overs(topology: Topology) {
    let system = TestSystem::start(topology).await;
    let checker = ConsistencyChecker::start(&system.clients()).await;
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
    checker.stop().await;

    for projection in ["read-model", "search-index"] {
        system.run(&["projections", "verify", projection, "--full"]).await.expect(0);
        system.run(&["projections", "verify", projection, "--sample", "3"]).await.expect(0);
    }
    let output = system.projecting().stderr();
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
