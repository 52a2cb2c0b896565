//! The contract suite of the event store port. An adapter runs it with `event_store_contract!(Fixture)`. `Fixture::new`
//! prepares storage for a log, or returns `None` to skip a case. Each call of `Fixture::open` opens another handle on
//! that log, as another process does.
//!
//! The storage may be a shared server with events of earlier runs, so each case uses unique stream names
//! ([`ScopedLog`]).

pub mod scoped_log;

use std::sync::Arc;
use std::time::Duration;

use crate::event_store::{
    AppendError, EventLookup, EventTypeFilter, LogId, MAX_APPEND_BYTES, NewIncarnation, ReadStart,
    RecordedEvent,
};
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Revision, Timestamp};
use tokio::sync::Mutex;
use uuid::Uuid;

use scoped_log::{Log, ScopedLog, event, within_deadline};

/// Runs the contract suite on one adapter.
#[macro_export]
macro_rules! event_store_contract {
    ($fixture:ty: $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(fixture) = <$fixture>::new() else { return };
                $crate::contract_tests::event_store::$case(async || fixture.open().await).await;
            }
        )+
    };
    ($fixture:ty) => {
        $crate::event_store_contract! { $fixture:
            an_append_is_read_back_as_it_was
            revisions_count_from_zero_and_positions_rise
            a_wrong_expected_revision_conflicts_and_stores_nothing
            a_conflict_fails_its_own_stream_only
            a_repeated_append_returns_the_first_receipt
            an_append_repeated_after_others_returns_the_first_receipt
            other_events_at_a_taken_revision_conflict
            an_append_of_the_largest_size_is_accepted
            a_stream_reads_both_ways_from_any_revision
            a_read_filters_by_type
            a_stream_that_does_not_exist_reads_as_empty
            an_event_is_found_by_its_id
            the_whole_log_reads_in_order_from_any_position
            the_whole_log_reads_backwards_from_its_end_and_any_position
            a_subscription_returns_stored_events_and_then_new_ones
            a_subscription_receives_the_events_of_another_handle
            a_subscription_receives_the_events_of_alternating_handles
            cancelling_a_subscriptions_wait_loses_nothing
            racing_writers_fill_a_stream_without_gaps_or_duplicates
            a_reader_never_finds_a_new_event_before_one_it_has_read
            a_log_keeps_its_id_and_its_events
            a_new_incarnation_keeps_the_events_and_the_lineage
            an_incarnation_begins_once
        }
    };
}

const START: ReadStart = ReadStart::Forwards(Revision::FIRST);

/// Held while a case depends on the log's incarnation: cases that run at the same time may share a log.
static INCARNATION: Mutex<()> = Mutex::const_new(());

pub async fn an_append_is_read_back_as_it_was(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let sent = event("A");
    let appended = log.append_to("s", ExpectedRevision::NoStream, vec![sent.clone()]).await.unwrap();
    let events = log.read_stream(log.stream_read("s", START, EventTypeFilter::All, 10)).await.unwrap();
    let expected = RecordedEvent {
        position: appended.position,
        stream: log.name("s").into(),
        revision: Revision::FIRST,
        id: sent.id,
        event_type: "A".to_owned(),
        schema_version: sent.schema_version,
        recorded_at: sent.recorded_at,
        data: sent.data.into_bytes(),
        metadata: sent.metadata.as_bytes().to_vec(),
    };
    assert_eq!(events, std::slice::from_ref(&expected));
    assert_eq!(log.all().await, [expected]);
}

pub async fn revisions_count_from_zero_and_positions_rise(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let first = log.append_to("s", ExpectedRevision::NoStream, vec![event("A"), event("B")]).await.unwrap();
    assert!(first.position > log.start);
    assert_eq!(first.revision, Revision::new(1));
    let after = ExpectedRevision::Exact(first.revision);
    let second = log.append_to("s", after, vec![event("C")]).await.unwrap();
    assert_eq!(second.revision, Revision::new(2));
    assert!(second.position > first.position);
    assert!(log.head().await.unwrap() >= second.position);
    assert_eq!(log.read_revisions("s", START, EventTypeFilter::All, 10).await, [0, 1, 2]);
}

