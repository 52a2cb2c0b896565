//! Clients that follow the live feed while faults are injected or queries switch over. In the end each must have
//! seen exactly the events of its scope, in the order of the log, each once.
//!
//! They lose their connections at random, read slowly at times, keep their cursors in files, and reconnect to any
//! process that answers queries, as a stream of server-sent events or as a long poll.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::harness::api::{app_path, chat_path};
use crate::harness::process::program;

/// The pause of a follower after a failed connection.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// The time without an answer after which a follower gives a connection up. On an idle stream, the server sends a
/// comment every 15 seconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// The events that a follower wants.
#[derive(Clone, Debug)]
struct Scope {
    app: String,
    /// `None`: the whole app.
    chat: Option<u64>,
    /// `None`: all types.
    types: Option<&'static [&'static str]>,
    /// `None`: messages of all senders, and events that concern no message.
    sender: Option<&'static str>,
}

/// Followers of a round, while it runs.
pub struct Followers {
    tasks: JoinSet<Follower>,
    target: watch::Sender<Option<u64>>,
    // Removed last, when all followers have ended.
    _cursors: TempDir,
}

struct Follower {
    scope: Scope,
    urls: Arc<[String]>,
    random: StdRng,
    /// The file that holds the cursor.
    cursor: PathBuf,
    /// The cursor after which the follower began.
    start: String,
    /// The ids and types of the events, in the order in which they came.
    seen: Vec<(String, String)>,
    connections: u64,
    /// The position at which the follower ends, once it is known.
    target: watch::Receiver<Option<u64>>,
}

/// The reason why a connection failed.
type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

impl Followers {
    /// Starts `count` followers, each of the whole app or of one of these chats of it. Some begin at `token`, the
    /// others at the start of the log.
    pub fn start(count: u64, urls: Vec<String>, app: &str, chats: &[u64], token: &str, seed: u64) -> Self {
        let cursors = crate::harness::deployment::folder();
        let urls: Arc<[String]> = urls.into();
        let target = watch::Sender::new(None);
        let (tag, _) = token.rsplit_once('.').expect("a token with a position");
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let mut random = StdRng::seed_from_u64(seed ^ number);
            let chat = random.random_ratio(1, 2).then(|| chats[random.random_range(0..chats.len())]);
            let changes: &[&str] = match chat {
                Some(_) => &["message.edited", "message.deleted"],
                None => &["message.edited", "message.deleted", "chat.created", "app.renamed"],
            };
            let types = [None, None, Some(&["message.created"] as &[&str]), Some(changes)];
            let types = types[random.random_range(0..types.len())];
            let sender = random.random_ratio(1, 5).then_some("client-1");
            let start = if random.random_ratio(1, 2) { token.to_owned() } else { format!("{tag}.0") };
            let cursor = cursors.path().join(number.to_string());
            fs::write(&cursor, &start).expect("a cursor");
            let follower = Follower {
                scope: Scope { app: app.to_owned(), chat, types, sender },
                urls: Arc::clone(&urls),
                random,
                cursor,
                start,
                seen: Vec::new(),
                connections: 0,
                target: target.subscribe(),
            };
            tasks.spawn(follower.run());
        }
        Self { tasks, target, _cursors: cursors }
    }

    /// Waits until all followers have reached a position, compares what each has seen with the log, and returns a
    /// summary.
    pub async fn check(self, target: u64, log: &ExportedLog) -> String {
        self.target.send_replace(Some(target));
        let (mut followers, mut events, mut connections) = (0, 0, 0);
        for follower in self.tasks.join_all().await {
            let expected = log.events(&follower.scope, position(&follower.start), target);
            let mut pairs = follower.seen.iter().zip(&expected);
            let first_difference = pairs.position(|(seen_event, logged_event)| seen_event != logged_event);
            assert!(
                follower.seen == expected,
                "{:?} after {}: saw {} events, the log has {}; they first differ at index {first_difference:?}",
                follower.scope,
                follower.start,
                follower.seen.len(),
                expected.len(),
            );
            followers += 1;
            events += expected.len();
            connections += follower.connections;
        }
        assert!(events > 0, "no follower has seen an event");
        format!(
            "{followers} followers have seen {events} events over {connections} connections, each event once"
        )
    }
}

