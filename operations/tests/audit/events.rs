//! Tests of single events, traces, tails, statistics and exports.

use std::sync::Arc;

use chat_domain::metadata::{Actor, ActorKind, EventId};
use chat_domain::{OperatorAction, Position, operator_action};
use chat_operations::audit::{
    EventFilter, EventSelector, ExportFormat, Order, Scan, Tail, export, find_event, show, stats, trace,
};
use chat_operations::operator_actions::{self, Operator};
use uuid::Uuid;

use crate::fixture::*;

/// Appends events of the correlations `a` and `b`.
async fn append_two_correlations(log: &Log) -> Vec<Position> {
    log.append_all([
        TestEvent::new(app(1), app_created("one")).in_request("a"),
        TestEvent::new(app(1), chat_created(1)).in_request("b").at(60),
        TestEvent::new(chat(1, 1), created(1, "first")).in_request("a").at(120),
        TestEvent::new(app(1), app_renamed("two")).in_request("a").at(180),
    ])
    .await
}

fn positions<'a>(
    events: impl IntoIterator<Item = &'a chat_operations::audit::EventReference>,
) -> Vec<Position> {
    events.into_iter().map(|event| event.position).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_neighbours_and_events_of_the_same_correlation() {
    for log in on_sqlite_and_kurrentdb().await {
        let appended = append_two_correlations(&log).await;
        let event = find_event(&*log.event_store, EventSelector::Position(appended[2]), u64::MAX)
            .await
            .unwrap()
            .unwrap();
        let shown = show(&*log.event_store, &event).await.unwrap();
        assert_eq!((shown.previous, shown.following), (None, None));
        assert_eq!(positions(&shown.caused_by), [appended[0]]);
        assert_eq!(positions(&shown.caused), [appended[3]]);
        let event = find_event(&*log.event_store, EventSelector::Position(appended[1]), u64::MAX)
            .await
            .unwrap()
            .unwrap();
        let shown = show(&*log.event_store, &event).await.unwrap();
        assert_eq!(shown.previous.map(|event| event.position), Some(appended[0]));
        assert_eq!(shown.following.map(|event| event.position), Some(appended[3]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_an_event_by_id() {
    for log in on_sqlite_and_kurrentdb().await {
        let appended = append_two_correlations(&log).await;
        let by_id = |id| EventSelector::Id(EventId::new(Uuid::from_u128(id)));
        let event = find_event(&*log.event_store, by_id(2), u64::MAX).await.unwrap();
        assert_eq!(event.map(|event| event.position), Some(appended[1]));
        assert_eq!(find_event(&*log.event_store, by_id(77), u64::MAX).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_a_correlation_across_streams() {
    for log in on_sqlite_and_kurrentdb().await {
        let appended = append_two_correlations(&log).await;
        let traced = trace(&*log.event_store, "a", EventFilter::default(), u64::MAX).await.unwrap();
        let [request] = &traced.requests[..] else { panic!("expected one request: {traced:?}") };
        let events: Vec<_> = request.events.iter().map(|event| event.position).collect();
        assert_eq!((events, traced.next), (vec![appended[0], appended[2], appended[3]], None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_operator_actions_by_actor() {
    for log in on_sqlite_and_kurrentdb().await {
        append_two_correlations(&log).await;
        let operator = Operator { name: "alice@ops-1".to_owned(), program: "test".to_owned(), job: None };
        let reason = "counts looked wrong".to_owned();
        let action =
            OperatorAction::from(operator_action::RebuildStarted { generations: Vec::new(), reason });
        let recorded = operator_actions::record_action(&*log.event_store, &operator, &action).await.unwrap();
        let filter = EventFilter { actor: Some("alice@ops-1".to_owned()), ..EventFilter::default() };
        let mut scan = Scan::new(filter, Order::NewestFirst);
        let batch = scan.next_batch(&*log.event_store).await.unwrap().unwrap();
        assert_eq!(batch.events.iter().map(|event| event.position).collect::<Vec<_>>(), [recorded.position]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_has_no_gap_between_past_and_new_events() {
    for log in on_sqlite_and_kurrentdb().await {
        let appended = append_two_correlations(&log).await;
        let filter = EventFilter { app: Some(token(1)), ..EventFilter::default() };
        let (past, mut tail) =
            Tail::start_at_end(Arc::clone(&log.event_store), filter, 2, u64::MAX).await.unwrap();
        assert_eq!(past.iter().map(|event| event.position).collect::<Vec<_>>(), appended[2..]);
        let mut expected = Vec::new();
        for number in 2..5 {
            log.append(TestEvent::new(app(2), if number == 2 { app_created("x") } else { app_renamed("y") }))
                .await;
            expected.push(log.append(TestEvent::new(app(1), chat_created(number))).await);
        }
        let mut received = Vec::new();
        while received.len() < expected.len() {
            received.extend(tail.next_batch().await.unwrap().events.iter().map(|event| event.position));
        }
        assert_eq!(received, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_events_by_hour_and_stream() {
    for log in on_sqlite_and_kurrentdb().await {
        log.append(TestEvent::new(app(1), app_created("one"))).await;
        log.append(TestEvent::new(app(1), chat_created(1)).at(3_600)).await;
        for number in 1..=3 {
            log.append(TestEvent::new(chat(1, 1), created(number, "Hi")).at(7_300)).await;
        }
        let stats_of_log =
            stats(&*log.event_store, EventFilter::default(), 2, u64::MAX, |_| {}).await.unwrap();
        assert_eq!(stats_of_log.events, 5);
        let hours: Vec<u64> = stats_of_log.hours.iter().map(|hour| hour.events).collect();
        assert_eq!(hours, [1, 1, 3]);
        let growing = &stats_of_log.fastest_growing_streams;
        assert_eq!((growing.most.len(), growing.most[0].events, growing.others), (1, 3, 0));
        let biggest: Vec<u64> =
            stats_of_log.biggest_streams.most.iter().map(|stream| stream.events).collect();
        assert_eq!(biggest, [3, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn escapes_formulas_in_csv() {
    for log in on_sqlite_and_kurrentdb().await {
        let agent = Some("=HYPERLINK(\"http://example.com\")".to_owned());
        let actor = Actor { kind: ActorKind::App, user_agent: agent, ..Actor::default() };
        log.append(TestEvent::new(app(1), app_created("one")).by(actor)).await;
        let mut out = Vec::new();
        let scan = Scan::new(EventFilter::default(), Order::OldestFirst);
        export(&*log.event_store, scan, ExportFormat::Csv, &mut out, |_| {}).await.unwrap();
        let mut reader = csv::Reader::from_reader(&out[..]);
        let columns = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let cell = |name: &str| &row[columns.iter().position(|column| column == name).unwrap()];
        assert_eq!(cell("actor_user_agent"), "'=HYPERLINK(\"http://example.com\")");
        assert!(cell("metadata").contains(r#""user_agent":"=HYPERLINK(\"http://example.com\")""#));
    }
}