pub async fn a_wrong_expected_revision_conflicts_and_stores_nothing(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    log.fill("s", &["A", "A"]).await;
    for expected in [
        ExpectedRevision::NoStream,
        ExpectedRevision::Exact(Revision::FIRST),
        ExpectedRevision::Exact(Revision::new(2)),
    ] {
        let refused = log.append_to("s", expected, vec![event("B")]).await;
        assert!(matches!(refused, Err(AppendError::Conflict)), "{expected:?}: {refused:?}");
    }
    let to_missing_stream =
        log.stream_append("t", ExpectedRevision::Exact(Revision::FIRST), vec![event("B")]);
    assert!(matches!(log.send(to_missing_stream).await, Err(AppendError::Conflict)));
    assert_eq!(log.all().await.len(), 2);
}

pub async fn a_conflict_fails_its_own_stream_only(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    log.fill("taken", &["A"]).await;
    let outcomes = log
        .append(vec![
            log.stream_append("before", ExpectedRevision::NoStream, vec![event("A")]),
            log.stream_append("taken", ExpectedRevision::NoStream, vec![event("B"), event("B")]),
            log.stream_append("after", ExpectedRevision::NoStream, vec![event("A")]),
        ])
        .await;
    assert!(matches!(outcomes[..], [Ok(_), Err(AppendError::Conflict), Ok(_)]), "{outcomes:?}");
    assert_eq!(log.read_revisions("taken", START, EventTypeFilter::All, 10).await, [0]);
    assert_eq!(log.read_revisions("before", START, EventTypeFilter::All, 10).await, [0]);
    assert_eq!(log.read_revisions("after", START, EventTypeFilter::All, 10).await, [0]);
}

pub async fn a_repeated_append_returns_the_first_receipt(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let sent = log.stream_append("s", ExpectedRevision::NoStream, vec![event("A"), event("B")]);
    let first = log.send(sent.clone()).await.unwrap();
    let repeated = log.send(sent).await.unwrap();
    assert_eq!(repeated, first);
    assert_eq!(log.all().await.len(), 2);
}

pub async fn an_append_repeated_after_others_returns_the_first_receipt(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let sent = log.stream_append("s", ExpectedRevision::NoStream, vec![event("A")]);
    let first = log.send(sent.clone()).await.unwrap();
    let next = log.stream_append("s", ExpectedRevision::Exact(first.revision), vec![event("B")]);
    log.send(next).await.unwrap();
    assert_eq!(log.send(sent).await.unwrap(), first);
    assert_eq!(log.all().await.len(), 2);
}

pub async fn other_events_at_a_taken_revision_conflict(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let sent = log.stream_append("s", ExpectedRevision::NoStream, vec![event("A")]);
    log.send(sent.clone()).await.unwrap();
    // The first event is stored already, and the second is new.
    let longer = log.stream_append("s", ExpectedRevision::NoStream, vec![sent.events[0].clone(), event("B")]);
    assert!(matches!(log.send(longer).await, Err(AppendError::Conflict)));
    assert_eq!(log.all().await.len(), 1);
}

pub async fn an_append_of_the_largest_size_is_accepted(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    // The longest message, of control characters: JSON escapes each of these bytes as six bytes.
    let mut largest = event("A");
    largest.data = format!("\"{}\"", "\\u0001".repeat(65_536));
    let mut filler = event("A");
    let used_bytes = largest.data.len() + largest.metadata.len() + filler.metadata.len() + "\"\"".len();
    filler.data = format!("\"{}\"", "x".repeat(MAX_APPEND_BYTES - used_bytes));
    let sent = vec![largest, filler];
    log.append_to("s", ExpectedRevision::NoStream, sent.clone()).await.unwrap();
    let stored = log.all().await;
    let payloads: Vec<&[u8]> = stored.iter().map(|event| &*event.data).collect();
    assert_eq!(payloads, [sent[0].data.as_bytes(), sent[1].data.as_bytes()]);
}

