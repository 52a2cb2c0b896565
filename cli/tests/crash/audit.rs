//! Compares what the server has stored with the responses that clients got.
//!
//! An audit settles the outcome of each uncertain command: stored or not stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chat_web::consistency::ConsistencyToken;

use crate::harness::api::{app_path, chat_path, create_app, create_chat, create_message, number};
use crate::harness::client::{Client, Reply};
use crate::harness::deadline::eventually;
use crate::ledger::{App, Change, Chat, Ledger, Message};

/// Counts of the checked chats and messages, the messages in the ledger, and the uncertain outcomes that were settled.
pub struct AuditSummary {
    chats: usize,
    messages: usize,
    known_messages: usize,
    settled: usize,
    /// The position of the last event.
    pub head: u64,
}

impl fmt::Display for AuditSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chats, messages, known_messages, settled, .. } = self;
        write!(
            f,
            "{messages} messages in {chats} chats as acknowledged, {settled} uncertain outcomes settled; "
        )?;
        write!(f, "{known_messages} messages in the ledger")
    }
}

/// Checks the chats that were written to since the last check, their apps, and apps with uncertain outcomes; all apps
/// and chats if `everything`.
pub async fn check(client: &Client, ledger: &mut Ledger, everything: bool) -> AuditSummary {
    let latest = execute_marker_command(client).await;
    let head: ConsistencyToken = latest.header("consistency-token").parse().expect("a token");
    let head = head.position().get();
    let mut audited = AuditSummary { chats: 0, messages: 0, known_messages: 0, settled: 0, head };
    let mut written_chats = std::mem::take(&mut ledger.written_chats);
    for (token, app) in &mut ledger.apps {
        let is_uncertain = app.uncertain_chats > 0 || !app.uncertain_names.is_empty();
        if everything || is_uncertain || written_chats.iter().any(|(written_app, _)| written_app == token) {
            audited.settled += check_app(client, &latest, token, app).await;
        }
        if everything {
            written_chats.extend(app.chats.keys().map(|chat| (token.clone(), *chat)));
        }
    }
    for (token, number) in written_chats {
        let chat = ledger.app(&token).chats.get_mut(&number).expect("a known chat");
        let listed = list_messages(client, &latest, &token, number).await;
        audited.chats += 1;
        audited.messages += listed.len();
        audited.settled += check_chat(chat, listed, &format!("chat {number}"));
    }
    audited.known_messages = ledger.known_messages();
    audited
}

/// Creates a message, and waits until the read model and the search index have folded it. Queries with the consistency
/// token of the returned response see everything that was stored before that message.
async fn execute_marker_command(client: &Client) -> Reply {
    let token = create_app(client, "audit marker").await;
    let chat = create_chat(client, &token).await;
    let reply = create_message(client, &token, chat, "audit marker").await;
    get(client, &format!("{}/messages/search?query=x", app_path(&token)), &reply).await;
    get(client, &app_path(&token), &reply).await;
    reply
}

/// Sends a query with the consistency token of `latest`, and repeats it while it is refused for now: projections may
/// still be recovering from a fault.
async fn get(client: &Client, path: &str, latest: &Reply) -> Reply {
    let reply = eventually(&format!("GET {path} is answered"), async || {
        let reply = client.get(path).after(latest).send().await;
        (reply.status != 503).then_some(reply)
    })
    .await;
    reply.expect(200)
}

