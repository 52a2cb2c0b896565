//! Reading through filters.

use chat_domain::metadata::{Actor, ActorKind};
use chat_domain::{Position, StreamId};
use chat_operations::audit::filter::Needle;
use chat_operations::audit::{EventFilter, LogPoint, Order, Scan};
use chat_ports::event_store::{EventStore, RecordedEvent};
use proptest::prelude::*;

use crate::story::*;

/// Everything that a scan finds, and how many events it looked at.
async fn all(scan: Scan, log: &dyn EventStore) -> (Vec<RecordedEvent>, u64) {
    let (mut scan, mut events, mut looked_at) = (scan, Vec::new(), 0);
    while let Some(found) = scan.next_batch(log).await.unwrap() {
        events.extend(found.events);
        looked_at += found.scanned_events;
    }
    (events, looked_at)
}

/// The events of some chats, told in an order and at times that are drawn.
fn stories() -> impl Strategy<Value = Vec<(u8, u64, u64, i64)>> {
    prop::collection::vec((0_u8..2, 1_u64..3, 0_u64..4, -50_i64..50), 1..30)
}

/// A filter over such a story.
fn filters() -> impl Strategy<Value = EventFilter> {
    let position = || prop::option::of(0_u64..40);
    let time = || prop::option::of(-70_i64..70);
    let scope = (prop::option::of(0_u8..2), prop::option::of(1_u64..3), prop::bool::ANY);
    let what = (prop::option::of(Just("1".to_owned())), prop::option::of(Just("anonymous".to_owned())));
    (scope, what, position(), position(), time(), time()).prop_map(
        |((app_of, chat_of, by_stream), (text, actor), after, before, from, to)| {
            let stream = match (app_of, chat_of) {
                (Some(number), Some(of)) if by_stream => Some(chat(number, of).to_string().into()),
                _ => None,
            };
            EventFilter {
                stream,
                app: app_of.map(token),
                chat: app_of.and(chat_of).map(chat_number),
                actor,
                after: after.map(Position::new),
                before: before.map(Position::new),
                from: from.map(at),
                to: to.map(at),
                text: text.map(|text| Needle::new(&text)),
                ..EventFilter::default()
            }
        },
    )
}

/// Tells a story: apps and chats come to be first.
async fn tell(log: &Log, story: &[(u8, u64, u64, i64)]) {
    let mut next = std::collections::HashMap::new();
    for number in 0..2 {
        log.tell(Told::new(app(number), app_created("an app"))).await;
        for of in 1..3 {
            log.tell(Told::new(app(number), chat_created(of))).await;
        }
    }
    for (index, (number, of, kind, jitter)) in story.iter().enumerate() {
        let last = next.entry((*number, *of)).or_insert(0_u64);
        let event = match kind {
            0 if *last > 0 => edited(*last, "Edited 1"),
            1 if *last > 0 => deleted(*last),
            _ => {
                *last += 1;
                created(*last, &format!("message {last}"))
            }
        };
        // Clocks are half a minute apart at most: times rise with positions more or less.
        let second = i64::try_from(index).unwrap() * 3 + jitter / 2;
        let kind = if index % 3 == 0 { ActorKind::Anonymous } else { ActorKind::App };
        let told = Told::new(chat(*number, *of), event).at(second);
        log.tell(told.by(Actor { kind, ..Actor::default() })).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_filter_over_pages_of_any_size_is_the_filter_over_all(
        story in stories(),
        filters in prop::collection::vec(filters(), 8),
        chunk in 1_usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            for log in on_both_engines().await {
                tell(&log, &story).await;
                let log = &*log.log;
                let everything = log.read_all(Position::START, 1_000).await.unwrap();
                // Positions that are drawn count events; those of this log may be offsets.
                let position = |drawn: Position| {
                    let index = usize::try_from(drawn.get()).unwrap();
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
                    let forwards = Scan::new(filter.clone(), Order::OldestFirst).with_batch_events(chunk);
                    assert_eq!(all(forwards, log).await.0, expected, "{filter:?}");
                    expected.reverse();
                    let backwards = Scan::new(filter.clone(), Order::NewestFirst).with_batch_events(chunk);
                    assert_eq!(all(backwards, log).await.0, expected, "{filter:?}");
                }
            }
        });
    }
}

