//! Tests that a job goes on when the process that runs it is killed.

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::kills::fill;
use crate::test_system::{TestSystem, Topology};

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_taken_up_again_after_its_process_was_killed() {
    check_killed_job(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_at_scale_is_taken_up_by_another_process_after_its_process_was_killed() {
    check_killed_job(Topology::AtScale).await;
}

async fn read_job(client: &Client, location: &str) -> Option<Value> {
    let reply = client.get(location).try_send().await.ok()?;
    (reply.status == 200).then(|| reply.json()["data"].clone())
}

/// Repeats the test until the process is killed before it has promoted the new generations. On a busy machine, the kill
/// may come too late.
async fn check_killed_job(topology: Topology) {
    const ATTEMPTS: usize = 5;
    for _ in 0..ATTEMPTS {
        if was_killed_before_promotion(topology).await {
            return;
        }
    }
    panic!("no process was killed before the promotion");
}

/// Kills the process that runs a rebuild, and asserts that another attempt completes the rebuild. Returns `false`, and
/// asserts less, if the process was killed after the promotion.
async fn was_killed_before_promotion(topology: Topology) -> bool {
    let mut system = TestSystem::start_engines(topology);
    fill(&system).await;
    system.start_processes().await;
    let url = system.query_processes()[0].url().to_owned();
    let client = Client::routed([url.as_str()], [url.as_str()]);
    let body = json!({ "reason": "killed", "execute": true });
    let requested = client.post("/admin/v1/projections/rebuilds", &body).send().await.expect(202);
    let location = requested.header("location").to_owned();
    eventually("the rebuild has started", async || {
        let job = read_job(&client, &location).await?;
        let has_progress = job["progress"]["generations"].as_array().is_some_and(|list| !list.is_empty());
        (job["ended_at"].is_string() || has_progress).then_some(())
    })
    .await;

    eventually("a process has logged that it runs the job", async || {
        system.has_logged("job started").then_some(())
    })
    .await;
    let others = system.kill_process_that_logged("job started");
    if topology == Topology::Embedded {
        system.end_processes().await;
        system.start_processes().await;
    }
    let url = others.first().cloned().unwrap_or_else(|| system.query_processes()[0].url().to_owned());
    let client = Client::new(&url);
    let job = eventually("the job has ended", async || {
        let job = read_job(&client, &location).await?;
        job["ended_at"].is_string().then_some(job)
    })
    .await;
    assert_eq!(job["state"], "ok", "{job}");
    assert_eq!(job["report"]["promoted"]["taken_over"], true, "{job}");

    let trace = format!("/admin/v1/audit/traces/{}", job["id"].as_str().expect("an id"));
    let trace = client.get(trace).send().await.expect(200).json();
    let events = trace["data"]["requests"][0]["events"].as_array().expect("events").iter();
    let types: Vec<_> = events.map(|event| event["type"].as_str().expect("a type")).collect();
    let last_start = types.iter().rposition(|event_type| *event_type == "JobStarted");
    let promotion = types.iter().position(|event_type| *event_type == "ProjectionsPromoted");
    if job["attempts"] == 1 || (promotion.is_some() && promotion < last_start) {
        return false;
    }
    assert_eq!(job["attempts"], 2, "{job}");
    let expected =
        ["JobRequested", "JobStarted", "RebuildStarted", "JobStarted", "ProjectionsPromoted", "JobEnded"];
    assert_eq!(types, expected);
    true
}