impl Follower {
    async fn run(mut self) -> Self {
        while !self.is_done() {
            self.connections += 1;
            let has_target = self.target.borrow().is_some();
            // Once the target is known, the follower only polls. The answer to a poll has a cursor past the events that
            // the filter leaves out, so the follower needs no heartbeat of a stream to reach the target.
            let followed = if has_target || self.random.random_ratio(1, 4) {
                self.poll().await
            } else {
                self.stream().await
            };
            if followed.is_err() {
                sleep(FAILURE_PAUSE).await;
            }
        }
        self
    }

    fn is_done(&self) -> bool {
        self.target.borrow().is_some_and(|target| position(&self.read_cursor()) >= target)
    }

    fn read_cursor(&self) -> String {
        fs::read_to_string(&self.cursor).expect("a cursor")
    }

    /// Stores `id` as the cursor. With an event type, `id` is that of an event, which is recorded as seen.
    fn record(&mut self, id: &str, event_type: Option<&str>) {
        if let Some(event_type) = event_type {
            self.seen.push((id.to_owned(), event_type.to_owned()));
        }
        fs::write(&self.cursor, id).expect("a cursor");
    }

    /// Follows a stream of server-sent events until it breaks, a random time is over, or the target is known.
    async fn stream(&mut self) -> Result<(), ConnectionError> {
        let mut target = self.target.clone();
        let lifetime = Duration::from_millis(self.random.random_range(50..5_000));
        let pause =
            self.random.random_ratio(1, 8).then(|| Duration::from_millis(self.random.random_range(5..50)));
        let reading = async {
            let mut body = self.get("text/event-stream", "wait=0").await?;
            let mut text = BytesMut::new();
            while let Some(frame) = timeout(SILENCE_LIMIT, body.frame()).await? {
                text.extend_from_slice(&frame?.into_data().unwrap_or_default());
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let block = String::from_utf8(text[..end].to_vec())?;
                    text.advance(end + 2);
                    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                    if let Some(id) = field("id: ") {
                        self.record(id, field("event: "));
                    }
                }
                if let Some(pause) = pause {
                    sleep(pause).await;
                }
            }
            Ok(())
        };
        // Dropping `reading` between two frames closes the connection, like a client whose network fails.
        tokio::select! {
            ended = reading => ended,
            () = sleep(lifetime) => Ok(()),
            _ = target.wait_for(Option::is_some) => Ok(()),
        }
    }

    /// Asks once for the next events.
    async fn poll(&mut self) -> Result<(), ConnectionError> {
        let body = timeout(SILENCE_LIMIT, async {
            Ok::<_, ConnectionError>(self.get("application/json", "wait=1").await?.collect().await?)
        });
        let page: Value = serde_json::from_slice(&body.await??.to_bytes())?;
        for event in page["events"].as_array().ok_or("no events")? {
            self.record(event["id"].as_str().expect("an id"), Some(event["event"].as_str().expect("a type")));
        }
        let next = page["next"].as_str().expect("a cursor").to_owned();
        self.record(&next, None);
        Ok(())
    }

    /// Requests the events after the cursor from a random process.
    async fn get(&mut self, accept: &str, prefer: &str) -> Result<Incoming, ConnectionError> {
        let url = self.urls[self.random.random_range(0..self.urls.len())].clone();
        let address = url.strip_prefix("http://").expect("an address");
        let (mut requests, connection) =
            http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        tokio::spawn(connection);
        let Scope { app, chat, types, sender } = &self.scope;
        let path = chat.map_or_else(|| app_path(app), |chat| chat_path(app, chat));
        let types = types.map(|types| format!("&types={}", types.join(","))).unwrap_or_default();
        let filter = types + &sender.map(|sender| format!("&sender={sender}")).unwrap_or_default();
        let cursor = self.read_cursor();
        // Browsers repeat the URL when they reconnect, and name the last event in a header.
        let request = if self.random.random_ratio(1, 2) {
            Request::get(format!("{path}/events?after={}{filter}", self.start))
                .header("last-event-id", &cursor)
        } else {
            Request::get(format!("{path}/events?after={cursor}{filter}"))
        };
        let request = request.header("host", address).header("accept", accept).header("prefer", prefer);
        let response =
            timeout(SILENCE_LIMIT, requests.send_request(request.body(Empty::<Bytes>::new())?)).await??;
        match response.status().as_u16() {
            200 => Ok(response.into_body()),
            503 => Err("refused".into()),
            status => {
                let body = response.into_body().collect().await?.to_bytes();
                panic!("{path} after {cursor} answered {status}: {}", String::from_utf8_lossy(&body));
            }
        }
    }
}

