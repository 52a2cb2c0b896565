//! Live feed: `GET …/events`.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use chat_domain::{Position, StreamId};
use http::Request;
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fixture::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// A feed of server-sent events that is being read.
struct Feed {
    body: Body,
    unread: String,
    frames: VecDeque<Frame>,
}

/// A server-sent event.
#[derive(Clone, Debug, Default, PartialEq)]
struct Frame {
    id: Option<String>,
    event: Option<String>,
    data: Option<Value>,
    retry: Option<u64>,
}

impl Frame {
    fn parse(text: &str) -> Self {
        let mut frame = Self::default();
        for line in text.lines() {
            let (field, value) = line.split_once(':').unwrap();
            let value = value.trim_start().to_owned();
            match field {
                "id" => frame.id = Some(value),
                "event" => frame.event = Some(value),
                "data" => frame.data = Some(serde_json::from_str(&value).unwrap()),
                "retry" => frame.retry = Some(value.parse().unwrap()),
                field => assert_eq!(field, ""),
            }
        }
        frame
    }
}

impl Feed {
    /// Opens a feed, and reads its first frame, which has the cursor after which the feed begins.
    async fn open(fixture: &Fixture, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = Request::get(path).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = fixture.respond(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let begins_after = response.headers()["consistency-token"].to_str().unwrap().to_owned();
        let mut feed = Self { body: response.into_body(), unread: String::new(), frames: VecDeque::new() };
        let first = feed.frame().await.unwrap();
        assert_eq!((first.id, first.retry), (Some(begins_after), Some(1_000)));
        feed
    }

    /// Reads the next frame; `None` at the end of the feed.
    async fn frame(&mut self) -> Option<Frame> {
        while self.frames.is_empty() {
            let chunk = timeout(DEADLINE, self.body.frame()).await.unwrap()?;
            self.unread.push_str(std::str::from_utf8(&chunk.unwrap().into_data().unwrap()).unwrap());
            while let Some((frame, rest)) = self.unread.split_once("\n\n") {
                self.frames.push_back(Frame::parse(frame));
                self.unread = String::from(rest);
            }
        }
        self.frames.pop_front()
    }

    /// Reads the next frame of an event; `None` at the end of the feed.
    async fn event_frame(&mut self) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            if frame.data.is_some() {
                return Some(frame);
            }
        }
    }

    /// Reads the next event: its id and its data. `None` at the end of the feed.
    async fn event(&mut self) -> Option<(String, Value)> {
        let frame = self.event_frame().await?;
        Some((frame.id.unwrap(), frame.data.unwrap()))
    }

    /// Reads events, and returns the [`label`] of each.
    async fn labels(&mut self, count: usize) -> Vec<String> {
        let mut labels = Vec::new();
        while labels.len() < count {
            labels.push(label(&self.event().await.unwrap().1));
        }
        labels
    }
}

/// Returns the chat and text of an event, or the name of a renamed app, or else the chat and message number. A created
/// chat has no message number: its label is `1 null`.
fn label(data: &Value) -> String {
    match (&data["body"], &data["name"]) {
        (Value::String(body), _) => format!("{} {body}", data["chat_number"]),
        (_, Value::String(name)) => name.clone(),
        _ => format!("{} {}", data["chat_number"], data["message_number"]),
    }
}

async fn fixture_with_chats(chats: u64) -> Fixture {
    let fixture = Fixture::without_projector();
    create_app_with_chats(&fixture, chats).await;
    fixture
}

async fn create_app_with_chats(fixture: &Fixture, chats: u64) {
    let mut events = vec![app_created("first_app")];
    events.extend((1..=chats).map(chat_created));
    fixture.append(app(), events).await;
}