/// An app with a chat of so many messages, one a minute.
async fn chat_of(log: &Log, messages: u64) -> Vec<Position> {
    log.tell(Told::new(app(1), app_created("an app"))).await;
    log.tell(Told::new(app(1), chat_created(1))).await;
    let message =
        |number| Told::new(chat(1, 1), created(number, "Hi")).at(60 * i64::try_from(number).unwrap());
    log.tell_all((1..=messages).map(message)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_towards_the_start_ends_where_nothing_young_enough_can_follow() {
    for log in on_both_engines().await {
        chat_of(&log, 40).await;
        let filter = EventFilter { from: Some(at(60 * 39)), ..EventFilter::default() };
        let (events, looked_at) =
            all(Scan::new(filter, Order::NewestFirst).with_batch_events(1), &*log.log).await;
        assert_eq!(events.len(), 2);
        assert!(looked_at <= 4, "looked at {looked_at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_towards_the_end_begins_and_ends_near_the_times_it_is_bounded_by() {
    for log in on_both_engines().await {
        chat_of(&log, 40).await;
        let filter = EventFilter { from: Some(at(60 * 20)), to: Some(at(60 * 21)), ..EventFilter::default() };
        let (events, looked_at) =
            all(Scan::new(filter, Order::OldestFirst).with_batch_events(1), &*log.log).await;
        assert_eq!(events.len(), 2);
        assert!(looked_at <= 6, "looked at {looked_at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_writers_clock_was_behind_is_found_all_the_same() {
    for log in on_both_engines().await {
        log.tell(Told::new(app(1), app_created("an app"))).await;
        log.tell(Told::new(app(1), chat_created(1)).at(1_000)).await;
        let wanted = log.tell(Told::new(app(1), chat_created(2)).at(1_050)).await;
        // Recorded later, by a clock that was 55 seconds behind.
        log.tell(Told::new(app(1), chat_created(3)).at(995)).await;
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let filter = EventFilter { from: Some(at(1_050)), ..EventFilter::default() };
            let (events, _) = all(Scan::new(filter, order).with_batch_events(1), &*log.log).await;
            assert_eq!(events.iter().map(|event| event.position).collect::<Vec<_>>(), [wanted]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_by_itself_from_where_its_positions_begin() {
    for log in on_both_engines().await {
        let positions = chat_of(&log, 40).await;
        for number in 1..=40 {
            log.tell(Told::new(app(2), if number == 1 { app_created("x") } else { app_renamed("y") })).await;
        }
        let stream = Some(StreamId::to_string(&chat(1, 1)).into());
        let filter = EventFilter { stream, after: Some(positions[34]), ..EventFilter::default() };
        let (events, looked_at) = all(Scan::new(filter, Order::OldestFirst), &*log.log).await;
        assert_eq!((events.len(), looked_at), (5, 5));

        let stream = Some(StreamId::to_string(&chat(1, 1)).into());
        let filter = EventFilter { stream, before: Some(positions[5]), ..EventFilter::default() };
        let (events, looked_at) = all(Scan::new(filter, Order::NewestFirst), &*log.log).await;
        assert_eq!((events.len(), looked_at), (5, 5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chats_events_are_its_creation_and_its_stream() {
    for log in on_both_engines().await {
        chat_of(&log, 2).await;
        log.tell(Told::new(app(1), chat_created(2))).await;
        let filter =
            EventFilter { app: Some(token(1)), chat: Some(chat_number(1)), ..EventFilter::default() };
        let (events, looked_at) = all(Scan::new(filter, Order::OldestFirst), &*log.log).await;
        let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
        assert_eq!((types, looked_at), (vec!["ChatCreated", "MessageCreated", "MessageCreated"], 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_stands_for_the_last_event_recorded_by_then() {
    for log in on_both_engines().await {
        let positions = chat_of(&log, 10).await;
        for (second, expected) in [
            (60 * 5, positions[4]),
            (60 * 5 + 59, positions[4]),
            (60 * 10_000, positions[9]),
            (-1, Position::START),
        ] {
            assert_eq!(LogPoint::Time(at(second)).resolve(&*log.log).await.unwrap(), expected, "{second}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_at_a_position_is_found_and_nothing_beside_it() {
    for log in on_both_engines().await {
        let positions = chat_of(&log, 3).await;
        let found = log.log.event_at(positions[1]).await.unwrap().unwrap();
        assert_eq!((found.position, found.event_type.as_str()), (positions[1], "MessageCreated"));
        assert_eq!(log.log.event_at(Position::START).await.unwrap(), None);
    }
}