/// The events of the log that belong in live feeds, read with `audit export`.
pub struct ExportedLog {
    tag: String,
    by_app: BTreeMap<String, Vec<LoggedEvent>>,
}

struct LoggedEvent {
    position: u64,
    chat: Option<u64>,
    /// The type that the event has in the live feed.
    event_type: &'static str,
    /// The sender of the message.
    sender: Option<String>,
}

impl ExportedLog {
    /// Reads the log that these flags name. `token` is any consistency token of the log.
    pub fn read(flags: &[String], token: &str) -> Self {
        let mut command = program();
        command.args(["audit", "export", "--format", "jsonl"]).args(flags);
        let Output { status, stdout, stderr } = command.output().expect("the program runs");
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let mut by_app: BTreeMap<String, Vec<LoggedEvent>> = BTreeMap::new();
        let mut senders: BTreeMap<(String, u64), String> = BTreeMap::new();
        for line in String::from_utf8(stdout).expect("UTF-8").lines() {
            let event: Value = serde_json::from_str(line).expect("an event");
            let stream = event["stream"].as_str().expect("a stream");
            let event_type = match event["type"].as_str().expect("a type") {
                "MessageCreated" => "message.created",
                "MessageEdited" => "message.edited",
                "MessageDeleted" => "message.deleted",
                "ChatCreated" => "chat.created",
                "AppRenamed" => "app.renamed",
                _ => continue,
            };
            let (app, chat) = match stream.strip_prefix("chat-").and_then(|chat| chat.split_once('-')) {
                Some((app, chat)) => (app, Some(chat.parse().expect("a number"))),
                None => (stream.strip_prefix("app-").expect("a stream of an app"), None),
            };
            let position = event["position"].as_u64().expect("a position");
            let message = event["data"]["message_number"].as_u64().map(|number| (stream.to_owned(), number));
            if let (Some(message), Some(sender)) = (&message, event["data"]["sender"]["id"].as_str()) {
                senders.insert(message.clone(), sender.to_owned());
            }
            let sender = message.and_then(|message| senders.get(&message).cloned());
            by_app.entry(app.to_owned()).or_default().push(LoggedEvent {
                position,
                chat,
                event_type,
                sender,
            });
        }
        let (tag, _) = token.rsplit_once('.').expect("a token with a position");
        Self { tag: tag.to_owned(), by_app }
    }

    /// The ids and types of a scope's events after position `after`, up to and including position `up_to`.
    fn events(&self, scope: &Scope, after: u64, up_to: u64) -> Vec<(String, String)> {
        let events = self.by_app.get(&scope.app).map(Vec::as_slice).unwrap_or_default();
        events
            .iter()
            .filter(|event| event.position > after && event.position <= up_to)
            .filter(|event| scope.chat.is_none() || scope.chat == event.chat)
            .filter(|event| scope.types.is_none_or(|types| types.contains(&event.event_type)))
            .filter(|event| scope.sender.is_none() || scope.sender == event.sender.as_deref())
            .map(|event| (format!("{}.{}", self.tag, base36(event.position)), event.event_type.to_owned()))
            .collect()
    }
}

/// The position in a token.
pub fn position(token: &str) -> u64 {
    let (_, position) = token.trim().rsplit_once('.').expect("a token with a position");
    u64::from_str_radix(position, 36).expect("a number to base 36")
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).expect("a digit");
        digits.push(char::from_digit(digit, 36).expect("a digit"));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
