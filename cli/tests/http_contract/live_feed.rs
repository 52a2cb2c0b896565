//! Tests of the live feed: `GET …/events`, as server-sent events and as long polls.

use std::sync::mpsc;
use std::thread;

use http::Method;
use serde_json::{Value, json};

use crate::contract::{Contract, assert_problem, without_times};
use crate::event_stream::{EventStream, TIMEOUT};
use crate::harness::api::{API, app_path, chat_path};

fn open(contract: &Contract, path: &str, last_event_id: Option<&str>) -> EventStream {
    let headers: Vec<_> = last_event_id.map(|id| ("Last-Event-ID", id)).into_iter().collect();
    EventStream::open(&contract.client().url_of(path), &headers)
}

/// Reads the next events of a feed, and returns the bodies of their messages.
fn next_bodies(count: usize, feed: &mut EventStream) -> Vec<Value> {
    (0..count).map(|_| feed.next().expect("an event").1["body"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_delivers_messages_as_they_are_posted() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let mut feed = open(&contract, &format!("{}/events", chat_path(&token, 1)), None);
    assert_eq!(feed.header("x-accel-buffering"), Some("no"));
    assert_eq!(feed.header("cache-control"), Some("no-store"));
    let posted = contract.message(&token, "one").await;
    let (id, data) = feed.next().expect("an event");
    let expected = json!({ "chat_number": 1, "message_number": 1, "body": "one", "at": "T" });
    assert_eq!(without_times(data), expected);
    assert_eq!(id, posted.header("consistency-token"), "the id is not the token of the command");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_resumes_after_the_last_event_id_at_any_process() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let path = format!("{}/events", app_path(&token));
    let mut feed = open(&contract, &path, None);
    contract.message(&token, "one").await;
    let (last_id, _) = feed.next().expect("an event");
    drop(feed);
    contract.message(&token, "two").await;
    contract.message(&token, "three").await;
    for url in contract.client().query_urls() {
        let mut feed = EventStream::open(&format!("{url}{path}"), &[("Last-Event-ID", &last_id)]);
        assert_eq!(next_bodies(2, &mut feed), ["two", "three"], "{url}");
    }
    contract.put(app_path(&token), &json!({ "name": "renamed" })).await.expect(200);
    contract.post(format!("{}/chats", app_path(&token)), &json!({})).await.expect(201);
    let mut feed = open(&contract, &format!("{path}?types=app.renamed,chat.created&after={last_id}"), None);
    let (renamed, created) = (feed.next().expect("an event").1, feed.next().expect("an event").1);
    assert_eq!((&renamed["name"], &created["chat_number"]), (&json!("renamed"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_returns_events_at_once_or_when_one_comes() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let posted = contract.message(&token, "one").await;
    contract.delete(format!("{}/messages/1", chat_path(&token, 1))).await.expect(204);
    let path = format!("{}/events", app_path(&token));
    let poll = async |after: &str, wait: &str| {
        let call = contract.client().get(format!("{path}?after={after}"));
        let call = call.header("accept", "application/json").header("prefer", wait);
        contract.send(call).await.expect(200).json()
    };
    let page = poll(posted.header("consistency-token"), "wait=30").await;
    assert_eq!(page["events"].as_array().map(Vec::len), Some(1), "{page}");
    assert_eq!(page["events"][0]["event"], "message.deleted");
    assert_eq!(page["events"][0]["id"], page["next"]);
    let next = page["next"].as_str().expect("a cursor");
    let empty = poll(next, "wait=0").await;
    assert_eq!(empty["events"], json!([]));
    let waiting = poll(next, "wait=30");
    let (page, _) = tokio::join!(waiting, contract.message(&token, "two"));
    assert_eq!(page["events"][0]["data"]["body"], "two", "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_cursors_apps_and_chats_are_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let path = format!("{}/events", chat_path(&token, 1));
    let known = contract.message(&token, "one").await.header("consistency-token").to_owned();
    let (tag, _) = known.split_once('.').expect("a tag and a position");
    for cursor in [format!("{tag}.zzzzzzzz"), "v1-1.1".to_owned()] {
        let reply = contract.send(contract.client().get(format!("{path}?after={cursor}"))).await;
        assert_problem(&reply, 410, "cursor_unknown");
        let reply = contract.send(contract.client().get(&path).header("last-event-id", &cursor)).await;
        assert_problem(&reply, 410, "cursor_unknown");
    }
    assert_problem(&contract.get(format!("{path}?after=x")).await, 400, "malformed_query");
    assert_problem(&contract.get(format!("{path}?type=message.created")).await, 400, "malformed_query");
    assert_problem(&contract.get(format!("{path}?types=MessageCreated")).await, 400, "malformed_query");
    let malformed = contract.send(contract.client().get(&path).header("last-event-id", "x")).await;
    assert_problem(&malformed, 400, "malformed_header");
    assert_problem(&contract.get(format!("{}/events", chat_path(&token, 2))).await, 404, "chat_not_found");
    let no_app = format!("{API}/apps/{}/events", crate::contract::NO_APP);
    assert_problem(&contract.get(no_app).await, 404, "app_not_found");
    let head = contract.send(contract.client().request(Method::HEAD, &path)).await.expect(200);
    assert_eq!((head.header("content-type"), head.body.len()), ("text/event-stream", 0));
    assert_problem(
        &contract.send(contract.client().request(Method::POST, &path)).await,
        405,
        "method_not_allowed",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_end_when_the_process_stops() {
    // If the stop did not end the feed, the drain timeout would, after 120 seconds. This test waits for a shorter time.
    let contract = Contract::start_with(|options| options.with("--drain-timeout", "120")).await;
    let token = contract.app_with_chat().await;
    let path = format!("{}/events", app_path(&token));
    let mut feed = open(&contract, &path, None);
    contract.message(&token, "one").await;
    let (last_id, _) = feed.next().expect("an event");
    contract.terminate_all();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let rest: Vec<_> = std::iter::from_fn(|| feed.line()).collect();
        ended.send(rest)
    });
    let rest = end.recv_timeout(TIMEOUT).expect("the end of the feed");
    let retry = rest.iter().find_map(|line| line.strip_prefix("retry: ")).expect("a time to reconnect");
    assert!((1_000..5_000).contains(&retry.parse().expect("milliseconds")), "{retry}");
    assert!(rest.contains(&format!("id: {last_id}")), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_over_the_limit_is_refused() {
    let contract = Contract::start_with(|options| options.with("--max-followers", "4")).await;
    let token = contract.app_with_chat().await;
    let path = format!("{}/events", app_path(&token));
    let mut feeds: Vec<_> = (0..2).map(|_| open(&contract, &path, None)).collect();
    // An app may add a follower while it has fewer followers than there are free places, so one app alone gets two of
    // four.
    let refused = contract.get(&path).await;
    assert_problem(&refused, 503, "overloaded");
    let other = contract.app().await;
    let _of_other_app = EventStream::open(&contract.client().url_of(&path).replace(&token, &other), &[]);
    feeds.pop();
    // The server notices that a client is gone only when it sends the next event or comment to that client.
    contract.message(&token, "one").await;
    contract.message(&token, "two").await;
    crate::harness::deadline::eventually("another follower is accepted", async || {
        let call = contract.client().get(format!("{path}?after={}", feeds[0].header("consistency-token")?));
        let reply = call.header("accept", "application/json").send().await;
        contract.message(&token, "again").await;
        (reply.status == 200).then_some(())
    })
    .await;
}
