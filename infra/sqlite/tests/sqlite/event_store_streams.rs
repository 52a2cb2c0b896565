//! Tests of long streams: no read misses an event, a repeated append is recognized, and so is a conflict between two
//! handles on the file.

use std::path::Path;
use std::sync::Arc;

use chat_domain::{ExpectedRevision, Revision};
use chat_ports::event_store::{AppendError, EventTypeFilter, ReadStart};
use chat_sqlite::SqliteEventStore;

use chat_ports::contract_tests::event_store::scoped_log::{ScopedLog, event};

/// The number of events in all streams together.
const EVENTS: u64 = 24_000;
const STREAMS: u64 = 5;
const EVENTS_PER_APPEND: u64 = 100;

async fn open(path: &Path) -> ScopedLog {
    ScopedLog::new(Arc::new(SqliteEventStore::open(path).unwrap())).await
}

/// Fills the streams. Each turn is one batch, with an append to every stream.
async fn append_to_streams(log: &ScopedLog) {
    for turn in 0..EVENTS / STREAMS / EVENTS_PER_APPEND {
        let expected = ExpectedRevision::from_last_revision(
            (turn * EVENTS_PER_APPEND).checked_sub(1).map(Revision::new),
        );
        let append = |stream: u64| {
            let event_type = if stream == 0 { "A" } else { "MessageCreated" };
            let events = (0..EVENTS_PER_APPEND).map(|_| event(event_type)).collect();
            log.stream_append(&stream.to_string(), expected, events)
        };
        for outcome in log.append((0..STREAMS).map(append).collect()).await {
            outcome.unwrap();
        }
    }
}

/// Reads every stream in both directions from many revisions, and asserts that no event is missing.
async fn assert_streams_are_complete(log: &ScopedLog) {
    let events_per_stream = EVENTS / STREAMS;
    for stream in (0..STREAMS).map(|stream| stream.to_string()) {
        for from in (0..events_per_stream).step_by(331) {
            let forwards = ReadStart::Forwards(Revision::new(from));
            let expected: Vec<u64> = (from..events_per_stream).take(700).collect();
            assert_eq!(
                log.read_revisions(&stream, forwards, EventTypeFilter::All, 700).await,
                expected,
                "stream {stream} forwards from {from}"
            );
            let backwards = ReadStart::Backwards(Revision::new(from));
            let expected: Vec<u64> = (0..=from).rev().take(700).collect();
            assert_eq!(
                log.read_revisions(&stream, backwards, EventTypeFilter::All, 700).await,
                expected,
                "stream {stream} backwards from {from}"
            );
        }
        let last = log.read_revisions(&stream, ReadStart::End, EventTypeFilter::All, 1).await;
        assert_eq!(last, [events_per_stream - 1], "the last event of stream {stream}");
    }
    let found = log.read_revisions("0", ReadStart::End, EventTypeFilter::Only("A"), 10_000).await;
    assert_eq!(found.len() as u64, events_per_stream);
    assert_eq!(log.read_revisions("1", ReadStart::End, EventTypeFilter::Only("A"), 10_000).await, [0; 0]);
    assert_eq!(
        log.read_revisions("1", ReadStart::End, EventTypeFilter::Except("MessageCreated"), 10_000).await,
        [0; 0]
    );
}

#[tokio::test]
async fn streams_are_complete_through_any_handle_and_include_the_appends_of_other_handles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = open(&path).await;
    append_to_streams(&log).await;
    assert_streams_are_complete(&log).await;

    let second_handle = log.with_handle(Arc::new(SqliteEventStore::open(&path).unwrap()));
    assert_streams_are_complete(&second_handle).await;
    let end = ExpectedRevision::Exact(Revision::new(EVENTS / STREAMS - 1));
    second_handle.append_to("1", end, vec![event("MessageCreated")]).await.unwrap();
    // The stream has another event from the second handle, so an append of the first handle with the same revision
    // conflicts.
    let refused = log.append_to("1", end, vec![event("MessageCreated")]).await;
    assert!(matches!(refused, Err(AppendError::Conflict)), "{refused:?}");
    assert_eq!(log.read_revisions("1", ReadStart::End, EventTypeFilter::All, 1).await, [EVENTS / STREAMS]);
}

#[tokio::test]
async fn an_append_of_another_handle_invalidates_the_cached_revision() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = open(&path).await;
    let other = log.with_handle(Arc::new(SqliteEventStore::open(&path).unwrap()));
    let first = ExpectedRevision::Exact(Revision::FIRST);
    log.append_to("0", ExpectedRevision::NoStream, vec![event("A")]).await.unwrap();
    other.append_to("0", first, vec![event("A")]).await.unwrap();
    assert_eq!(log.read_revisions("0", ReadStart::End, EventTypeFilter::All, 9).await, [1, 0]);
    let refused = log.append_to("0", first, vec![event("A")]).await;
    assert!(matches!(refused, Err(AppendError::Conflict)), "{refused:?}");
}

/// Reads a stream while commits run.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_reads_and_appends_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(open(&folder.path().join("events.db")).await);
    let reading = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            while log.read_revisions("1", ReadStart::End, EventTypeFilter::All, 1).await.last()
                != Some(&(EVENTS / STREAMS - 1))
            {}
        }
    });
    append_to_streams(&log).await;
    reading.await.unwrap();
    assert_streams_are_complete(&log).await;
}

#[tokio::test]
async fn a_repeated_append_is_recognized_after_many_others() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("events.db")).await;
    let first = log.stream_append("0", ExpectedRevision::NoStream, vec![event("A"), event("A")]);
    let stored = log.send(first.clone()).await.unwrap();
    assert_eq!(log.send(first.clone()).await.unwrap(), stored);
    for stream in 1..=EVENTS / EVENTS_PER_APPEND {
        let events = (0..EVENTS_PER_APPEND).map(|_| event("A")).collect();
        log.append_to(&stream.to_string(), ExpectedRevision::NoStream, events).await.unwrap();
    }
    assert_eq!(log.send(first).await.unwrap(), stored);
}