pub async fn a_stream_reads_both_ways_from_any_revision(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    log.fill("s", &["A"; 5]).await;
    log.fill("other", &["A"; 5]).await;
    let forwards_from = |revision| ReadStart::Forwards(Revision::new(revision));
    let backwards_from = |revision| ReadStart::Backwards(Revision::new(revision));
    assert_eq!(log.read_revisions("s", START, EventTypeFilter::All, 3).await, [0, 1, 2]);
    assert_eq!(log.read_revisions("s", forwards_from(3), EventTypeFilter::All, 10).await, [3, 4]);
    assert_eq!(log.read_revisions("s", forwards_from(5), EventTypeFilter::All, 10).await, [0; 0]);
    assert_eq!(log.read_revisions("s", ReadStart::End, EventTypeFilter::All, 2).await, [4, 3]);
    assert_eq!(log.read_revisions("s", backwards_from(1), EventTypeFilter::All, 10).await, [1, 0]);
    assert_eq!(log.read_revisions("s", backwards_from(99), EventTypeFilter::All, 1).await, [4]);
}

pub async fn a_read_filters_by_type(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let (created, edited) = ("MessageCreated", "MessageEdited");
    log.fill("s", &[created, edited, created, edited, edited]).await;
    assert_eq!(log.read_revisions("s", START, EventTypeFilter::Only(created), 10).await, [0, 2]);
    assert_eq!(log.read_revisions("s", ReadStart::End, EventTypeFilter::Only(created), 1).await, [2]);
    assert_eq!(log.read_revisions("s", START, EventTypeFilter::Except(created), 2).await, [1, 3]);
    assert_eq!(log.read_revisions("s", ReadStart::End, EventTypeFilter::Except(edited), 10).await, [2, 0]);
}

pub async fn a_stream_that_does_not_exist_reads_as_empty(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    assert_eq!(log.read_revisions("s", START, EventTypeFilter::All, 10).await, [0; 0]);
    assert_eq!(log.read_revisions("s", ReadStart::End, EventTypeFilter::All, 10).await, [0; 0]);
}

pub async fn an_event_is_found_by_its_id(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let types = ["A"; 300];
    log.fill("s", &types).await;
    let stored = log.read_stream(log.stream_read("s", START, EventTypeFilter::All, 300)).await.unwrap();
    let since = stored[0].recorded_at;
    let search = |id, stream: &str| EventLookup { id, stream: log.name(stream).into(), since };
    for event in [&stored[0], &stored[150], &stored[299]] {
        let found = log.find_event(search(event.id, "s")).await.unwrap();
        assert_eq!(found.as_ref(), Some(event));
    }
    let unknown = EventId::new(Uuid::new_v4());
    assert_eq!(log.find_event(search(unknown, "s")).await.unwrap(), None);
    assert_eq!(log.find_event(search(unknown, "no such stream")).await.unwrap(), None);
}

pub async fn the_whole_log_reads_in_order_from_any_position(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    assert_eq!(log.all().await, []);
    for stream in ["a", "b", "c"] {
        log.fill(stream, &["A", "B"]).await;
    }
    let events = log.all().await;
    assert!(events.is_sorted_by(|a, b| a.position < b.position));
    let streams: Vec<&str> = events.iter().map(|event| &*event.stream).collect();
    assert_eq!(streams, ["a", "a", "b", "b", "c", "c"].map(|stream| log.name(stream)));
    let (second, head) = (events[1].position, log.head().await.unwrap());
    let later = log.read_all(second, 2).await.unwrap();
    assert_eq!(later.len(), 2);
    assert!(later.iter().all(|event| event.position > second));
    assert_eq!(log.all_after(second).await, events[2..]);
    assert!(log.read_all(head, 2).await.unwrap().iter().all(|event| event.position > head));
}