#[tokio::test]
async fn a_feed_delivers_the_new_events_of_its_chat() {
    let fixture = fixture_with_chats(2).await;
    fixture.append(chat(1), vec![created(1, "before")]).await;
    let mut feed = Feed::open(&fixture, &path("/chats/1/events"), None).await;
    fixture.append(chat(2), vec![created(1, "elsewhere")]).await;
    fixture.append(app(), vec![app_renamed("renamed")]).await;
    let position = fixture.append(chat(1), vec![created(2, "Hi")]).await;
    let expected = Frame {
        id: Some(consistency_token(position)),
        event: Some("message.created".to_owned()),
        data: Some(json!({
            "chat_number": 1, "message_number": 2, "body": "Hi", "at": "2026-09-21T14:13:21.007Z",
        })),
        retry: None,
    };
    assert_eq!(feed.event_frame().await, Some(expected));
    fixture.append(chat(1), vec![edited(2, "Hello"), deleted(1)]).await;
    let (edit, deletion) = (feed.event_frame().await.unwrap(), feed.event_frame().await.unwrap());
    assert_eq!(edit.event.as_deref(), Some("message.edited"));
    assert_eq!(edit.data.unwrap()["body"], "Hello");
    assert_eq!(deletion.event.as_deref(), Some("message.deleted"));
    assert_eq!(deletion.data.unwrap()["message_number"], 1);
}

#[tokio::test]
async fn a_feed_of_an_app_has_the_events_of_all_its_streams_in_order() {
    let fixture = fixture_with_chats(3).await;
    fixture.append(StreamId::App(other_token()), vec![app_created("other"), chat_created(1)]).await;
    let mut feed = Feed::open(&fixture, &path("/events"), Some(&consistency_token(Position::START))).await;
    for (number, in_chat) in [2, 1, 2, 3].into_iter().enumerate() {
        // The third append creates the second message of chat 2.
        let (number, is_second) = (number as u64, number == 2);
        let body = format!("message {number}");
        fixture.append(chat(in_chat), vec![created(1 + u64::from(is_second), &body)]).await;
    }
    fixture.append(app(), vec![app_renamed("renamed"), chat_created(4)]).await;
    let expected = [
        "1 null",
        "2 null",
        "3 null",
        "2 message 0",
        "1 message 1",
        "2 message 2",
        "3 message 3",
        "renamed",
        "4 null",
    ];
    assert_eq!(feed.labels(expected.len()).await, expected);
}

#[tokio::test]
async fn a_feed_catches_up_from_the_log_and_goes_on_live() {
    // The buffer holds a few events only.
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 4_000, ..options });
    create_app_with_chats(&fixture, 20).await;
    let mut expected = Vec::new();
    for number in 1..=300_u64 {
        // Chats of very different lengths.
        let in_chat = 1 + (number * number) % 20;
        let body = format!("message {number}");
        fixture.append(chat(in_chat), vec![created(number, &body)]).await;
        expected.push(format!("{in_chat} {body}"));
    }
    let begin = consistency_token(Position::new(21));
    let mut feed = Feed::open(&fixture, &path("/events"), Some(&begin)).await;
    assert_eq!(feed.labels(300).await, expected);
    fixture.append(chat(7), vec![created(1, "live")]).await;
    assert_eq!(feed.labels(1).await, ["7 live"]);
    for in_chat in [1, 2, 6] {
        let of_chat: Vec<_> =
            expected.iter().filter(|label| label.starts_with(&format!("{in_chat} "))).collect();
        let mut feed =
            Feed::open(&fixture, &path(&format!("/chats/{in_chat}/events?after={begin}")), None).await;
        assert_eq!(feed.labels(of_chat.len()).await.iter().collect::<Vec<_>>(), of_chat, "{in_chat}");
    }
}

#[tokio::test]
async fn a_feed_of_an_app_with_very_many_chats_has_all_events_of_the_app() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 1_000, ..options });
    // The feed takes the number of the newest chat for the number of chats.
    fixture.append(app(), vec![app_created("first_app"), chat_created(20_000)]).await;
    fixture.append(StreamId::App(other_token()), vec![app_created("other"), chat_created(1)]).await;
    let mut expected = Vec::new();
    for number in 1..=30 {
        fixture.append(chat(20_000 - number), vec![created(1, "Hi")]).await;
        expected.push(format!("{} Hi", 20_000 - number));
    }
    let mut feed = Feed::open(&fixture, &path("/events"), Some(&consistency_token(Position::new(2)))).await;
    assert_eq!(feed.labels(30).await, expected);
}

