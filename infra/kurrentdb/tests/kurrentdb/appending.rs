//! Tests of appends: to a failing server or cluster, of a size above the limit, and to many streams at once.

use std::time::{Duration, Instant};

use chat_domain::{ExpectedRevision, Revision};
use chat_ports::event_store::{AppendError, EventStoreError, EventTypeFilter, MAX_APPEND_BYTES, ReadStart};
use chat_testing::kurrentdb::Fault;

use super::{SHORT_TIMEOUTS, open_at, open_with, server, server_with_short_retries};
use chat_ports::contract_tests::event_store::scoped_log::{ScopedLog, event, within_deadline};

/// Appends under each fault in turn, and checks that each append is repeated if the fault requires it, is stored once,
/// and returns its receipt.
async fn assert_stored_once_despite(faults: &[Fault]) {
    let (server, log) = server().await;
    let mut expected = ExpectedRevision::NoStream;
    for fault in faults {
        let before = server.append_count();
        server.fail_next(*fault);
        let appended = within_deadline(log.append_to("s", expected, vec![event("A"), event("B")])).await;
        let appended = appended.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        let last = log.all().await.pop().unwrap();
        assert_eq!((last.position, last.revision), (appended.position, appended.revision), "{fault:?}");
        // A reply without a position is the only one after which the append is not repeated.
        let attempts = if matches!(fault, Fault::NoPosition) { 1 } else { 2 };
        assert_eq!(server.append_count() - before, attempts, "{fault:?}");
        expected = ExpectedRevision::Exact(appended.revision);
    }
    assert_eq!(log.all().await.len(), faults.len() * 2);
}

#[tokio::test]
async fn an_append_whose_reply_is_lost_is_stored_once() {
    assert_stored_once_despite(&[Fault::CutAfter; 3]).await;
}

#[tokio::test]
async fn a_dropped_append_is_retried() {
    assert_stored_once_despite(&[Fault::CutBefore; 3]).await;
}

#[tokio::test]
async fn an_append_that_timed_out_at_the_server_is_stored_once() {
    assert_stored_once_despite(&[Fault::DeadlineAfter, Fault::TimeoutAfter]).await;
}

#[tokio::test]
async fn an_append_to_a_node_that_is_not_ready_or_not_the_leader_is_retried() {
    assert_stored_once_despite(&[Fault::NotReady, Fault::NotLeader, Fault::NotLeader, Fault::NotReady]).await;
}

#[tokio::test]
async fn a_position_missing_from_a_reply_is_looked_up() {
    assert_stored_once_despite(&[Fault::NoPosition; 2]).await;
}

#[tokio::test]
async fn an_append_that_conflicts_with_its_own_first_attempt_succeeds() {
    let (server, log) = server().await;
    server.fail_next(Fault::CutAfter);
    server.fail_next(Fault::NoDeduplication);
    let appended =
        log.append_to("s", ExpectedRevision::NoStream, vec![event("A"), event("B")]).await.unwrap();
    assert_eq!(appended.revision, Revision::new(1));
    assert_eq!(log.all().await[1].position, appended.position);
}

#[tokio::test]
async fn a_dropped_append_that_was_overtaken_conflicts() {
    let (server, log) = server().await;
    server.fail_next(Fault::Overtaken);
    let overtaken = log.append_to("s", ExpectedRevision::NoStream, vec![event("A")]).await;
    assert!(matches!(overtaken, Err(AppendError::Conflict)), "{overtaken:?}");
    assert_eq!(log.all().await.len(), 1);
}

#[tokio::test]
async fn an_append_to_a_stopped_server_stores_nothing_and_succeeds_after_a_restart() {
    let (server, log) = server_with_short_retries().await;
    server.go_down();
    let head = within_deadline(log.head()).await;
    assert!(matches!(head, Err(EventStoreError::Unavailable(_))), "{head:?}");
    // The client has no connection, so nothing can have been sent.
    let refused = log.append_to("s", ExpectedRevision::NoStream, vec![event("A")]);
    let refused = within_deadline(refused).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    server.come_up().unwrap();
    log.append_to("s", ExpectedRevision::NoStream, vec![event("A")]).await.unwrap();
    assert_eq!(log.all().await.len(), 1);
}