pub async fn the_whole_log_reads_backwards_from_its_end_and_any_position(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    for stream in ["a", "b", "c"] {
        log.fill(stream, &["A", "B"]).await;
    }
    let events = log.all().await;
    for before in [None, Some(events[5].position), Some(events[3].position), Some(events[0].position)] {
        let (mut backwards, mut read_before) = (Vec::new(), before);
        // The log may be shared and long, so this case reads backwards only to the start of its scope.
        loop {
            let batch = log.read_all_backwards(read_before, 4).await.unwrap();
            assert!(batch.len() <= 4);
            let Some(earliest) = batch.last() else { break };
            read_before = Some(earliest.position);
            let is_at_start = earliest.position <= log.start;
            backwards.extend(batch.into_iter().filter(|event| log.owns(event)));
            if is_at_start {
                break;
            }
        }
        backwards.reverse();
        let expected = events.iter().take_while(|event| before.is_none_or(|end| event.position < end));
        assert!(expected.eq(&backwards), "the events before {before:?} differ");
    }
    assert_eq!(log.read_all_backwards(Some(Position::START), 4).await.unwrap(), []);
}

pub async fn a_subscription_returns_stored_events_and_then_new_ones(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    log.fill("a", &["A"; 3]).await;
    let start = log.all().await[0].position;
    let mut subscription = log.subscribe(start).await.unwrap();
    assert_eq!(log.receive(&mut subscription, 2).await, log.all().await[1..]);
    let (received, ()) = tokio::join!(log.receive(&mut subscription, 1), log.fill("b", &["B"]));
    assert_eq!(received, log.all().await[3..]);
}

pub async fn a_subscription_receives_the_events_of_another_handle(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let other = log.with_handle(open().await);
    let mut subscription = log.subscribe(log.start).await.unwrap();
    let (received, ()) = tokio::join!(log.receive(&mut subscription, 1), other.fill("b", &["B"]));
    assert_eq!(received, log.all().await);
}

pub async fn a_subscription_receives_the_events_of_alternating_handles(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let other = log.with_handle(open().await);
    let mut subscription = log.subscribe(log.start).await.unwrap();
    let mut second_subscription = log.subscribe(log.start).await.unwrap();
    let mut received = Vec::new();
    for (turn, stream) in ["a", "b", "c"].iter().enumerate() {
        log.fill(stream, &["A"; 2]).await;
        if turn == 1 {
            received.extend(log.receive(&mut subscription, 1).await);
        }
        other.fill(&format!("{stream}-other"), &["B"; 2]).await;
        let missing = (turn + 1) * 4 - received.len();
        received.extend(log.receive(&mut subscription, missing).await);
    }
    assert_eq!(received, log.all().await);
    assert_eq!(log.receive(&mut second_subscription, 12).await, received);
}

pub async fn cancelling_a_subscriptions_wait_loses_nothing(open: impl AsyncFn() -> Log) {
    let log = ScopedLog::new(open().await).await;
    let mut subscription = log.subscribe(log.start).await.unwrap();
    let receive_with_cancellations = async {
        let mut received = Vec::new();
        while received.len() < 30 {
            let attempt = tokio::time::timeout(Duration::from_micros(300), subscription.next(2)).await;
            let Ok(batch) = attempt else { continue };
            received.extend(batch.unwrap().events.into_iter().filter(|event| log.owns(event)));
        }
        received
    };
    let (received, ()) = tokio::join!(within_deadline(receive_with_cancellations), log.fill("a", &["A"; 30]));
    assert_eq!(received, log.all().await);
}

