//! The cases. An adapter joins with one line: `event_store_contract!(open)`, where `open(folder)` opens a handle on the
//! log that belongs to the folder; opening twice gives two handles on the same log, as two processes have.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Revision, Timestamp};
use chat_infra::event_store::{
    AppendError, Appended, EventSearch, EventStore, NewEvent, ReadFrom, RecordedEvent, Select, StreamAppend,
    StreamRead,
};
use uuid::Uuid;

pub type Log = Arc<dyn EventStore>;

macro_rules! event_store_contract {
    ($open:path: $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                $crate::contract::$case(|| $open(folder.path())).await;
            }
        )+
    };
    ($open:path) => {
        $crate::contract::event_store_contract! { $open:
            an_append_is_read_back_as_it_was
            revisions_count_from_zero_and_positions_rise
            a_wrong_expected_revision_conflicts_and_stores_nothing
            a_conflict_fails_its_own_stream_only
            an_append_sent_again_answers_as_the_first_time
            an_append_sent_again_after_others_answers_as_the_first_time
            other_events_at_a_taken_place_conflict
            an_id_stored_elsewhere_conflicts_and_its_neighbours_go_on
            a_stream_reads_both_ways_and_from_anywhere
            a_read_selects_by_type
            a_stream_that_does_not_exist_reads_as_empty
            an_event_is_found_by_its_id
            the_whole_log_reads_in_order_from_any_position
            a_subscription_gives_what_is_stored_and_then_what_comes
            a_subscription_hears_another_handle
            dropping_a_subscriptions_wait_loses_nothing
            racing_writers_fill_a_stream_without_gap_or_double
            a_reader_never_finds_an_event_before_one_it_has_seen
            a_log_keeps_its_id_and_its_events
        }
    };
}
pub(crate) use event_store_contract;

pub fn event(event_type: &'static str) -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type,
        schema_version: SchemaVersion(3),
        recorded_at: Timestamp::from_millis(1_790_000_000_007),
        data: r#"{"body":"Grüße 🦊 \u0001"}"#.to_owned(),
        metadata: r#"{"command":"Test"}"#.into(),
    }
}

pub fn append(stream: &str, expected: ExpectedRevision, events: Vec<NewEvent>) -> StreamAppend {
    StreamAppend { stream: stream.into(), expected, events }
}

pub async fn append_one(log: &Log, append: StreamAppend) -> Result<Appended, AppendError> {
    log.append(vec![append]).await.pop().unwrap()
}

/// Appends `types` to a stream that ends at `last`, one append each.
async fn fill(log: &Log, stream: &str, types: &[&'static str]) {
    let mut expected = ExpectedRevision::NoStream;
    for event_type in types {
        let appended = append_one(log, append(stream, expected, vec![event(event_type)])).await.unwrap();
        expected = ExpectedRevision::Exact(appended.revision);
    }
}

async fn read(log: &Log, stream: &str, from: ReadFrom, select: Select, limit: usize) -> Vec<u64> {
    let events = log.read_stream(StreamRead { stream: stream.into(), from, select, limit }).await.unwrap();
    events.iter().map(|event| event.revision.get()).collect()
}

async fn all(log: &Log) -> Vec<RecordedEvent> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = events.last().map_or(Position::START, |event| event.position);
        let more = log.read_all(after, 100).await.unwrap();
        if more.is_empty() {
            return events;
        }
        events.extend(more);
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it should have happened by now")
}

const START: ReadFrom = ReadFrom::Forwards(Revision::FIRST);

pub async fn an_append_is_read_back_as_it_was(open: impl Fn() -> Log) {
    let log = open();
    let sent = event("A");
    let appended =
        append_one(&log, append("s", ExpectedRevision::NoStream, vec![sent.clone()])).await.unwrap();
    let events = log
        .read_stream(StreamRead { stream: "s".into(), from: START, select: Select::All, limit: 10 })
        .await
        .unwrap();
    let expected = RecordedEvent {
        position: appended.position,
        stream: "s".into(),
        revision: Revision::FIRST,
        id: sent.id,
        event_type: "A".to_owned(),
        schema_version: sent.schema_version,
        recorded_at: sent.recorded_at,
        data: sent.data.into_bytes(),
        metadata: sent.metadata.as_bytes().to_vec(),
    };
    assert_eq!(events, std::slice::from_ref(&expected));
    assert_eq!(all(&log).await, [expected]);
}

