//! Tests that a rebuild that is killed repeatedly has the same result as an uninterrupted one.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated, MessageEdited};
use chat_domain::metadata::EventId;
use chat_domain::{
    AppName, AppToken, ChatNumber, DataChange, Event, ExpectedRevision, MessageBody, MessageNumber, Revision,
    StreamId, Timestamp,
};
use chat_ports::event_store::{EventStore, NewEvent, StreamAppend};
use chat_postgres::{PostgresEventStore, PostgresUrl};
use chat_sqlite::SqliteEventStore;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use crate::harness::deadline::eventually;
use crate::test_system::{TestSystem, Topology};

/// The number of times that a rebuild is killed, unless `KILL_ROUNDS` is set; 10 in `just soak`.
const DEFAULT_KILLS: u64 = 4;

/// While no kill has interrupted a rebuild that had stored something, at most this many kills are added.
const MAX_FURTHER_KILLS: u64 = 30;

/// The random delay before a kill has a maximum, which is adapted to the machine. This is the least value of that
/// maximum, in milliseconds.
const LEAST_MAX_DELAY_MILLIS: u64 = 40;

const CHATS: u64 = 20;

/// Fills a log with an app, its chats, and messages, some of which are edited.
pub async fn fill(system: &TestSystem) {
    let log: Arc<dyn EventStore> = if let Some(url) = system.event_store_url() {
        let url = PostgresUrl::parse(url).expect("a URL");
        Arc::new(PostgresEventStore::open(&url).await.expect("a log"))
    } else {
        let path = system.folder().join("events.db");
        let opened = tokio::task::spawn_blocking(move || SqliteEventStore::open(&path));
        Arc::new(opened.await.expect("its end").expect("a log"))
    };
    let app = AppToken::parse(&"k".repeat(36)).expect("a token");
    let name = AppName::parse("an app".to_owned()).expect("a name");
    let mut events: Vec<Event> = vec![AppCreated { name }.into()];
    let chats = (1..=CHATS).map(|number| ChatNumber::try_from(number).expect("a number"));
    events.extend(chats.clone().map(|chat_number| Event::from(ChatCreated { chat_number })));
    append(&*log, StreamId::App(app), &events).await;
    // Servers are slower than files, so they get fewer messages.
    let messages = if system.topology == Topology::Embedded { 600 } else { 400 };
    let body = |text: String| MessageBody::parse(text).expect("a text");
    for chat in chats {
        let mut events: Vec<Event> = Vec::new();
        for number in 1..=messages {
            let message_number = MessageNumber::try_from(number).expect("a number");
            let text = body(format!("message {number} of chat {chat}, with a few more words in it"));
            events.push(MessageCreated { message_number, body: text, sender: None, data: None }.into());
            if number.is_multiple_of(5) {
                events.push(
                    MessageEdited {
                        message_number,
                        body: body(format!("edited {number}")),
                        data: DataChange::Keep,
                    }
                    .into(),
                );
            }
        }
        append(&*log, StreamId::Chat(app, chat), &events).await;
    }
}

async fn append(log: &dyn EventStore, stream: StreamId, events: &[Event]) {
    let mut last = None;
    for chunk in events.chunks(500) {
        let events = chunk.iter().map(|event| NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            recorded_at: Timestamp::from_millis(1_790_000_000_000),
            data: event.payload(),
            metadata: "{}".into(),
        });
        let append = StreamAppend {
            stream: stream.to_string().into(),
            expected_revision: ExpectedRevision::from_last_revision(last.map(Revision::new)),
            events: events.collect(),
        };
        let appended = log.append(vec![append]).await.remove(0).expect("an append");
        last = Some(appended.revision.get());
    }
}

