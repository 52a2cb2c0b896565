//! Clients that write until the server is killed or a stop is requested, and record the outcomes in a ledger.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::api::{API, app_path, chat_path, create_app, create_chat, message_path, number};
use crate::harness::client::{Call, Client, Reply, RequestError};
use crate::ledger::{App, Change, Chat, Ledger, Message};

const LOAD_CLIENTS: u64 = 8;
const CHATS: u64 = 3;

/// The pause of a client after a failed request.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// The condition on which the clients of the load stop.
#[derive(Clone, Debug)]
pub enum StopCondition {
    /// Stop at the first request that could not be sent or whose outcome is unknown.
    ServerGone,
    /// Stop when the value becomes `true`.
    Signaled(watch::Receiver<bool>),
}

/// Creates an app, and starts the clients of the load, which write to it, and less often to all other apps of the
/// ledger. Each of their requests goes through one of `clients`, chosen at random. Returns the token of the new app,
/// and the tasks of the load's clients.
pub async fn start(
    clients: &[Client],
    ledger: &Arc<Mutex<Ledger>>,
    round: u64,
    seed: u64,
    until: &StopCondition,
) -> (String, JoinSet<()>) {
    let client = &clients[0];
    let token = create_app(client, &format!("round {round}")).await;
    let mut app = App::new(format!("round {round}"));
    for _ in 0..CHATS {
        app.chats.insert(create_chat(client, &token).await, Chat::default());
    }
    ledger.lock().await.apps.insert(token.clone(), app);

    let mut load_clients = JoinSet::new();
    for index in 0..LOAD_CLIENTS {
        let load_client = LoadClient {
            client: client.clone(),
            clients: clients.to_vec(),
            until: until.clone(),
            ledger: Arc::clone(ledger),
            random: StdRng::seed_from_u64(seed ^ index),
            round_app: token.clone(),
            own_messages: Vec::new(),
            latest: None,
            name: format!("round {round} client {index}"),
            written: 0,
        };
        load_clients.spawn(load_client.run());
    }
    (token, load_clients)
}

/// The reason why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendFailure {
    /// Refused for now: this request executed nothing.
    Refused,
    /// The server can't be reached.
    NotSent,
    /// The outcome is unknown.
    Lost,
}

async fn send(call: Call<'_>) -> Result<Reply, SendFailure> {
    let reply = call.try_send().await.map_err(|error| match error {
        RequestError::NotSent(_) => SendFailure::NotSent,
        RequestError::Lost(_) => SendFailure::Lost,
    })?;
    match reply.status.as_u16() {
        200 | 201 | 204 => Ok(reply),
        503 if reply.code() == "outcome_unknown" => Err(SendFailure::Lost),
        503 => Err(SendFailure::Refused),
        409 if reply.code() == "idempotency_in_flight" => Err(SendFailure::Refused),
        status => panic!("{} {} answered {status}: {:?}", reply.method, reply.path, reply.body),
    }
}

/// A client of the load: sends one request after another.
struct LoadClient {
    /// The HTTP client of the current request, chosen at random from `clients`.
    client: Client,
    clients: Vec<Client>,
    until: StopCondition,
    ledger: Arc<Mutex<Ledger>>,
    random: StdRng,
    /// The token of the app that this round began with.
    round_app: String,
    /// The messages that this client created and may change: app token, chat number and message number. No other client
    /// changes them.
    own_messages: Vec<(String, u64, u64)>,
    /// The response to the latest creation or edit of a message. Its consistency token covers all changes of
    /// `own_messages`.
    latest: Option<Reply>,
    name: String,
    /// The number of texts that this client has made.
    written: u64,
}

impl LoadClient {
    async fn run(mut self) {
        loop {
            if matches!(&self.until, StopCondition::Signaled(stop) if *stop.borrow()) {
                return;
            }
            self.client = self.clients[self.random.random_range(0..self.clients.len())].clone();
            let started = Instant::now();
            let step = match self.random.random_range(0..100) {
                0..2 => self.create_app().await,
                2..6 => self.rename_app().await,
                6..12 => self.create_chat().await,
                12..22 => self.edit().await,
                22..28 => self.delete().await,
                28..36 => self.read_own_message().await,
                _ => self.create_message().await,
            };
            match (step, &self.until) {
                (Ok(()), _) => self.ledger.lock().await.record_duration(started.elapsed()),
                (Err(SendFailure::NotSent | SendFailure::Lost), StopCondition::ServerGone) => return,
                (Err(_), _) => sleep(FAILURE_PAUSE).await,
            }
        }
    }