pub async fn revisions_count_from_zero_and_positions_rise(open: impl Fn() -> Log) {
    let log = open();
    assert_eq!(log.head().await.unwrap(), Position::START);
    let first = append_one(&log, append("s", ExpectedRevision::NoStream, vec![event("A"), event("B")]))
        .await
        .unwrap();
    assert_eq!(first.revision, Revision::new(1));
    let after = ExpectedRevision::Exact(first.revision);
    let second = append_one(&log, append("s", after, vec![event("C")])).await.unwrap();
    assert_eq!(second.revision, Revision::new(2));
    assert!(second.position > first.position);
    assert_eq!(log.head().await.unwrap(), second.position);
    assert_eq!(read(&log, "s", START, Select::All, 10).await, [0, 1, 2]);
}

pub async fn a_wrong_expected_revision_conflicts_and_stores_nothing(open: impl Fn() -> Log) {
    let log = open();
    fill(&log, "s", &["A", "A"]).await;
    for expected in [
        ExpectedRevision::NoStream,
        ExpectedRevision::Exact(Revision::FIRST),
        ExpectedRevision::Exact(Revision::new(2)),
    ] {
        let refused = append_one(&log, append("s", expected, vec![event("B")])).await;
        assert!(matches!(refused, Err(AppendError::Conflict)), "{expected:?}: {refused:?}");
    }
    let too_early = append("t", ExpectedRevision::Exact(Revision::FIRST), vec![event("B")]);
    assert!(matches!(append_one(&log, too_early).await, Err(AppendError::Conflict)));
    assert_eq!(all(&log).await.len(), 2);
}

pub async fn a_conflict_fails_its_own_stream_only(open: impl Fn() -> Log) {
    let log = open();
    fill(&log, "taken", &["A"]).await;
    let outcomes = log
        .append(vec![
            append("before", ExpectedRevision::NoStream, vec![event("A")]),
            append("taken", ExpectedRevision::NoStream, vec![event("B"), event("B")]),
            append("after", ExpectedRevision::NoStream, vec![event("A")]),
        ])
        .await;
    assert!(matches!(outcomes[..], [Ok(_), Err(AppendError::Conflict), Ok(_)]), "{outcomes:?}");
    assert_eq!(read(&log, "taken", START, Select::All, 10).await, [0]);
    assert_eq!(read(&log, "before", START, Select::All, 10).await, [0]);
    assert_eq!(read(&log, "after", START, Select::All, 10).await, [0]);
}

pub async fn an_append_sent_again_answers_as_the_first_time(open: impl Fn() -> Log) {
    let log = open();
    let sent = append("s", ExpectedRevision::NoStream, vec![event("A"), event("B")]);
    let first = append_one(&log, sent.clone()).await.unwrap();
    let again = append_one(&log, sent).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(all(&log).await.len(), 2);
}

pub async fn an_append_sent_again_after_others_answers_as_the_first_time(open: impl Fn() -> Log) {
    let log = open();
    let sent = append("s", ExpectedRevision::NoStream, vec![event("A")]);
    let first = append_one(&log, sent.clone()).await.unwrap();
    let next = append("s", ExpectedRevision::Exact(first.revision), vec![event("B")]);
    append_one(&log, next).await.unwrap();
    assert_eq!(append_one(&log, sent).await.unwrap(), first);
    assert_eq!(all(&log).await.len(), 2);
}

pub async fn other_events_at_a_taken_place_conflict(open: impl Fn() -> Log) {
    let log = open();
    let sent = append("s", ExpectedRevision::NoStream, vec![event("A")]);
    append_one(&log, sent.clone()).await.unwrap();
    // The first event is the stored one, the second never was.
    let longer = append("s", ExpectedRevision::NoStream, vec![sent.events[0].clone(), event("B")]);
    assert!(matches!(append_one(&log, longer).await, Err(AppendError::Conflict)));
    assert_eq!(all(&log).await.len(), 1);
}