#[tokio::test]
async fn a_client_that_was_away_for_a_short_time_costs_few_reads_in_an_app_with_many_chats() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 1_000, ..options });
    create_app_with_chats(&fixture, 400).await;
    let last = fixture.append(chat(1), vec![created(1, "Hi")]).await;
    for number in 2..=20 {
        fixture.append(chat(number), vec![created(1, "Hi")]).await;
    }
    // The first follower begins the subscription.
    let _other = Feed::open(&fixture, &path("/events"), None).await;
    let expected: Vec<_> = (2..=20).map(|number| format!("{number} Hi")).collect();
    fixture.reads.take_count();
    let mut feed = Feed::open(&fixture, &path("/events"), Some(&consistency_token(last))).await;
    assert_eq!(feed.labels(19).await, expected);
    // Catching up needs far fewer reads than the app has chats.
    let reads = fixture.reads.take_count();
    assert!(reads <= 40, "{reads} reads");
    let after = consistency_token(last);
    let reply = poll(&fixture, &path(&format!("/events?after={after}")), "wait=0").await;
    assert_eq!(reply.body["events"].as_array().unwrap().len(), 19);
    let reads = fixture.reads.take_count();
    assert!(reads <= 40, "{reads} reads");
}

#[tokio::test]
async fn a_backlog_is_read_from_streams_if_other_apps_have_many_events_in_between() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 1_000, ..options });
    create_app_with_chats(&fixture, 40).await;
    fixture.append(StreamId::App(other_token()), vec![app_created("other"), chat_created(1)]).await;
    let other_chat = StreamId::Chat(other_token(), chat_domain::ChatNumber::FIRST);
    fixture.append(chat(1), vec![created(1, "first")]).await;
    for block in 0..20 {
        let messages = (1..=500).map(|number| created(500 * block + number, "elsewhere")).collect();
        fixture.append(other_chat, messages).await;
    }
    fixture.append(chat(40), vec![created(1, "second")]).await;
    fixture.append(chat(1), vec![created(2, "third")]).await;
    let _other = Feed::open(&fixture, &path("/events"), None).await;
    fixture.reads.take_count();
    let begin = consistency_token(Position::new(41));
    let mut feed = Feed::open(&fixture, &path("/events"), Some(&begin)).await;
    assert_eq!(feed.labels(3).await, ["1 first", "40 second", "1 third"]);
    let reads = fixture.reads.take_count();
    assert!(reads > 41, "only {reads} reads: not the log and then each of the 41 streams");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_waits_for_the_log_has_heartbeats_and_ends_when_the_process_stops() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 1_000, ..options });
    create_app_with_chats(&fixture, 20).await;
    let begin = consistency_token(Position::START);
    // More feeds than may read the log at a time, so some wait for their turns.
    let mut feeds = Vec::new();
    for _ in 0..10 {
        feeds.push(Feed::open(&fixture, &path("/events"), Some(&begin)).await);
    }
    fixture.reads.block();
    for feed in &mut feeds {
        for _ in 0..2 {
            let heartbeat = Frame { id: Some(begin.clone()), ..Frame::default() };
            assert_eq!(feed.frame().await, Some(heartbeat));
        }
    }
    fixture.stop.send_replace(true);
    for feed in &mut feeds {
        let last = feed.frame().await.unwrap();
        assert_eq!((last.id.as_ref(), last.retry.is_some()), (Some(&begin), true));
        assert_eq!(feed.frame().await, None);
    }
}

