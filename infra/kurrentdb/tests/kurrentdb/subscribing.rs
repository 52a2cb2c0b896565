//! Tests of reading, searching and subscribing: on a log that is shared with other applications, and while the server
//! fails.

use std::time::{Duration, Instant};

use chat_domain::event::SchemaVersion;
use chat_domain::{ExpectedRevision, Position, Timestamp};
use chat_ports::event_store::{EventBatch, EventLookup, EventStoreError, Subscription};
use chat_testing::kurrentdb::FakeKurrentDb;

use super::server;
use chat_ports::contract_tests::event_store::scoped_log::{ScopedLog, event, within_deadline};

/// Waits until the subscription has reached the head without an event on the way, and returns the reached position.
async fn reach_the_head(log: &ScopedLog, subscription: &mut Box<dyn Subscription>) -> Position {
    let head = log.head().await.unwrap();
    loop {
        let EventBatch { events, up_to } = within_deadline(subscription.next(10)).await.unwrap();
        assert_eq!(events, []);
        assert!(up_to <= log.head().await.unwrap());
        if up_to >= head {
            return up_to;
        }
    }
}

#[tokio::test]
async fn streams_of_other_applications_are_filtered_out() {
    let (server, log) = server().await;
    server.append_foreign_events("orders-1", 3);
    log.fill("s", &["A"; 2]).await;
    server.append_foreign_events("$settings", 3);
    server.append_foreign_events("application-1", 3);
    assert_eq!(log.all().await.len(), 2);
    assert_eq!(log.read_all(Position::START, 100).await.unwrap(), log.all().await);
    assert!(log.head().await.unwrap() > log.all().await[1].position);
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    assert_eq!(log.receive(&mut subscription, 2).await, log.all().await);
    reach_the_head(&log, &mut subscription).await;
    assert!(!log.has_contiguous_positions());
}

/// When a subscription has caught up, the fake reports the position of the next event, as the checkpoints of servers
/// did before KurrentDB's pull request 4990. A subscription that resumed from that position would miss the event.
#[tokio::test]
async fn the_position_advances_while_other_applications_write() {
    let (server, log) = server().await;
    log.fill("s", &["A"]).await;
    let mut subscription = log.subscribe(log.start).await.unwrap();
    log.receive(&mut subscription, 1).await;
    // The server sends checkpoints in the course of 1,000 foreign events, but none in the course of 3: there the
    // subscription reads the head.
    for count in [1_000, 1_000, 3] {
        server.append_foreign_events("orders-1", count);
        let up_to = reach_the_head(&log, &mut subscription).await;
        let mut again = log.subscribe(up_to).await.unwrap();
        let (received, ()) = tokio::join!(log.receive(&mut again, 1), async {
            let last = log.all().await.pop().unwrap();
            log.append_to("s", ExpectedRevision::Exact(last.revision), vec![event("B")]).await.unwrap();
        });
        assert_eq!(received, log.all_after(up_to).await);
        log.receive(&mut subscription, 1).await;
    }
}

#[tokio::test]
async fn a_subscription_from_the_last_event_of_this_system_reaches_the_head() {
    let (server, log) = server().await;
    log.fill("s", &["A"; 3]).await;
    let last = log.all().await.pop().unwrap().position;
    server.append_foreign_events("orders-1", 2);
    let mut subscription = log.subscribe(last).await.unwrap();
    reach_the_head(&log, &mut subscription).await;
}

/// In KurrentDB's issue 3697, each checkpoint after the first had the position of the first one.
#[tokio::test]
async fn a_checkpoint_that_was_passed_does_not_move_the_subscription_back() {
    let (server, log) = server().await;
    log.fill("s", &["A"; 3]).await;
    let stored = log.all().await;
    server.send_wrong_checkpoints(stored[0].position.get(), stored[0].position.get());
    let mut subscription = log.subscribe(log.start).await.unwrap();
    assert_eq!(log.receive(&mut subscription, 3).await, stored);
    server.append_foreign_events("orders-1", 1_000);
    let up_to = reach_the_head(&log, &mut subscription).await;
    assert!(up_to > stored[2].position);
    log.append_to("s", ExpectedRevision::Exact(stored[2].revision), vec![event("B")]).await.unwrap();
    assert_eq!(log.receive(&mut subscription, 1).await, log.all_after(up_to).await);
}