pub async fn an_id_stored_elsewhere_conflicts_and_its_neighbours_go_on(open: impl Fn() -> Log) {
    let log = open();
    let known = event("A");
    append_one(&log, append("s", ExpectedRevision::NoStream, vec![known.clone()])).await.unwrap();
    let outcomes = log
        .append(vec![
            append("t", ExpectedRevision::NoStream, vec![event("A")]),
            append("u", ExpectedRevision::NoStream, vec![event("A"), known]),
            append("v", ExpectedRevision::NoStream, vec![event("A")]),
        ])
        .await;
    assert!(matches!(outcomes[..], [Ok(_), Err(AppendError::Conflict), Ok(_)]), "{outcomes:?}");
    assert_eq!(all(&log).await.len(), 3);
    assert_eq!(read(&log, "u", START, Select::All, 10).await, [0; 0]);
}

pub async fn a_stream_reads_both_ways_and_from_anywhere(open: impl Fn() -> Log) {
    let log = open();
    fill(&log, "s", &["A"; 5]).await;
    fill(&log, "other", &["A"; 5]).await;
    let from = |revision| ReadFrom::Forwards(Revision::new(revision));
    let back = |revision| ReadFrom::Backwards(Revision::new(revision));
    assert_eq!(read(&log, "s", START, Select::All, 3).await, [0, 1, 2]);
    assert_eq!(read(&log, "s", from(3), Select::All, 10).await, [3, 4]);
    assert_eq!(read(&log, "s", from(5), Select::All, 10).await, [0; 0]);
    assert_eq!(read(&log, "s", ReadFrom::End, Select::All, 2).await, [4, 3]);
    assert_eq!(read(&log, "s", back(1), Select::All, 10).await, [1, 0]);
    assert_eq!(read(&log, "s", back(99), Select::All, 1).await, [4]);
}

pub async fn a_read_selects_by_type(open: impl Fn() -> Log) {
    let log = open();
    let (created, edited) = ("MessageCreated", "MessageEdited");
    fill(&log, "s", &[created, edited, created, edited, edited]).await;
    assert_eq!(read(&log, "s", START, Select::Only(created), 10).await, [0, 2]);
    assert_eq!(read(&log, "s", ReadFrom::End, Select::Only(created), 1).await, [2]);
    assert_eq!(read(&log, "s", START, Select::Except(created), 2).await, [1, 3]);
    assert_eq!(read(&log, "s", ReadFrom::End, Select::Except(edited), 10).await, [2, 0]);
}

pub async fn a_stream_that_does_not_exist_reads_as_empty(open: impl Fn() -> Log) {
    let log = open();
    assert_eq!(read(&log, "s", START, Select::All, 10).await, [0; 0]);
    assert_eq!(read(&log, "s", ReadFrom::End, Select::All, 10).await, [0; 0]);
}

pub async fn an_event_is_found_by_its_id(open: impl Fn() -> Log) {
    let log = open();
    let types = ["A"; 300];
    fill(&log, "s", &types).await;
    let from = ReadFrom::Forwards(Revision::FIRST);
    let stored = log.read_stream(StreamRead { stream: "s".into(), from, select: Select::All, limit: 300 });
    let stored = stored.await.unwrap();
    let search = |id, stream: &str| EventSearch { id, stream: stream.into(), since: stored[0].recorded_at };
    for event in [&stored[0], &stored[150], &stored[299]] {
        let found = log.find(search(event.id, "s")).await.unwrap();
        assert_eq!(found.as_ref(), Some(event));
    }
    let unknown = EventId::new(Uuid::new_v4());
    assert_eq!(log.find(search(unknown, "s")).await.unwrap(), None);
    assert_eq!(log.find(search(unknown, "no such stream")).await.unwrap(), None);
}