#[tokio::test]
async fn a_read_continues_after_a_heartbeat() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 1_000, ..options });
    create_app_with_chats(&fixture, 20).await;
    let begin = consistency_token(Position::START);
    let mut feed = Feed::open(&fixture, &path("/events"), Some(&begin)).await;
    fixture.reads.block();
    tokio::time::pause();
    assert_eq!(feed.frame().await.unwrap().id, Some(begin));
    tokio::time::resume();
    fixture.reads.unblock();
    let expected: Vec<_> = (1..=20).map(|number| format!("{number} null")).collect();
    assert_eq!(feed.labels(20).await, expected);
}

#[tokio::test]
async fn a_poll_that_waits_for_the_log_ends_when_the_process_stops() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 1_000, ..options });
    create_app_with_chats(&fixture, 20).await;
    let begin = consistency_token(Position::START);
    let _other = Feed::open(&fixture, &path("/events"), None).await;
    let url = path(&format!("/chats/1/events?after={begin}"));
    fixture.reads.take_count();
    let poll = poll(&fixture, &url, "wait=30");
    let stop = async {
        // The look-up of the chat is the first read.
        fixture.reads.wait_for_count(1).await;
        fixture.reads.block();
        fixture.reads.wait_for_count(2).await;
        fixture.stop.send_replace(true);
    };
    let (reply, ()) = tokio::join!(poll, stop);
    // `next` is not checked: in a chat without messages, it may move on without an event.
    assert_eq!(reply.body["events"], json!([]));
}

#[tokio::test]
async fn a_resumed_feed_continues_after_its_last_event() {
    let fixture = fixture_with_chats(1).await;
    let mut feed = Feed::open(&fixture, &path("/chats/1/events"), None).await;
    fixture.append(chat(1), messages(2)).await;
    let (first, _) = feed.event().await.unwrap();
    drop(feed);
    fixture.append(chat(1), vec![created(3, "message 3")]).await;
    let mut feed = Feed::open(&fixture, &path("/chats/1/events"), Some(&first)).await;
    assert_eq!(feed.labels(2).await, ["1 message 2", "1 message 3"]);
    // `Last-Event-ID` has precedence over `after`: browsers repeat the URL when they reconnect.
    let url = path(&format!("/chats/1/events?after={}", consistency_token(Position::START)));
    let mut feed = Feed::open(&fixture, &url, Some(&first)).await;
    assert_eq!(feed.labels(1).await, ["1 message 2"]);
    let mut feed = Feed::open(&fixture, &url, None).await;
    assert_eq!(feed.labels(1).await, ["1 message 1"]);
}

#[tokio::test]
async fn a_feed_that_begins_at_the_present_can_be_resumed_before_its_first_event() {
    let fixture = fixture_with_chats(1).await;
    let response = fixture.respond(Request::get(path("/chats/1/events")).body(Body::empty()).unwrap()).await;
    let present = response.headers()["consistency-token"].to_str().unwrap().to_owned();
    drop(response);
    fixture.append(chat(1), messages(1)).await;
    let mut feed = Feed::open(&fixture, &path("/chats/1/events"), Some(&present)).await;
    assert_eq!(feed.labels(1).await, ["1 message 1"]);
}

#[tokio::test]
async fn a_feed_has_the_requested_types_only() {
    let fixture = fixture_with_chats(1).await;
    let url = path("/events?types=message.deleted,chat.created");
    let mut feed = Feed::open(&fixture, &url, None).await;
    fixture.append(chat(1), vec![created(1, "Hi"), edited(1, "Hello"), deleted(1)]).await;
    fixture.append(app(), vec![app_renamed("renamed"), chat_created(2)]).await;
    assert_eq!(feed.labels(2).await, ["1 1", "2 null"]);
}