#[tokio::test]
async fn an_append_waits_for_a_server_that_returns_in_time() {
    let (server, log) = server().await;
    server.go_down();
    let append = log.append_to("s", ExpectedRevision::NoStream, vec![event("A")]);
    let come_back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.come_up().unwrap();
    };
    let (appended, ()) = tokio::join!(append, come_back);
    appended.unwrap();
}

/// Checks an append that never gets a reply, and its later repetition.
async fn check_append_without_reply(fault: Fault) {
    let (server, log) = server().await;
    // Opening is retried, because a busy server may answer later than the short time limit.
    let impatient = within_deadline(async {
        loop {
            if let Ok(opened) = open_with(SHORT_TIMEOUTS, &server.url()).await {
                return log.with_handle(opened);
            }
        }
    });
    let impatient = impatient.await;
    for _ in 0..10 {
        server.fail_next(fault);
    }
    let sent = log.stream_append("s", ExpectedRevision::NoStream, vec![event("A")]);
    let unknown = within_deadline(impatient.send(sent.clone())).await;
    assert!(matches!(unknown, Err(AppendError::OutcomeUnknown(_))), "{unknown:?}");
    let repeated = within_deadline(async {
        loop {
            if let Ok(appended) = impatient.send(sent.clone()).await {
                return appended;
            }
        }
    });
    let appended = repeated.await;
    let stored = log.all().await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].position, appended.position);
}

#[tokio::test]
async fn an_append_without_a_reply_has_an_unknown_outcome_until_it_is_repeated() {
    tokio::join!(
        check_append_without_reply(Fault::SilentBefore),
        check_append_without_reply(Fault::SilentAfter)
    );
}

#[tokio::test]
async fn follows_a_change_of_the_leader() {
    let (first, log) = server().await;
    let second = first.start_follower().unwrap();
    // The URL names a node that is not the leader.
    let through_follower = log.with_handle(open_at(&second.url()).await);
    through_follower.append_to("a", ExpectedRevision::NoStream, vec![event("A")]).await.unwrap();
    second.become_leader();
    log.append_to("b", ExpectedRevision::NoStream, vec![event("B")]).await.unwrap();
    through_follower.append_to("c", ExpectedRevision::NoStream, vec![event("C")]).await.unwrap();
    assert_eq!(log.all().await.len(), 3);
    assert_eq!(through_follower.read_revisions("a", ReadStart::End, EventTypeFilter::All, 10).await, [0]);
}

#[tokio::test]
async fn a_cluster_works_without_one_node() {
    let first = chat_testing::kurrentdb::FakeKurrentDb::start().unwrap();
    let second = first.start_follower().unwrap();
    let log = ScopedLog::new(open_at(&first.cluster_url()).await).await;
    log.append_to("a", ExpectedRevision::NoStream, vec![event("A")]).await.unwrap();
    first.go_down();
    second.become_leader();
    log.append_to("b", ExpectedRevision::NoStream, vec![event("B")]).await.unwrap();
    second.go_down();
    first.come_up().unwrap();
    first.become_leader();
    log.append_to("c", ExpectedRevision::NoStream, vec![event("C")]).await.unwrap();
    assert_eq!(log.all().await.len(), 3);
}

#[tokio::test]
async fn an_append_above_the_servers_size_limit_is_refused_without_a_retry() {
    let (server, log) = server().await;
    let mut large = event("A");
    large.data = format!("\"{}\"", "x".repeat(MAX_APPEND_BYTES * 2));
    let before = server.append_count();
    let refused = log.append_to("s", ExpectedRevision::NoStream, vec![large]).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert_eq!(server.append_count(), before + 1);
    assert_eq!(log.all().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_many_streams_run_concurrently() {
    const STREAMS: usize = 200;
    let (server, log) = server().await;
    for _ in 0..STREAMS {
        server.fail_next(Fault::Slow(Duration::from_millis(200)));
    }
    let appends = (0..STREAMS)
        .map(|stream| log.stream_append(&stream.to_string(), ExpectedRevision::NoStream, vec![event("A")]))
        .collect();
    let started = Instant::now();
    let outcomes = log.append(appends).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    // One after another they would take 40 seconds.
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    assert_eq!(log.all().await.len(), STREAMS);
}
