//! Tests of filtered scans.

use chat_domain::metadata::{Actor, ActorKind};
use chat_domain::{Position, StreamId};
use chat_operations::audit::filter::SearchText;
use chat_operations::audit::{EventFilter, LogPoint, Order, Scan, find_app, find_stream};
use chat_ports::event_store::{EventStore, RecordedEvent};
use proptest::prelude::*;

use crate::fixture::*;

/// Returns all events that a scan finds, and the number of scanned events.
async fn run_scan(scan: Scan, log: &dyn EventStore) -> (Vec<RecordedEvent>, u64) {
    let (mut scan, mut events, mut scanned) = (scan, Vec::new(), 0);
    while let Some(batch) = scan.next_batch(log).await.unwrap() {
        events.extend(batch.events);
        scanned += batch.scanned_events;
    }
    (events, scanned)
}

/// Generates random events for [`append_history`]: of each event its app, its chat, its kind (0 is an edit, 1 a
/// deletion, else a creation), and the error of its clock in half seconds.
fn histories() -> impl Strategy<Value = Vec<(u8, u64, u64, i64)>> {
    prop::collection::vec((0_u8..2, 1_u64..3, 0_u64..4, -50_i64..50), 1..30)
}

/// Generates random filters for these events.
fn filters() -> impl Strategy<Value = EventFilter> {
    let position = || prop::option::of(0_u64..40);
    let time = || prop::option::of(-70_i64..70);
    let scope = (prop::option::of(0_u8..2), prop::option::of(1_u64..3), prop::bool::ANY);
    let content = (prop::option::of(Just("1".to_owned())), prop::option::of(Just("anonymous".to_owned())));
    (scope, content, position(), position(), time(), time()).prop_map(
        |((app_index, chat_index, by_stream), (text, actor), after, before, from, to)| {
            let stream = match (app_index, chat_index) {
                (Some(app), Some(number)) if by_stream => Some(chat(app, number).to_string().into()),
                _ => None,
            };
            EventFilter {
                stream,
                app: app_index.map(token),
                chat: app_index.and(chat_index).map(chat_number),
                actor,
                after: after.map(Position::new),
                before: before.map(Position::new),
                from: from.map(at),
                to: to.map(at),
                text: text.map(|text| SearchText::new(&text)),
                ..EventFilter::default()
            }
        },
    )
}

/// Appends apps and chats first, then the random events.
async fn append_history(log: &Log, history: &[(u8, u64, u64, i64)]) {
    let mut last_numbers = std::collections::HashMap::new();
    for app_index in 0..2 {
        log.append(TestEvent::new(app(app_index), app_created("an app"))).await;
        for chat_index in 1..3 {
            log.append(TestEvent::new(app(app_index), chat_created(chat_index))).await;
        }
    }
    for (index, (app_index, chat_index, kind, jitter)) in history.iter().enumerate() {
        let last = last_numbers.entry((*app_index, *chat_index)).or_insert(0_u64);
        let event = match kind {
            0 if *last > 0 => edited(*last, "Edited 1"),
            1 if *last > 0 => deleted(*last),
            _ => {
                *last += 1;
                created(*last, &format!("message {last}"))
            }
        };
        // Each clock is wrong by 25 seconds at most, so times roughly rise with positions.
        let second = i64::try_from(index).unwrap() * 3 + jitter / 2;
        let actor_kind = if index % 3 == 0 { ActorKind::Anonymous } else { ActorKind::App };
        let event = TestEvent::new(chat(*app_index, *chat_index), event).at(second);
        log.append(event.by(Actor { kind: actor_kind, ..Actor::default() })).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn scans_in_small_batches_find_exactly_the_matching_events(
        history in histories(),
        filters in prop::collection::vec(filters(), 8),
        batch_events in 1_usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            for log in on_sqlite_and_kurrentdb().await {
                append_history(&log, &history).await;
                let log = &*log.event_store;
                let everything = log.read_all(Position::START, 1_000).await.unwrap();
                // The random positions are indexes of events, because positions of a log may have gaps. An index
                // beyond the last event stands for no bound.
                let position = |index: Position| {
                    let index = usize::try_from(index.get()).unwrap();
                    everything.get(index).map_or(Position::new(u64::MAX >> 1), |event| event.position)
                };
                for filter in &filters {
                    let filter = EventFilter {
                        after: filter.after.map(position).filter(|after| after.get() < u64::MAX >> 1),
                        before: filter.before.map(position).filter(|before| before.get() < u64::MAX >> 1),
                        ..filter.clone()
                    };
                    let mut expected: Vec<_> =
                        everything.iter().filter(|event| filter.matches(event)).cloned().collect();
                    let forwards = Scan::new(filter.clone(), Order::OldestFirst).with_batch_events(batch_events);
                    assert_eq!(run_scan(forwards, log).await.0, expected, "{filter:?}");
                    expected.reverse();
                    let backwards = Scan::new(filter.clone(), Order::NewestFirst).with_batch_events(batch_events);
                    assert_eq!(run_scan(backwards, log).await.0, expected, "{filter:?}");
                }
            }
        });
    }
}