#[tokio::test]
async fn a_feed_of_a_sender_has_the_events_of_the_senders_messages() {
    let fixture = fixture_with_chats(2).await;
    let mut feed = Feed::open(&fixture, &path("/events?sender=u-17"), None).await;
    fixture
        .append(chat(1), vec![sent(1, "Hi", "u-17"), sent(2, "Hello", "u-1"), created(3, "anonymous")])
        .await;
    fixture.append(chat(1), vec![edited(2, "left out"), edited(1, "Hi!"), deleted(3), deleted(1)]).await;
    fixture.append(app(), vec![app_renamed("left out")]).await;
    fixture.append(chat(2), vec![sent(1, "again", "u-17")]).await;
    let events = [feed.event().await, feed.event().await, feed.event().await, feed.event().await];
    let of_sender: Vec<_> = events.into_iter().map(|event| event.unwrap().1).collect();
    assert!(of_sender.iter().all(|data| data["sender"] == json!({ "id": "u-17" })), "{of_sender:?}");
    assert_eq!(of_sender.iter().map(label).collect::<Vec<_>>(), ["1 Hi", "1 Hi!", "1 1", "2 again"]);
    let url = path(&format!("/chats/1/events?sender=u-17&after={}", consistency_token(Position::START)));
    assert_eq!(Feed::open(&fixture, &url, None).await.labels(3).await, ["1 Hi", "1 Hi!", "1 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_moves_the_cursor_over_events_that_are_left_out() {
    let fixture = fixture_with_chats(1).await;
    let mut feed = Feed::open(&fixture, &path("/chats/1/events?types=message.deleted"), None).await;
    let position = fixture.append(chat(1), messages(2)).await;
    loop {
        let frame = feed.frame().await.unwrap();
        assert_eq!((&frame.event, &frame.data), (&None, &None));
        if frame.id == Some(consistency_token(position)) {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_has_fallen_behind_is_disconnected_and_can_resume() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 8_000, ..options });
    create_app_with_chats(&fixture, 1).await;
    let mut slow = Feed::open(&fixture, &path("/chats/1/events"), None).await;
    let mut fast = Feed::open(&fixture, &path("/chats/1/events"), None).await;
    fixture.append(chat(1), vec![created(1, "message 1")]).await;
    let (last, _) = slow.event().await.unwrap();
    assert_eq!(fast.labels(1).await, ["1 message 1"]);
    for number in 2..=100 {
        fixture.append(chat(1), vec![created(number, &format!("message {number}"))]).await;
        fast.event().await.unwrap();
    }
    // A client that takes longer than a second for a batch counts as slow.
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(slow.event().await, None);
    let mut resumed = Feed::open(&fixture, &path("/chats/1/events"), Some(&last)).await;
    let expected: Vec<_> = (2..=100).map(|number| format!("1 message {number}")).collect();
    assert_eq!(resumed.labels(99).await, expected);
}

#[tokio::test]
async fn feeds_end_when_the_process_stops() {
    let fixture = fixture_with_chats(1).await;
    let mut feeds = Vec::new();
    for _ in 0..4 {
        feeds.push(Feed::open(&fixture, &path("/events"), None).await);
    }
    let url = path("/events");
    let poll = fixture.get_with(&url, &[("accept", "application/json"), ("prefer", "wait=30")]);
    let mut poll = Box::pin(poll);
    assert!(futures::poll!(&mut poll).is_pending(), "the poll did not wait for an event");
    fixture.stop.send_replace(true);
    let mut delays = Vec::new();
    for feed in &mut feeds {
        let last = feed.frame().await.unwrap();
        assert!(last.id.is_some(), "the last frame has no cursor: {last:?}");
        delays.push(last.retry.unwrap());
        assert_eq!(feed.frame().await, None);
    }
    delays.sort_unstable();
    delays.dedup();
    assert_eq!(delays.len(), 4, "some clients would reconnect after the same delay: {delays:?}");
    assert!(
        delays.iter().all(|delay| (1_000..5_000).contains(delay)),
        "a delay is not from 1 to 5 s: {delays:?}"
    );
    assert_eq!(poll.await.body["events"], json!([]));
}

#[tokio::test]
async fn unknown_cursors_are_refused() {
    let fixture = fixture_with_chats(1).await;
    let future = consistency_token(Position::new(1_000));
    for cursor in [&*future, "v1-zz.1"] {
        for accept in ["text/event-stream", "application/json"] {
            let url = path(&format!("/chats/1/events?after={cursor}"));
            let reply = fixture.get_with(&url, &[("accept", accept)]).await;
            assert_eq!(reply.problem(), (410, "cursor_unknown"), "{cursor}");
            let reply =
                fixture.get_with(&path("/events"), &[("last-event-id", cursor), ("accept", accept)]).await;
            assert_eq!(reply.problem(), (410, "cursor_unknown"), "{cursor}");
        }
    }
}

#[tokio::test]
async fn malformed_requests_and_missing_resources_are_refused() {
    let fixture = fixture_with_chats(1).await;
    for query in ["after=", "after=1", "types=", "types=message.created,", "types=MessageCreated", "sender="]
    {
        let reply = fixture.get(&path(&format!("/events?{query}"))).await;
        assert_eq!(reply.problem(), (400, "malformed_query"), "{query}");
    }
    for types in ["chat.created", "message.created,app.renamed"] {
        let reply = fixture.get(&path(&format!("/chats/1/events?types={types}"))).await;
        assert_eq!(reply.problem(), (400, "malformed_query"), "types that a chat's feed never has: {types}");
        assert!(!reply.body["detail"].as_str().unwrap().contains("app.renamed"), "{}", reply.body);
    }
    let reply = fixture.get_with(&path("/events"), &[("last-event-id", "7")]).await;
    assert_eq!(reply.problem(), (400, "malformed_header"));
    assert_eq!(fixture.get(&path("/chats/2/events")).await.problem(), (404, "chat_not_found"));
    let unknown = format!("/api/v1/apps/{}", other_token().expose());
    for rest in ["/events", "/chats/1/events"] {
        assert_eq!(fixture.get(&format!("{unknown}{rest}")).await.problem(), (404, "app_not_found"));
    }
}

#[tokio::test]
async fn an_app_has_at_most_half_of_the_followers() {
    let fixture = Fixture::with_live_feed_options(|options| LiveFeedOptions { max_followers: 4, ..options });
    create_app_with_chats(&fixture, 1).await;
    fixture.append(StreamId::App(other_token()), vec![app_created("other")]).await;
    let first = Feed::open(&fixture, &path("/events"), None).await;
    let _second = Feed::open(&fixture, &path("/chats/1/events"), None).await;
    let refused = fixture.get(&path("/events")).await;
    assert_eq!(refused.problem(), (503, "overloaded"));
    assert_eq!(refused.header("retry-after"), "1");
    let of_other_app = format!("/api/v1/apps/{}/events", other_token().expose());
    let _third = Feed::open(&fixture, &of_other_app, None).await;
    drop(first);
    Feed::open(&fixture, &path("/events"), None).await;
}

async fn poll(fixture: &Fixture, path: &str, wait: &str) -> Reply {
    let reply = fixture.get_with(path, &[("accept", "application/json"), ("prefer", wait)]).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "no-store");
    reply
}

#[tokio::test]
async fn a_poll_returns_the_events_that_are_there() {
    let fixture = fixture_with_chats(1).await;
    let position = fixture.append(chat(1), messages(2)).await;
    let begin = consistency_token(Position::START);
    let url = path(&format!("/chats/1/events?after={begin}"));
    // The subscription begins with the first poll, and may not have read the log yet.
    let first = poll(&fixture, &url, "wait=0").await;
    let reply = poll(&fixture, &url, "wait=30").await;
    assert_eq!(first.body, reply.body);
    let expected = json!({
        "events": [
            {
                "id": consistency_token(Position::new(position.get() - 1)),
                "event": "message.created",
                "data": { "chat_number": 1, "message_number": 1, "body": "message 1", "at": "2026-09-21T14:13:20.007Z" },
            },
            {
                "id": consistency_token(position),
                "event": "message.created",
                "data": { "chat_number": 1, "message_number": 2, "body": "message 2", "at": "2026-09-21T14:13:21.007Z" },
            },
        ],
        "next": consistency_token(position),
    });
    assert_eq!(reply.body, expected);
    assert_eq!(reply.header("consistency-token"), consistency_token(position));
    let next = path(&format!("/chats/1/events?after={}", consistency_token(position)));
    let empty = json!({ "events": [], "next": consistency_token(position) });
    assert_eq!(poll(&fixture, &next, "wait=0").await.body, empty);
}

#[tokio::test]
async fn a_poll_waits_for_the_next_event() {
    let fixture = fixture_with_chats(1).await;
    // With a cursor, it does not matter whether the poll or the append is first.
    let url = path(&format!("/chats/1/events?after={}", consistency_token(Position::START)));
    let waiting = poll(&fixture, &url, "wait=30");
    let append = async {
        fixture.append(app(), vec![app_renamed("renamed")]).await;
        fixture.append(chat(1), messages(1)).await
    };
    let (reply, position) = tokio::join!(waiting, append);
    assert_eq!(reply.body["events"][0]["data"]["body"], "message 1");
    assert_eq!(reply.body["next"], consistency_token(position));
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_events_ends_and_moves_the_cursor() {
    let fixture = fixture_with_chats(1).await;
    let begin = consistency_token(Position::START);
    let position = fixture.append(chat(1), messages(3)).await;
    let url = path(&format!("/events?types=message.deleted&after={begin}"));
    let reply = poll(&fixture, &url, "wait=30").await;
    assert_eq!(reply.body, json!({ "events": [], "next": consistency_token(position) }));
}

#[tokio::test]
async fn a_poll_without_a_wait_reads_up_to_the_head_of_the_log() {
    let fixture = fixture_with_chats(1).await;
    fixture.reads.block_subscriptions();
    let mut cursor = consistency_token(Position::START);
    for number in 1..=3 {
        let position = fixture.append(chat(1), vec![created(number, "Hi")]).await;
        let url = path(&format!("/chats/1/events?after={cursor}"));
        let reply = poll(&fixture, &url, "wait=0").await;
        cursor = consistency_token(position);
        assert_eq!(reply.body["events"][0]["data"]["message_number"], number);
        assert_eq!(reply.body["next"], cursor);
    }
    let reply = poll(&fixture, &path(&format!("/chats/1/events?after={cursor}")), "wait=0").await;
    assert_eq!(reply.body, json!({ "events": [], "next": cursor }));
}

#[tokio::test]
async fn a_long_backlog_comes_in_pages() {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 1_000, ..options });
    create_app_with_chats(&fixture, 1).await;
    fixture.append(chat(1), messages(1_200)).await;
    for number in 1_201..=1_240 {
        fixture.append(chat(1), vec![created(number, &"x".repeat(65_000))]).await;
    }
    let (mut next, mut numbers) = (consistency_token(Position::START), Vec::new());
    loop {
        let reply = poll(&fixture, &path(&format!("/chats/1/events?after={next}")), "wait=0").await;
        let events = reply.body["events"].as_array().unwrap();
        if events.is_empty() {
            break;
        }
        // A page ends after the batch with which it reaches 500 events or 1 MiB. A batch has at most 128 events.
        assert!(events.len() <= 628, "{} events", events.len());
        let bytes = reply.body.to_string().len();
        assert!(bytes <= 1_300_000, "{bytes} bytes");
        numbers.extend(events.iter().map(|event| event["data"]["message_number"].as_u64().unwrap()));
        next = reply.body["next"].as_str().unwrap().to_owned();
    }
    assert_eq!(numbers, (1..=1_240).collect::<Vec<_>>());
}

