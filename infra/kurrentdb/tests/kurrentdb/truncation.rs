//! Tests of streams that are deleted or truncated in KurrentDB.

use std::time::Duration;

use chat_domain::{ExpectedRevision, Revision};
use chat_ports::contract_tests::event_store::scoped_log::{ScopedLog, event, within_deadline};
use chat_ports::event_store::{
    AppendError, EventStoreError, EventTypeFilter, ReadStart, TruncatedStream, TruncationCause,
};
use chat_testing::kurrentdb::FakeKurrentDb;

use super::{SHORT_RETRIES, open_at, server, server_with_short_retries};

/// Waits until the log reports this number of truncated streams.
async fn wait_for_truncated(log: &ScopedLog, count: usize) -> Vec<TruncatedStream> {
    within_deadline(async {
        loop {
            let truncated = log.truncated_streams();
            if truncated.len() == count {
                return truncated;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

async fn read_end(log: &ScopedLog, stream: &str) -> Result<Vec<u64>, EventStoreError> {
    let read = log.read_stream(log.stream_read(stream, ReadStart::End, EventTypeFilter::All, 1)).await?;
    Ok(read.into_iter().map(|event| event.revision.get()).collect())
}

#[tokio::test]
async fn a_stream_that_is_truncated_takes_no_events_until_it_is_restored() {
    let soft_delete = format!(r#"{{"$tb":{}}}"#, i64::MAX);
    for (metadata, cause) in [
        (soft_delete.as_str(), TruncationCause::SoftDeleted),
        (r#"{"$tb":1}"#, TruncationCause::Limited("$tb")),
        (r#"{"$maxCount":2}"#, TruncationCause::Limited("$maxCount")),
        // KurrentDB ignores a negative `$tb`, and applies the rest.
        (r#"{"$tb":-1,"$maxCount":2}"#, TruncationCause::Limited("$maxCount")),
        (r#"{"$maxAge":3600}"#, TruncationCause::Limited("$maxAge")),
    ] {
        let (server, log) = server().await;
        log.fill("s", &["A"; 3]).await;
        log.fill("other", &["A"]).await;
        server.set_stream_metadata(&log.name("s"), metadata);
        // The log reports the truncation without a read of the stream, because a writer that has cached the stream's
        // state reads nothing.
        let truncated = wait_for_truncated(&log, 1).await;
        let expected = TruncatedStream { stream: log.name("s").into(), cause };
        assert_eq!(truncated, std::slice::from_ref(&expected), "{metadata}");
        let next = ExpectedRevision::Exact(Revision::new(2));
        let refused = log.append_to("s", next, vec![event("B")]).await;
        assert!(
            matches!(&refused, Err(AppendError::StreamTruncated(one)) if *one == expected),
            "{refused:?}"
        );
        // Another handle detects the truncation when it reads the stream's end, before it appends.
        let another = log.with_handle(open_at(&server.url()).await);
        let refused = read_end(&another, "s").await;
        assert!(
            matches!(&refused, Err(EventStoreError::StreamTruncated(one)) if *one == expected),
            "{refused:?}"
        );
        log.append_to("other", ExpectedRevision::Exact(Revision::FIRST), vec![event("B")]).await.unwrap();

        server.set_stream_metadata(&log.name("s"), "{}");
        wait_for_truncated(&log, 0).await;
        log.append_to("s", next, vec![event("B")]).await.unwrap();
        assert_eq!(read_end(&another, "s").await.unwrap(), [3], "{metadata}");
    }
}

#[tokio::test]
async fn a_truncation_whose_metadata_was_unreadable_is_found_later() {
    let (server, log) = server_with_short_retries().await;
    log.fill("s", &["A"; 2]).await;
    server.set_streams_unreadable(true);
    server.set_stream_metadata(&log.name("s"), r#"{"$maxCount":1}"#);
    // Longer than the retries of one read.
    tokio::time::sleep(2 * SHORT_RETRIES.total).await;
    server.set_streams_unreadable(false);
    wait_for_truncated(&log, 1).await;
}

/// A server before KurrentDB's pull request 4892 sends a checkpoint of (−1, −1) if the filter matches no event of a
/// small log.
#[tokio::test]
async fn metadata_is_followed_after_a_checkpoint_outside_the_log() {
    let (server, log) = server().await;
    server.send_wrong_checkpoints(u64::MAX, u64::MAX);
    log.fill("s", &["A"; 2]).await;
    // Time to receive the checkpoint.
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.end_subscriptions();
    server.set_stream_metadata(&log.name("s"), r#"{"$maxCount":1}"#);
    wait_for_truncated(&log, 1).await;
}

#[tokio::test]
async fn a_stream_that_was_deleted_permanently_takes_no_events() {
    let (server, log) = server().await;
    log.fill("s", &["A"; 2]).await;
    server.tombstone_stream(&log.name("s"));
    let next = ExpectedRevision::Exact(Revision::new(1));
    let refused = log.append_to("s", next, vec![event("B")]).await;
    let deleted = TruncatedStream { stream: log.name("s").into(), cause: TruncationCause::Deleted };
    assert!(matches!(&refused, Err(AppendError::StreamTruncated(one)) if *one == deleted), "{refused:?}");
    for start in [ReadStart::End, ReadStart::Forwards(Revision::FIRST)] {
        let read = log.read_stream(log.stream_read("s", start, EventTypeFilter::All, 1)).await;
        assert!(matches!(&read, Err(EventStoreError::StreamTruncated(one)) if *one == deleted), "{read:?}");
    }
}

#[tokio::test]
async fn events_that_a_scavenge_removed_are_reported_missing_after_the_limit_is_gone() {
    let (server, log) = server().await;
    log.fill("s", &["A"; 3]).await;
    server.set_stream_metadata(&log.name("s"), r#"{"$maxCount":1}"#);
    wait_for_truncated(&log, 1).await;
    server.scavenge();
    assert_eq!(log.all().await.len(), 1);
    server.set_stream_metadata(&log.name("s"), "{}");
    within_deadline(async {
        while log.truncated_streams()[0].cause != TruncationCause::FirstEventsMissing {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let refused = read_end(&log, "s").await;
    assert!(matches!(refused, Err(EventStoreError::StreamTruncated(_))), "{refused:?}");
}

#[tokio::test]
async fn metadata_without_a_limit_does_not_truncate_a_stream() {
    let (server, log) = server().await;
    log.fill("s", &["A"; 2]).await;
    server.set_stream_metadata(&log.name("s"), r#"{"$acl":{"$r":"chat"},"owner":"chat"}"#);
    assert_eq!(read_end(&log, "s").await.unwrap(), [1]);
    assert_eq!(log.truncated_streams(), []);
}

#[tokio::test]
async fn system_events_are_skipped_and_the_truncations_in_them_are_recorded() {
    let server = FakeKurrentDb::start().unwrap();
    let log = ScopedLog::new(open_at(&server.url()).await).await;
    let reader = log.with_handle(open_at(&server.url()).await);
    let mut subscription = reader.subscribe(log.start).await.unwrap();
    log.fill("a", &["A"; 2]).await;
    log.fill("b", &["A"]).await;
    server.tombstone_stream(&log.name("a"));
    server.soft_delete_stream(&log.name("b"));
    log.fill("c", &["A"]).await;
    // The reader has never appended: it learns of the truncated streams from what it reads.
    let received = reader.receive(&mut subscription, 4).await;
    assert_eq!(received, log.all().await);
    assert!(received.iter().all(|event| event.event_type == "A"), "{received:?}");
    let mut truncated = wait_for_truncated(&reader, 2).await;
    truncated.sort_by_key(|one| one.stream.clone());
    assert_eq!(
        truncated.iter().map(|one| one.cause).collect::<Vec<_>>(),
        [TruncationCause::Deleted, TruncationCause::SoftDeleted]
    );
    let backwards = log.read_all_backwards(None, 10).await.unwrap();
    assert!(backwards.iter().rev().eq(&received), "{backwards:?}");
}

#[tokio::test]
async fn a_page_of_system_events_is_not_the_end_of_the_log() {
    let (server, log) = server().await;
    log.fill("s", &["A"]).await;
    for _ in 0..7 {
        server.set_stream_metadata(&log.name("s"), "{}");
    }
    log.append_to("s", ExpectedRevision::Exact(Revision::FIRST), vec![event("B")]).await.unwrap();
    let all = log.all().await;
    assert_eq!(all.len(), 2);
    assert_eq!(log.read_all(all[0].position, 1).await.unwrap(), all[1..]);
    assert_eq!(log.read_all_backwards(Some(all[1].position), 1).await.unwrap(), all[..1]);
    assert_eq!(log.read_all(all[1].position, 1).await.unwrap(), []);
}