pub async fn racing_writers_fill_a_stream_without_gaps_or_duplicates(open: impl AsyncFn() -> Log) {
    const WRITERS: usize = 4;
    const EVENTS_EACH: usize = 20;
    let log = ScopedLog::new(open().await).await;
    let handles = [log.with_handle(open().await), log];
    let write = async |log: &ScopedLog| {
        let mut stored = 0;
        while stored < EVENTS_EACH {
            let newest = log.read_revisions("s", ReadStart::End, EventTypeFilter::All, 1).await;
            let last_revision = newest.first().copied().map(Revision::new);
            let expected = ExpectedRevision::from_last_revision(last_revision);
            match log.append_to("s", expected, vec![event("A")]).await {
                Ok(_) => stored += 1,
                Err(AppendError::Conflict) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let writers = (0..WRITERS).map(|writer| write(&handles[writer % 2]));
    futures::future::join_all(writers).await;
    let revisions = handles[0].read_revisions("s", START, EventTypeFilter::All, 1_000).await;
    assert_eq!(revisions, (0..(WRITERS * EVENTS_EACH) as u64).collect::<Vec<_>>());
}

pub async fn a_reader_never_finds_a_new_event_before_one_it_has_read(open: impl AsyncFn() -> Log) {
    const STREAMS: usize = 4;
    const EVENTS_EACH: usize = 50;
    let log = ScopedLog::new(open().await).await;
    let handles = [log.with_handle(open().await), log].map(Arc::new);
    let writers: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let log = Arc::clone(&handles[stream % 2]);
            tokio::spawn(async move { log.fill(&format!("s{stream}"), &["A"; EVENTS_EACH]).await })
        })
        .collect();
    let mut subscription = handles[0].subscribe(handles[0].start).await.unwrap();
    let received = handles[0].receive(&mut subscription, STREAMS * EVENTS_EACH).await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(received, handles[1].all().await);
}

pub async fn a_log_keeps_its_id_and_its_events(open: impl AsyncFn() -> Log) {
    let _incarnation = INCARNATION.lock().await;
    let log = ScopedLog::new(open().await).await;
    log.fill("s", &["A"; 2]).await;
    let (id, events) = (log.log_id().await.unwrap(), log.all().await);
    let reopened = log.with_handle(open().await);
    drop(log);
    assert_eq!(reopened.log_id().await.unwrap(), id);
    assert_eq!(reopened.all().await, events);
}

pub async fn a_new_incarnation_keeps_the_events_and_the_lineage(open: impl AsyncFn() -> Log) {
    let _incarnation = INCARNATION.lock().await;
    let log = ScopedLog::new(open().await).await;
    log.fill("s", &["A"; 2]).await;
    let (before, events, head) = (log.lineage().await.unwrap(), log.all().await, log.head().await.unwrap());
    assert_eq!(before.current(), log.log_id().await.unwrap());

    let begun = log.begin_incarnation(new_incarnation()).await.unwrap();
    assert!(begun.began_after >= head);
    let reopened = log.with_handle(open().await);
    for handle in [&log, &reopened] {
        let lineage = handle.lineage().await.unwrap();
        assert_eq!(lineage.original(), before.original());
        assert_eq!(lineage.later().strip_prefix(before.later()), Some(std::slice::from_ref(&begun)));
        assert_eq!(handle.log_id().await.unwrap(), begun.log);
        assert_eq!(handle.all().await, events);
    }
    for (handle, last_revision) in [(&log, 1), (&reopened, 2)] {
        let expected = ExpectedRevision::Exact(Revision::new(last_revision));
        handle.append_to("s", expected, vec![event("B")]).await.unwrap();
    }
    assert!(log.all().await[2].position > begun.began_after);
}

pub async fn an_incarnation_begins_once(open: impl AsyncFn() -> Log) {
    let _incarnation = INCARNATION.lock().await;
    let log = ScopedLog::new(open().await).await;
    let request = new_incarnation();
    let begun = log.begin_incarnation(request.clone()).await.unwrap();
    log.fill("s", &["A"]).await;
    let later = log.begin_incarnation(new_incarnation()).await.unwrap();
    assert_eq!(log.begin_incarnation(request).await.unwrap(), begun);
    assert_eq!(log.log_id().await.unwrap(), later.log);
    assert!(later.began_after > begun.began_after);
}

fn new_incarnation() -> NewIncarnation {
    NewIncarnation {
        log: LogId(Uuid::new_v4()),
        began_at: Timestamp::from_millis(1_790_000_000_007),
        reason: "events were lost".to_owned(),
        replaces: vec![LogId(Uuid::new_v4())],
    }
}