/// A step of a random test.
#[derive(Clone, Debug)]
enum Step {
    /// Messages are created: the chat's number, and the number of messages.
    Append(u64, u64),
    Rename,
    /// A follower reads events: the follower's index, and the highest number of events.
    Read(usize, usize),
    /// A follower's connection is cut. The follower reconnects when it reads next.
    Disconnect(usize),
    /// A follower closes its connection and polls once.
    Poll(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..=3_u64, 1..=8_u64).prop_map(|(chat, count)| Step::Append(chat, count)),
        1 => Just(Step::Rename),
        4 => (0..4_usize, 1..=12_usize).prop_map(|(follower, count)| Step::Read(follower, count)),
        2 => (0..4_usize).prop_map(Step::Disconnect),
        2 => (0..4_usize).prop_map(Step::Poll),
    ];
    prop::collection::vec(step, 1..60)
}

/// A client that follows a scope by streams and polls, across disconnects.
struct Follower {
    url: String,
    cursor: String,
    feed: Option<Feed>,
    seen: Vec<String>,
}

impl Follower {
    fn see(&mut self, id: String, data: &Value) {
        self.seen.push(label(data));
        self.cursor = id;
    }

    /// Reads up to `count` events. `appended` is the number of appended events that belong in the follower's feed.
    async fn read(&mut self, fixture: &Fixture, count: usize, appended: usize) {
        let wanted = (self.seen.len() + count).min(appended);
        while self.seen.len() < wanted {
            let feed = match &mut self.feed {
                Some(feed) => feed,
                none => none.insert(Feed::open(fixture, &self.url, Some(&self.cursor)).await),
            };
            match feed.event().await {
                Some((id, data)) => self.see(id, &data),
                // The follower had fallen behind, so its feed ended.
                None => self.feed = None,
            }
        }
    }