/// A server before KurrentDB's pull request 4892 sends a checkpoint of (−1, −1) if the filter matches no event of a
/// small log.
#[tokio::test]
async fn a_checkpoint_outside_the_log_is_ignored() {
    let (server, log) = server().await;
    server.append_foreign_events("orders-1", 3);
    server.send_wrong_checkpoints(u64::MAX, u64::MAX);
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    reach_the_head(&log, &mut subscription).await;
    log.fill("s", &["A"; 2]).await;
    assert_eq!(log.receive(&mut subscription, 2).await, log.all().await);
}

#[tokio::test]
async fn a_broken_subscription_fails_and_a_new_one_continues_from_its_position() {
    type Break = fn(&FakeKurrentDb);
    let breaks: [Break; 3] = [FakeKurrentDb::end_subscriptions, FakeKurrentDb::cut_connections, |server| {
        server.go_down();
        server.come_up().unwrap();
    }];
    let (server, log) = server().await;
    let (mut up_to, mut received) = (log.start, Vec::new());
    for (round, break_subscription) in breaks.iter().enumerate() {
        let mut subscription = log.subscribe(up_to).await.unwrap();
        log.fill(&round.to_string(), &["A"; 5]).await;
        break_subscription(&server);
        let failed = loop {
            match within_deadline(subscription.next(3)).await {
                Ok(batch) => {
                    up_to = batch.up_to;
                    received.extend(batch.events);
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, EventStoreError::Unavailable(_)), "{failed:?}");
        assert!(within_deadline(subscription.next(3)).await.is_err());
    }
    let all = log.all().await;
    let mut subscription = log.subscribe(up_to).await.unwrap();
    received.extend(log.receive(&mut subscription, all.len() - received.len()).await);
    assert_eq!(received, all);
}

#[tokio::test]
async fn a_slow_subscriber_does_not_block_other_calls() {
    const EVENTS: u64 = 400;
    let (server, log) = server().await;
    for stream in 0..EVENTS / 4 {
        let mut large = Vec::new();
        for _ in 0..4 {
            let mut event = event("A");
            event.data = format!("\"{}\"", "x".repeat(100 << 10));
            large.push(event);
        }
        log.append_to(&stream.to_string(), ExpectedRevision::NoStream, large).await.unwrap();
    }
    let mut subscriptions = Vec::new();
    for _ in 0..4 {
        subscriptions.push(log.subscribe(log.start).await.unwrap());
    }
    // Waits until the server has delivered no further event for 500 ms.
    let (mut delivered, mut last_delivery) = (server.delivered_count(), Instant::now());
    while last_delivery.elapsed() < Duration::from_millis(500) {
        log.head().await.unwrap();
        if server.delivered_count() != delivered {
            (delivered, last_delivery) = (server.delivered_count(), Instant::now());
        }
    }
    // Each subscription buffers about 15 MB: the channel's 128 events, the connection's window, and the buffers of
    // sockets and pipes.
    assert!(delivered < EVENTS * 4 / 2, "{delivered} events of {} were delivered", EVENTS * 4);
    assert_eq!(log.receive(&mut subscriptions[0], usize::try_from(EVENTS).unwrap()).await, log.all().await);
}

#[tokio::test]
async fn a_foreign_event_in_a_stream_of_this_system_has_schema_version_zero() {
    let (server, log) = server().await;
    server.append_foreign_events(&log.name("s"), 1);
    let event = log.all().await.pop().unwrap();
    assert_eq!(event.schema_version, SchemaVersion(0));
    assert_eq!(event.event_type, "Foreign");
    assert!(event.decode().is_err());
}

#[tokio::test]
async fn a_search_by_id_stops_at_the_earliest_possible_time() {
    let (_server, log) = server().await;
    log.fill("s", &["A"; 3]).await;
    let first = log.all().await.remove(0);
    let search = |since| EventLookup { id: first.id, stream: log.name("s").into(), since };
    let recorded = first.recorded_at.millis();
    // A `since` slightly after the event still finds the event, because clocks may differ.
    let found = log.find_event(search(Timestamp::from_millis(recorded + 10_000))).await.unwrap();
    assert_eq!(found, Some(first.clone()));
    assert_eq!(log.find_event(search(Timestamp::from_millis(recorded + 600_000))).await.unwrap(), None);
}