    /// The sender of this client's messages: `client-1`, `client-3` and so on, `None` if the client's number is even.
    fn sender(&self) -> Option<String> {
        let (_, number) = self.name.rsplit_once(' ').expect("a number");
        let number: u64 = number.parse().expect("a number");
        (number % 2 == 1).then(|| format!("client-{number}"))
    }

    fn text(&mut self) -> String {
        self.written += 1;
        format!("{} text {}", self.name, self.written)
    }

    /// Returns the token of an app: usually `round_app`, sometimes any app of the ledger.
    async fn any_app(&mut self) -> String {
        if self.random.random_ratio(9, 10) {
            return self.round_app.clone();
        }
        let ledger = self.ledger.lock().await;
        let index = self.random.random_range(0..ledger.apps.len());
        ledger.apps.keys().nth(index).expect("an app").clone()
    }

    async fn create_app(&mut self) -> Result<(), SendFailure> {
        let name = self.text();
        // An app whose response is lost can't be found again, because its token is unknown.
        let reply = send(self.client.post(format!("{API}/apps"), &json!({ "name": name }))).await?;
        let token = reply.json()["data"]["app_token"].as_str().expect("a token").to_owned();
        self.ledger.lock().await.apps.insert(token, App::new(name));
        Ok(())
    }

    async fn rename_app(&mut self) -> Result<(), SendFailure> {
        // Only the first client renames. If several did, the last name would be unknown.
        if !self.name.ends_with(" client 0") {
            return Ok(());
        }
        let name = self.text();
        let token = self.round_app.clone();
        let outcome = send(self.client.put(app_path(&token), &json!({ "name": name }))).await;
        let mut ledger = self.ledger.lock().await;
        let app = ledger.app(&token);
        match outcome {
            Ok(_) => app.name = name,
            Err(SendFailure::Lost) => app.uncertain_names.push(name),
            Err(_) => {}
        }
        outcome.map(drop)
    }

    async fn create_chat(&mut self) -> Result<(), SendFailure> {
        let token = self.any_app().await;
        let outcome = send(self.client.post(format!("{}/chats", app_path(&token)), &json!({}))).await;
        let mut ledger = self.ledger.lock().await;
        let app = ledger.app(&token);
        match &outcome {
            Ok(reply) => {
                let chat = number(&reply.json(), "chat_number");
                assert!(app.chats.insert(chat, Chat::default()).is_none(), "chat {chat} was assigned twice");
            }
            Err(SendFailure::Lost) => app.uncertain_chats += 1,
            Err(_) => {}
        }
        outcome.map(drop)
    }

    async fn create_message(&mut self) -> Result<(), SendFailure> {
        let token = self.any_app().await;
        let chat = {
            let mut ledger = self.ledger.lock().await;
            let chats: Vec<u64> = ledger.app(&token).chats.keys().copied().take(5).collect();
            if chats.is_empty() {
                return Ok(());
            }
            chats[self.random.random_range(0..chats.len())]
        };
        let body = self.text();
        let path = format!("{}/messages", chat_path(&token, chat));
        let mut message = json!({ "body": body });
        if let Some(sender) = self.sender() {
            message["sender"] = json!({ "id": sender });
        }
        let outcome = if self.random.random_ratio(1, 2) {
            self.post_until_answered(path, &message).await
        } else {
            send(self.client.post(path, &message)).await
        };
        let mut ledger = self.ledger.lock().await;
        let known_chat = ledger.mark_written(&token, chat);
        match &outcome {
            Ok(reply) => {
                let message = number(&reply.json(), "message_number");
                self.latest = Some(reply.clone());
                let previous = known_chat.messages.insert(message, Message::new(body));
                assert!(previous.is_none(), "message {message} was assigned twice: {previous:?}");
                self.own_messages.push((token, chat, message));
            }
            Err(SendFailure::Lost) => drop(known_chat.uncertain.insert(body)),
            Err(_) => {}
        }
        outcome.map(drop)
    }