pub async fn the_whole_log_reads_in_order_from_any_position(open: impl Fn() -> Log) {
    let log = open();
    assert_eq!(log.read_all(Position::START, 10).await.unwrap(), []);
    for stream in ["a", "b", "c"] {
        fill(&log, stream, &["A", "B"]).await;
    }
    let events = all(&log).await;
    assert!(events.is_sorted_by(|a, b| a.position < b.position));
    let streams: Vec<&str> = events.iter().map(|event| &*event.stream).collect();
    assert_eq!(streams, ["a", "a", "b", "b", "c", "c"]);
    assert_eq!(log.read_all(events[1].position, 2).await.unwrap(), events[2..4]);
    assert_eq!(log.read_all(events[5].position, 2).await.unwrap(), []);
}

pub async fn a_subscription_gives_what_is_stored_and_then_what_comes(open: impl Fn() -> Log) {
    let log = open();
    fill(&log, "a", &["A"; 3]).await;
    let start = all(&log).await[0].position;
    let mut subscription = log.subscribe(start).await.unwrap();
    let stored = soon(subscription.next(10)).await.unwrap();
    assert_eq!(stored.events, all(&log).await[1..]);
    assert_eq!(stored.up_to, log.head().await.unwrap());
    let (batch, ()) = soon(async { tokio::join!(subscription.next(10), fill(&log, "b", &["B"])) }).await;
    assert_eq!(batch.unwrap().events, all(&log).await[3..]);
}

pub async fn a_subscription_hears_another_handle(open: impl Fn() -> Log) {
    let (log, other) = (open(), open());
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    let (batch, ()) = soon(async { tokio::join!(subscription.next(10), fill(&other, "b", &["B"])) }).await;
    assert_eq!(batch.unwrap().events, all(&log).await);
}

pub async fn dropping_a_subscriptions_wait_loses_nothing(open: impl Fn() -> Log) {
    let log = open();
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(30), subscription.next(10)).await.is_err());
    fill(&log, "a", &["A"; 3]).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(soon(subscription.next(2)).await.unwrap().events);
    }
    assert_eq!(seen, all(&log).await);
}

pub async fn racing_writers_fill_a_stream_without_gap_or_double(open: impl Fn() -> Log) {
    const WRITERS: usize = 4;
    const EACH: usize = 20;
    let handles = [open(), open()];
    let write = async |log: Log| {
        let mut stored = 0;
        while stored < EACH {
            let last = log
                .read_stream(StreamRead {
                    stream: "s".into(),
                    from: ReadFrom::End,
                    select: Select::All,
                    limit: 1,
                })
                .await
                .unwrap();
            let expected = ExpectedRevision::after(last.first().map(|event| event.revision));
            match append_one(&log, append("s", expected, vec![event("A")])).await {
                Ok(_) => stored += 1,
                Err(AppendError::Conflict) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let writers = (0..WRITERS).map(|writer| write(Arc::clone(&handles[writer % 2])));
    futures::future::join_all(writers).await;
    let revisions = read(&handles[0], "s", START, Select::All, 1_000).await;
    assert_eq!(revisions, (0..(WRITERS * EACH) as u64).collect::<Vec<_>>());
}

pub async fn a_reader_never_finds_an_event_before_one_it_has_seen(open: impl Fn() -> Log) {
    const STREAMS: usize = 4;
    const EACH: usize = 50;
    let handles = [open(), open()];
    let writers: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let log = Arc::clone(&handles[stream % 2]);
            tokio::spawn(async move { fill(&log, &format!("s{stream}"), &["A"; EACH]).await })
        })
        .collect();
    let mut seen = Vec::new();
    let mut subscription = handles[0].subscribe(Position::START).await.unwrap();
    while seen.len() < STREAMS * EACH {
        seen.extend(soon(subscription.next(7)).await.unwrap().events);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen, all(&handles[1]).await);
}

pub async fn a_log_keeps_its_id_and_its_events(open: impl Fn() -> Log) {
    let log = open();
    fill(&log, "s", &["A"; 2]).await;
    let (id, events) = (log.log_id().await.unwrap(), all(&log).await);
    drop(log);
    let log = open();
    assert_eq!(log.log_id().await.unwrap(), id);
    assert_eq!(all(&log).await, events);
}