    async fn poll(&mut self, fixture: &Fixture) {
        self.feed = None;
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}after={}", self.url, self.cursor);
        let reply = poll(fixture, &url, "wait=0").await;
        for event in reply.body["events"].as_array().unwrap() {
            self.see(event["id"].as_str().unwrap().to_owned(), &event["data"]);
        }
        self.cursor = String::from(reply.body["next"].as_str().unwrap());
    }
}

async fn run(steps: Vec<Step>) {
    let fixture =
        Fixture::with_live_feed_options(|options| LiveFeedOptions { buffer_bytes: 6_000, ..options });
    create_app_with_chats(&fixture, 3).await;
    let mut followers: Vec<_> =
        ["/events", "/chats/1/events", "/chats/2/events", "/events?types=app.renamed"]
            .into_iter()
            .map(|rest| Follower {
                url: path(rest),
                cursor: consistency_token(Position::new(4)),
                feed: None,
                seen: Vec::new(),
            })
            .collect();
    // The labels that each follower must see. Followers 1 and 2 follow the chats with these numbers.
    let mut expected = [const { Vec::new() }; 4];
    // The number of the last message of each chat; index 0 is not used.
    let mut last_messages = [0_u64; 4];
    for step in steps {
        match step {
            Step::Append(in_chat, count) => {
                let last = &mut last_messages[usize::try_from(in_chat).unwrap()];
                let numbers = *last + 1..=*last + count;
                *last += count;
                let events = numbers.clone().map(|number| created(number, &number.to_string())).collect();
                fixture.append(chat(in_chat), events).await;
                let labels = numbers.map(|number| format!("{in_chat} {number}"));
                expected[0].extend(labels.clone());
                if in_chat <= 2 {
                    expected[usize::try_from(in_chat).unwrap()].extend(labels);
                }
            }
            Step::Rename => {
                fixture.append(app(), vec![app_renamed("renamed")]).await;
                expected[0].push("renamed".to_owned());
                expected[3].push("renamed".to_owned());
            }
            Step::Read(index, count) => {
                followers[index].read(&fixture, count, expected[index].len()).await;
            }
            Step::Disconnect(index) => followers[index].feed = None,
            Step::Poll(index) => followers[index].poll(&fixture).await,
        }
    }
    for (follower, expected) in followers.iter_mut().zip(expected) {
        follower.read(&fixture, usize::MAX / 2, expected.len()).await;
        assert_eq!(follower.seen, expected, "{}", follower.url);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_follower_sees_the_events_of_its_scope_once_and_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