    /// Posts with an idempotency key, and repeats the request until a response gives its outcome or the client must
    /// stop. Any command API may give that response.
    async fn post_until_answered(&mut self, path: String, body: &Value) -> Result<Reply, SendFailure> {
        let key = format!("{:032x}", self.random.random::<u128>());
        let mut may_be_stored = false;
        loop {
            let call = self.client.post(path.clone(), body).header("idempotency-key", &key);
            let failure = match send(call).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            may_be_stored |= failure == SendFailure::Lost;
            let gives_up = match &self.until {
                StopCondition::ServerGone => failure != SendFailure::Refused,
                StopCondition::Signaled(stop) => *stop.borrow(),
            };
            if gives_up {
                return Err(if may_be_stored { SendFailure::Lost } else { failure });
            }
            sleep(FAILURE_PAUSE).await;
            self.client = self.clients[self.random.random_range(0..self.clients.len())].clone();
        }
    }

    /// Reads a message that this client created, with the consistency token of `latest`.
    async fn read_own_message(&mut self) -> Result<(), SendFailure> {
        let Some(latest) = self.latest.clone().filter(|_| !self.own_messages.is_empty()) else {
            return Ok(());
        };
        let index = self.random.random_range(0..self.own_messages.len());
        let (token, chat, message) = self.own_messages[index].clone();
        let path = message_path(&token, chat, message);
        let read = self.client.get(path.clone()).after(&latest).try_send().await;
        let read = read.map_err(|_| SendFailure::NotSent)?;
        if read.status == 503 {
            return Err(SendFailure::Refused);
        }
        let body = read.expect(200).json()["body"].as_str().expect("a body").to_owned();
        let mut ledger = self.ledger.lock().await;
        let known_chat = ledger.app(&token).chats.get_mut(&chat).expect("a known chat");
        // `own_messages` holds no message with an uncertain change.
        assert_eq!(
            Some(body),
            known_chat.messages[&message].body,
            "{path}: the client's own change is not visible"
        );
        Ok(())
    }

    async fn edit(&mut self) -> Result<(), SendFailure> {
        if self.own_messages.is_empty() {
            return Ok(());
        }
        let index = self.random.random_range(0..self.own_messages.len());
        let (token, chat, message) = self.own_messages[index].clone();
        let body = self.text();
        let call = self.client.put(message_path(&token, chat, message), &json!({ "body": body }));
        let outcome = send(call).await.map(|reply| self.latest = Some(reply));
        if outcome == Err(SendFailure::Lost) {
            // The next audit settles the outcome. The client does not change the message again: a second change could
            // be stored before or after this one.
            self.own_messages.swap_remove(index);
        }
        self.record_change(&token, chat, message, Change::Edit(body), outcome).await;
        outcome
    }

    async fn delete(&mut self) -> Result<(), SendFailure> {
        if self.own_messages.is_empty() {
            return Ok(());
        }
        let (token, chat, message) =
            self.own_messages.swap_remove(self.random.random_range(0..self.own_messages.len()));
        let outcome = send(self.client.delete(message_path(&token, chat, message))).await.map(drop);
        self.record_change(&token, chat, message, Change::Delete, outcome).await;
        outcome
    }

    async fn record_change(
        &self,
        token: &str,
        chat: u64,
        message: u64,
        change: Change,
        outcome: Result<(), SendFailure>,
    ) {
        let mut ledger = self.ledger.lock().await;
        let known = ledger.mark_written(token, chat).messages.get_mut(&message).expect("a known message");
        match (outcome, change) {
            (Ok(()), Change::Edit(body)) => known.body = Some(body),
            (Ok(()), Change::Delete) => known.body = None,
            (Err(SendFailure::Lost), change) => known.uncertain = Some(change),
            (Err(_), _) => {}
        }
    }
}
