//! Clients that write and read without a pause, and fail on a missing message, on a response older than an earlier one,
//! and on an error.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chat_domain::Position;
use chat_web::consistency::ConsistencyToken;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::api::{app_path, chat_path, create_app, message_path, number};
use crate::harness::client::{Call, Client, Reply};

/// The number of chats that are written to and read.
pub const CHATS: u64 = 3;

/// Running clients.
pub struct ConsistencyChecker {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
    /// The token of the app that is written to.
    pub app: String,
}

/// The numbers of messages that were created, of lists that were read, and of searches.
#[derive(Debug, Default)]
pub struct Counts {
    pub written: AtomicU64,
    pub read: AtomicU64,
    pub searched: AtomicU64,
}

impl ConsistencyChecker {
    /// Starts six workers for each of `readers`, the clients of the processes that answer queries: two write, two list,
    /// and two search.
    pub async fn start(readers: &[Client]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let token = create_app(&readers[0], "checked").await;
        let path = format!("{}/chats", app_path(&token));
        for _ in 0..CHATS {
            let created = readers[0].post(&path, &json!({})).send().await.expect(201);
            for reader in readers {
                let chat = chat_path(&token, number(&created.json(), "chat_number"));
                reader.get(chat).after(&created).send().await.expect(200);
            }
        }
        let mut clients = Vec::new();
        let mut add = |index: usize, client: &Client, task: fn(Worker) -> JoinHandle<()>| {
            clients.push(task(Worker {
                client: client.clone(),
                token: token.clone(),
                index: index as u64,
                stop: Arc::clone(&stop),
                counts: Arc::clone(&counts),
            }));
        };
        for (index, client) in readers.iter().enumerate() {
            add(index, client, |worker| tokio::spawn(worker.write()));
            add(index, client, |worker| tokio::spawn(worker.write()));
            add(index, client, |worker| tokio::spawn(worker.list()));
            add(index, client, |worker| tokio::spawn(worker.list()));
            add(index, client, |worker| tokio::spawn(worker.search()));
            add(index, client, |worker| tokio::spawn(worker.search()));
        }
        Self { stop, counts, clients, app: token }
    }

    /// Returns the numbers so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Stops the clients, and returns the token of their app. Fails the test if a client has failed.
    pub async fn stop(self) -> String {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("a client without failures");
        }
        self.app
    }
}

struct Worker {
    client: Client,
    /// The token of the app that is written to.
    token: String,
    /// The index of the process that this client queries. The worker begins with a chat that depends on the index.
    index: u64,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

/// Returns the position of a response.
fn position(reply: &Reply) -> Position {
    let token: ConsistencyToken = reply.header("consistency-token").parse().expect("a token");
    token.position()
}

/// The newest position of the responses that one client checked. No later response may have an earlier position.
#[derive(Default)]
struct MonotonicPosition(Position);

impl MonotonicPosition {
    fn check(&mut self, reply: &Reply) {
        let position = position(reply);
        assert!(position >= self.0, "{} {} is at {position} after {}", reply.method, reply.path, self.0);
        self.0 = position;
    }
}

impl Worker {
    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Creates a query without a token. It may wait for ten seconds, the maximum: a query during a switch-over waits
    /// for the position of an earlier response.
    fn get(&self, path: String) -> Call<'_> {
        self.client.get(path).header("prefer", "wait=10")
    }

    /// Creates messages and edits some of them. Reads each one with the token of its creation or edit.
    async fn write(self) {
        let mut chat = self.index % CHATS + 1;
        let mut newest_position = MonotonicPosition::default();
        while self.is_running() {
            let path = format!("{}/messages", chat_path(&self.token, chat));
            let created =
                self.client.post(path, &json!({ "body": "a message of a checker" })).send().await.expect(201);
            let message = number(&created.json(), "message_number");
            self.counts.written.fetch_add(1, Ordering::SeqCst);
            let path = message_path(&self.token, chat, message);
            let read = self.client.get(&path).after(&created).send().await.expect(200);
            assert!(position(&read) >= position(&created), "the response is older than the token");
            newest_position.check(&read);
            if message.is_multiple_of(7) {
                let edited = self.client.put(&path, &json!({ "body": "edited by a checker" })).send().await;
                let edited = edited.expect(200);
                let read = self.client.get(&path).after(&edited).send().await.expect(200);
                assert_eq!(read.json()["body"], "edited by a checker");
            }
            chat = chat % CHATS + 1;
        }
    }

    /// Lists messages without a token, and reads an older message of the same chat.
    async fn list(self) {
        let mut newest: HashMap<u64, u64> = HashMap::new();
        let mut newest_position = MonotonicPosition::default();
        let mut chat = self.index % CHATS + 1;
        while self.is_running() {
            let path = format!("{}/messages?limit=10", chat_path(&self.token, chat));
            let listed = self.get(path).send().await.expect(200);
            newest_position.check(&listed);
            let messages = listed.json()["messages"].as_array().expect("messages").clone();
            let numbers: Vec<u64> =
                messages.iter().map(|message| number(message, "message_number")).collect();
            let last = numbers.last().copied().unwrap_or(0);
            assert!(
                numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                "a number is missing in {numbers:?}"
            );
            let before = newest.insert(chat, last).unwrap_or(0);
            assert!(last >= before, "message {before} was the newest, and now it is {last}");
            if let Some(earlier) = last.checked_sub(last / 3).filter(|earlier| *earlier > 0) {
                let path = message_path(&self.token, chat, earlier);
                newest_position.check(&self.get(path).send().await.expect(200));
            }
            self.counts.read.fetch_add(1, Ordering::SeqCst);
            chat = chat % CHATS + 1;
        }
    }

    /// Searches without a token. The number of hits must never fall.
    async fn search(self) {
        let mut newest_position = MonotonicPosition::default();
        let mut total = 0;
        while self.is_running() {
            let path = format!(
                "{}/messages/search?query=checker&sort=newest&limit=1&track_total=1000000",
                app_path(&self.token)
            );
            let found = self.get(path).send().await.expect(200);
            newest_position.check(&found);
            let now = number(&found.json(), "total");
            assert!(now >= total, "{total} messages were found, and now {now}");
            total = now;
            self.counts.searched.fetch_add(1, Ordering::SeqCst);
        }
    }
}