/// Appends an app with a chat of `messages` messages, one per minute. Returns the positions of the messages.
async fn append_chat(log: &Log, messages: u64) -> Vec<Position> {
    log.append(TestEvent::new(app(1), app_created("an app"))).await;
    log.append(TestEvent::new(app(1), chat_created(1))).await;
    let message =
        |number| TestEvent::new(chat(1, 1), created(number, "Hi")).at(60 * i64::try_from(number).unwrap());
    log.append_all((1..=messages).map(message)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backward_scan_ends_near_its_time_bound() {
    for log in on_sqlite_and_kurrentdb().await {
        append_chat(&log, 40).await;
        let filter = EventFilter { from: Some(at(60 * 39)), ..EventFilter::default() };
        let (events, scanned) =
            run_scan(Scan::new(filter, Order::NewestFirst).with_batch_events(1), &*log.event_store).await;
        assert_eq!(events.len(), 2);
        assert!(scanned <= 4, "{scanned} events were scanned");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_scan_reads_only_near_its_time_bounds() {
    for log in on_sqlite_and_kurrentdb().await {
        append_chat(&log, 40).await;
        let filter = EventFilter { from: Some(at(60 * 20)), to: Some(at(60 * 21)), ..EventFilter::default() };
        let (events, scanned) =
            run_scan(Scan::new(filter, Order::OldestFirst).with_batch_events(1), &*log.event_store).await;
        assert_eq!(events.len(), 2);
        assert!(scanned <= 6, "{scanned} events were scanned");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_reads_no_event_beyond_its_position_bounds() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log, 40).await;
        let bounds = (Some(positions[9]), Some(positions[20]));
        for (order, (after, before), first_read) in [
            (Order::OldestFirst, (None, bounds.1), 22),
            (Order::OldestFirst, bounds, 10),
            (Order::NewestFirst, (bounds.0, None), 30),
            (Order::NewestFirst, bounds, 10),
        ] {
            let counting = CountingEventStore::new(&log);
            let filter = EventFilter { after, before, ..EventFilter::default() };
            let (events, _) = run_scan(Scan::new(filter, order), &counting).await;
            assert_eq!(events.len(), first_read);
            // Positions of KurrentDB have gaps, so that more events than positions may be read.
            if log.event_store.has_contiguous_positions() {
                assert_eq!(counting.events_read(), first_read, "{order:?} {after:?} {before:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_events_despite_clock_skew() {
    for log in on_sqlite_and_kurrentdb().await {
        log.append(TestEvent::new(app(1), app_created("an app"))).await;
        log.append(TestEvent::new(app(1), chat_created(1)).at(1_000)).await;
        let expected = log.append(TestEvent::new(app(1), chat_created(2)).at(1_050)).await;
        // Recorded later, by a clock that was 55 seconds behind.
        log.append(TestEvent::new(app(1), chat_created(3)).at(995)).await;
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let filter = EventFilter { from: Some(at(1_050)), ..EventFilter::default() };
            let (events, _) =
                run_scan(Scan::new(filter, order).with_batch_events(1), &*log.event_store).await;
            assert_eq!(events.iter().map(|event| event.position).collect::<Vec<_>>(), [expected]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_filter_reads_only_the_events_of_the_stream_within_the_position_bound() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log, 40).await;
        for number in 1..=40 {
            log.append(TestEvent::new(app(2), if number == 1 { app_created("x") } else { app_renamed("y") }))
                .await;
        }
        let stream = Some(StreamId::to_string(&chat(1, 1)).into());
        let filter = EventFilter { stream, after: Some(positions[34]), ..EventFilter::default() };
        let (events, scanned) = run_scan(Scan::new(filter, Order::OldestFirst), &*log.event_store).await;
        assert_eq!((events.len(), scanned), (5, 5));

        let stream = Some(StreamId::to_string(&chat(1, 1)).into());
        let filter = EventFilter { stream, before: Some(positions[5]), ..EventFilter::default() };
        let (events, scanned) = run_scan(Scan::new(filter, Order::NewestFirst), &*log.event_store).await;
        assert_eq!((events.len(), scanned), (5, 5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_filter_finds_the_creation_and_the_stream_of_the_chat() {
    for log in on_sqlite_and_kurrentdb().await {
        append_chat(&log, 2).await;
        log.append(TestEvent::new(app(1), chat_created(2))).await;
        let filter =
            EventFilter { app: Some(token(1)), chat: Some(chat_number(1)), ..EventFilter::default() };
        let (events, scanned) = run_scan(Scan::new(filter, Order::OldestFirst), &*log.event_store).await;
        let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
        assert_eq!((types, scanned), (vec!["ChatCreated", "MessageCreated", "MessageCreated"], 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_resolves_to_the_last_event_recorded_by_then() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log, 10).await;
        for (second, expected) in [
            (60 * 5, positions[4]),
            (60 * 5 + 59, positions[4]),
            (60 * 10_000, positions[9]),
            (-1, Position::START),
        ] {
            assert_eq!(
                LogPoint::Time(at(second)).resolve(&*log.event_store).await.unwrap(),
                expected,
                "second {second}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_the_event_at_a_position() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log, 3).await;
        let event = log.event_store.event_at(positions[1]).await.unwrap().unwrap();
        assert_eq!((event.position, event.event_type.as_str()), (positions[1], "MessageCreated"));
        assert_eq!(log.event_store.event_at(Position::START).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_clock_that_jumped_do_not_end_a_scan() {
    const DAY: i64 = 86_400;
    for log in on_sqlite_and_kurrentdb().await {
        log.append(TestEvent::new(app(1), app_created("an app")).at(-DAY)).await;
        // Five runs of eight events, one event per minute. Their clocks are right, three days ahead, right, three days
        // behind, and right again.
        let offsets = [0, 3 * DAY, 0, -3 * DAY, 0];
        let seconds = (0..40).map(|minute| minute * 60 + offsets[usize::try_from(minute / 8).unwrap()]);
        let numbered = (1..).zip(seconds);
        let positions = log
            .append_all(
                numbered.map(|(number, second)| TestEvent::new(app(1), chat_created(number)).at(second)),
            )
            .await;
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let found = async |filter| {
                let (events, _) =
                    run_scan(Scan::new(filter, order).with_batch_events(4), &*log.event_store).await;
                events.len()
            };
            // All except the creation of the app and the eight events of the run whose clock is behind.
            assert_eq!(found(EventFilter { from: Some(at(0)), ..EventFilter::default() }).await, 32);
            // All except the eight events of the run whose clock is ahead.
            assert_eq!(found(EventFilter { to: Some(at(60 * 40)), ..EventFilter::default() }).await, 33);
        }
        // `positions[31]` is the last event of the run whose clock is behind, so its time is before minute 20 too.
        for (minute, expected) in [(20, positions[31]), (40, positions[39])] {
            let position = LogPoint::Time(at(minute * 60)).resolve(&*log.event_store).await.unwrap();
            assert_eq!(position, expected, "minute {minute}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_found_by_an_unambiguous_prefix_or_by_its_current_name() {
    for log in on_sqlite_and_kurrentdb().await {
        for (number, name) in [(1, "first"), (2, "twin"), (3, "twin")] {
            log.append(TestEvent::new(app(number), app_created(name))).await;
        }
        log.append(TestEvent::new(app(1), app_renamed("renamed"))).await;
        // The stream of app 4 is missing.
        log.append(TestEvent::new(chat(4, 1), created(1, "Hi"))).await;
        let log = &*log.event_store;
        for (text, expected) in [("b", 1), ("bbb…", 1), ("renamed", 1), ("c", 2), ("e", 4)] {
            assert_eq!(find_app(log, text).await.unwrap(), token(expected), "{text}");
        }
        assert_eq!(find_app(log, token(9).expose()).await.unwrap(), token(9), "a whole token was looked up");
        let refusal = async |text| find_app(log, text).await.unwrap_err().to_string();
        assert_eq!(refusal("twin").await, "\"twin\" fits 2 apps: cccc… \"twin\", dddd… \"twin\"");
        let not_found = "no app has a token that begins with";
        assert_eq!(refusal("first").await, format!("{not_found} \"first\", or that name"));
        assert_eq!(
            refusal("renamd").await,
            format!("{not_found} \"renamd\", or that name; similar: \"renamed\"")
        );
        assert_eq!(find_stream(log, "chat-b…-7").await.unwrap(), chat(1, 7).to_string());
        assert_eq!(find_stream(log, "app-bb").await.unwrap(), app(1).to_string());
        for unknown in ["chat-operations", "chat-z…-1", "anything"] {
            assert_eq!(find_stream(log, unknown).await.unwrap(), unknown);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_the_creations_of_the_messages_of_one_sender() {
    for log in on_sqlite_and_kurrentdb().await {
        log.append(TestEvent::new(app(1), app_created("one"))).await;
        log.append(TestEvent::new(app(1), chat_created(1))).await;
        let first = log.append(TestEvent::new(chat(1, 1), created_by(1, "a", "u-17", "{}"))).await;
        log.append(TestEvent::new(chat(1, 1), created_by(2, "u-17", "u-1", "{}"))).await;
        log.append(TestEvent::new(chat(1, 1), edited(1, "b"))).await;
        log.append(TestEvent::new(chat(1, 1), created(3, "u-17"))).await;
        let sender = chat_domain::SenderId::parse("u-17".to_owned()).ok();
        let filter = EventFilter { sender, ..EventFilter::default() };
        let (found, _) = run_scan(Scan::new(filter, Order::OldestFirst), &*log.event_store).await;
        assert_eq!(found.iter().map(|event| event.position).collect::<Vec<_>>(), [first]);
    }
}