/// Checks the name and the chats of an app. Returns the number of uncertain outcomes that this settled.
async fn check_app(client: &Client, latest: &Reply, token: &str, app: &mut App) -> usize {
    let read = get(client, &app_path(token), latest).await.json();
    let name = read["name"].as_str().expect("a name").to_owned();
    let settled = app.uncertain_names.len() + app.uncertain_chats;
    let uncertain = std::mem::take(&mut app.uncertain_names);
    assert!(
        name == app.name || uncertain.contains(&name),
        "the name is {name}, but {} was acknowledged",
        app.name
    );
    app.name = name;

    let count = number(&read, "chat_count");
    let known = app.chats.len() as u64;
    let possible = known..=known + std::mem::take(&mut app.uncertain_chats) as u64;
    assert!(possible.contains(&count), "{count} chats exist, but {possible:?} were created");
    let listed = list_chats(client, latest, token).await;
    let numbers: Vec<u64> = (1..=count).collect();
    assert_eq!(listed, numbers, "the numbers of chats have a gap or a duplicate");
    for number in &numbers {
        app.chats.entry(*number).or_default();
    }
    assert_eq!(app.chats.len() as u64, count, "an acknowledged chat does not exist");
    settled
}

async fn list_chats(client: &Client, latest: &Reply, token: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut next = Some(format!("{}/chats?limit=100", app_path(token)));
    while let Some(path) = next {
        let page = get(client, &path, latest).await;
        let body = page.json();
        numbers
            .extend(body["chats"].as_array().expect("chats").iter().map(|chat| number(chat, "chat_number")));
        next = page.links().remove("next");
    }
    numbers
}

/// Lists the messages of a chat, and checks that `message_count` is their number.
async fn list_messages(client: &Client, latest: &Reply, token: &str, chat: u64) -> Vec<(u64, String)> {
    let read = get(client, &chat_path(token, chat), latest).await.json();
    let mut listed = Vec::new();
    let mut next = Some(format!("{}/messages?limit=100&after=0", chat_path(token, chat)));
    while let Some(path) = next {
        let page = get(client, &path, latest).await;
        for message in page.json()["messages"].as_array().expect("messages") {
            let body = message["body"].as_str().expect("a body").to_owned();
            listed.push((number(message, "message_number"), body));
        }
        next = page.links().remove("next");
    }
    assert_eq!(
        number(&read, "message_count"),
        listed.len() as u64,
        "message_count of chat {chat} differs from the number of its messages"
    );
    listed
}

/// Checks a chat against the list of its messages. Returns the number of uncertain outcomes that this settled.
fn check_chat(chat: &mut Chat, listed: Vec<(u64, String)>, label: &str) -> usize {
    assert!(
        listed.is_sorted_by(|previous, next| previous.0 < next.0),
        "{label}: messages are out of order, or a number occurs twice"
    );
    let bodies: BTreeSet<&String> = listed.iter().map(|(_, body)| body).collect();
    assert_eq!(bodies.len(), listed.len(), "{label}: a message exists twice");

    let listed: BTreeMap<u64, String> = listed.into_iter().collect();
    let mut settled = 0;
    for (number, message) in &mut chat.messages {
        settled += usize::from(message.uncertain.is_some());
        check_message(message, listed.get(number), &format!("{label}, message {number}"));
    }
    settled += chat.uncertain.len();
    let mut uncertain = std::mem::take(&mut chat.uncertain);
    for (number, body) in &listed {
        if chat.messages.contains_key(number) {
            continue;
        }
        assert!(uncertain.remove(body), "{label}, message {number}: {body:?} was never posted here");
        chat.messages.insert(*number, Message::new(body.clone()));
    }
    // Deleted messages are not listed, but their numbers are known: only acknowledged messages are deleted.
    let numbers: Vec<u64> = chat.messages.keys().copied().collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "{label}: numbers have a gap");
    settled
}

fn check_message(message: &mut Message, listed: Option<&String>, label: &str) {
    // The body that the uncertain change would leave: `Some(None)` if it is a deletion. `None` without such a change.
    let possible = match message.uncertain.take() {
        None => None,
        Some(Change::Edit(body)) => Some(Some(body)),
        Some(Change::Delete) => Some(None),
    };
    let found = listed.cloned();
    let is_expected = found == message.body || possible.as_ref() == Some(&found);
    assert!(
        is_expected,
        "{label}: found {found:?}; {:?} was acknowledged, and {possible:?} may have been stored",
        message.body
    );
    message.body = found;
}