/// The projections that have generation 2, each with its position; 0 where the list has no position. There must be no
/// later generation.
fn rebuilt_positions(list: &Value) -> BTreeMap<String, u64> {
    let generations = list["data"]["generations"].as_array().expect("a list").iter();
    let rebuilt = generations.filter(|listed| listed["generation"] != 1);
    let positions = rebuilt.map(|listed| {
        assert_eq!(listed["generation"], 2, "a rebuild did not resume the one before: {list}");
        let projection = listed["projection"].as_str().expect("a projection");
        (projection.to_owned(), listed["position"].as_u64().unwrap_or(0))
    });
    positions.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_killed_repeatedly_has_the_digest_of_an_uninterrupted_one() {
    check_killed_rebuild(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_at_scale_that_is_killed_repeatedly_has_the_digest_of_an_uninterrupted_one() {
    check_killed_rebuild(Topology::AtScale).await;
}

async fn check_killed_rebuild(topology: Topology) {
    let mut system = TestSystem::start_engines(topology);
    fill(&system).await;
    // The live generation is built without an interruption. Later, only operator actions are appended.
    system.start_processes().await;
    let head = eventually("everything is folded", async || {
        let list = system.run_json(&["projections", "list"]).await;
        let folded = list["data"]["generations"].as_array()?.iter().all(|listed| listed["lag_ms"] == 0);
        folded.then(|| list["data"]["generations"][0]["head"].as_u64())?
    })
    .await;
    system.end_processes().await;

    let seed: u64 = std::env::var("KILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    let kills =
        std::env::var("KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(DEFAULT_KILLS);
    let mut random = StdRng::seed_from_u64(seed);
    let until = head.to_string();
    let rebuild = ["projections", "rebuild", "--all", "--until", &until, "--execute", "--reason", "killed"];
    let mut max_delay_millis = if topology == Topology::Embedded { 350 } else { 1_200 };
    // The number of kills, and how many of them interrupted a rebuild that had stored something.
    let (mut killed, mut interrupted) = (0, 0);
    let mut is_complete = false;
    let mut built_before = BTreeMap::new();
    // Rebuilds on servers may all be killed before they have stored anything.
    while killed < kills || (topology == Topology::Embedded && interrupted == 0) {
        assert!(
            killed < kills + MAX_FURTHER_KILLS,
            "no kill interrupted a rebuild that had stored something; KILL_SEED={seed}"
        );
        killed += 1;
        let mut command = system.command(&rebuild);
        if is_complete {
            command.arg("--from-scratch");
            built_before.clear();
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        sleep(Duration::from_millis(random.random_range(20..max_delay_millis))).await;
        let has_ended = child.try_wait().expect("its state").is_some();
        child.kill().expect("it can be killed");
        child.wait().expect("its end");
        let list = system.run_json(&["projections", "list"]).await;
        let built = rebuilt_positions(&list);
        for (projection, before) in built_before {
            let resumed = built.get(&projection).is_some_and(|folded| *folded >= before);
            assert!(resumed, "a rebuild of {projection} did not go on at {before}: {list}");
        }
        interrupted += usize::from(built.values().any(|folded| *folded > 0 && *folded < head));
        is_complete = built.len() == 2 && built.values().all(|folded| *folded >= head);
        if has_ended {
            max_delay_millis = (max_delay_millis / 2).max(LEAST_MAX_DELAY_MILLIS);
        } else if built.values().all(|folded| *folded == 0) {
            // The rebuild was killed before it stored anything: the machine is slow.
            max_delay_millis *= 2;
        }
        built_before = built;
    }

    let rebuild = ["projections", "rebuild", "--all", "--execute", "--reason", "left alone"];
    let response = system.run_json(&rebuild).await;
    assert_eq!(response["status"], "ok", "KILL_SEED={seed}: {response}");
    for comparison in response["data"]["comparisons"].as_array().expect("comparisons") {
        assert_eq!(comparison["live_digest"], comparison["other_digest"], "{comparison}");
        assert_eq!((comparison["live"].as_u64(), comparison["other"].as_u64()), (Some(1), Some(2)));
        assert_eq!(comparison["differing"], 0);
    }
    assert_eq!(response["data"]["comparisons"].as_array().map(Vec::len), Some(2));
}
