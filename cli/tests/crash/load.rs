//! Clients that write until the server is gone, and keep a ledger of what they were told.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::harness::api::{API, app_path, chat_path, create_app, create_chat, message_path, number};
use crate::harness::client::{Call, Client, Reply};
use crate::ledger::{App, Change, Chat, Ledger, Message};

const WRITERS: u64 = 8;
const CHATS: u64 = 3;

/// Starts the writers, on an app of the round's own and on those of earlier rounds.
pub async fn start(client: &Client, ledger: &Arc<Mutex<Ledger>>, round: u64, seed: u64) -> JoinSet<()> {
    let token = create_app(client, &format!("round {round}")).await;
    let mut app = App::new(format!("round {round}"));
    for _ in 0..CHATS {
        app.chats.insert(create_chat(client, &token).await, Chat::default());
    }
    ledger.lock().await.apps.insert(token.clone(), app);

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let writer = Writer {
            client: client.clone(),
            ledger: Arc::clone(ledger),
            random: StdRng::seed_from_u64(seed ^ writer),
            newest: token.clone(),
            own: Vec::new(),
            name: format!("round {round} writer {writer}"),
            written: 0,
        };
        writers.spawn(writer.run());
    }
    writers
}

/// What came of a request.
enum Outcome {
    Done(Reply),
    /// Refused for the moment: nothing was carried out.
    Refused,
    /// It may have been carried out or not.
    Unknown,
}

async fn send(call: Call<'_>) -> Outcome {
    let Ok(reply) = call.try_send().await else { return Outcome::Unknown };
    match reply.status.as_u16() {
        200 | 201 | 204 => Outcome::Done(reply),
        503 if reply.code() == "outcome_unknown" => Outcome::Unknown,
        503 => Outcome::Refused,
        status => panic!("{} {} answered {status}: {:?}", reply.method, reply.path, reply.body),
    }
}

/// The server is gone.
struct Gone;

struct Writer {
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    random: StdRng,
    newest: String,
    /// Messages that this writer created and nobody else changes.
    own: Vec<(String, u64, u64)>,
    name: String,
    written: u64,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let step = match self.random.random_range(0..100) {
                0..2 => self.create_app().await,
                2..6 => self.rename_app().await,
                6..12 => self.create_chat().await,
                12..22 => self.edit().await,
                22..28 => self.delete().await,
                _ => self.create_message().await,
            };
            if let Err(Gone) = step {
                return;
            }
        }
    }

    fn text(&mut self) -> String {
        self.written += 1;
        format!("{} text {}", self.name, self.written)
    }

    /// An app: mostly the round's own, now and then an older one.
    async fn any_app(&mut self) -> String {
        if self.random.random_ratio(9, 10) {
            return self.newest.clone();
        }
        let ledger = self.ledger.lock().await;
        let index = self.random.random_range(0..ledger.apps.len());
        ledger.apps.keys().nth(index).expect("an app").clone()
    }

    async fn create_app(&mut self) -> Result<(), Gone> {
        let name = self.text();
        // An app whose answer is lost can't be found again: nobody has its token.
        match send(self.client.post(format!("{API}/apps"), &json!({ "name": name }))).await {
            Outcome::Done(reply) => {
                let token = reply.json()["data"]["app_token"].as_str().expect("a token").to_owned();
                self.ledger.lock().await.apps.insert(token, App::new(name));
                Ok(())
            }
            Outcome::Refused => Ok(()),
            Outcome::Unknown => Err(Gone),
        }
    }

    async fn rename_app(&mut self) -> Result<(), Gone> {
        // Only the first writer renames: with several, which name came last would be anybody's guess.
        if !self.name.ends_with("writer 0") {
            return Ok(());
        }
        let name = self.text();
        let token = self.newest.clone();
        let outcome = send(self.client.put(app_path(&token), &json!({ "name": name }))).await;
        let mut ledger = self.ledger.lock().await;
        let app = ledger.app(&token);
        match outcome {
            Outcome::Done(_) => app.name = name,
            Outcome::Refused => {}
            Outcome::Unknown => {
                app.uncertain_names.push(name);
                return Err(Gone);
            }
        }
        Ok(())
    }

    async fn create_chat(&mut self) -> Result<(), Gone> {
        let token = self.any_app().await;
        let outcome = send(self.client.post(format!("{}/chats", app_path(&token)), &json!({}))).await;
        let mut ledger = self.ledger.lock().await;
        let app = ledger.app(&token);
        match outcome {
            Outcome::Done(reply) => {
                let chat = number(&reply.json(), "chat_number");
                assert!(app.chats.insert(chat, Chat::default()).is_none(), "chat {chat} was given out twice");
                Ok(())
            }
            Outcome::Refused => Ok(()),
            Outcome::Unknown => {
                app.uncertain_chats += 1;
                Err(Gone)
            }
        }
    }

    async fn create_message(&mut self) -> Result<(), Gone> {
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
        let outcome = send(self.client.post(path, &json!({ "body": body }))).await;
        let mut ledger = self.ledger.lock().await;
        let known = ledger.touch(&token, chat);
        match outcome {
            Outcome::Done(reply) => {
                let message = number(&reply.json(), "message_number");
                let before = known.messages.insert(message, Message::new(body));
                assert!(before.is_none(), "message {message} was given out twice: {before:?}");
                self.own.push((token, chat, message));
                Ok(())
            }
            Outcome::Refused => Ok(()),
            Outcome::Unknown => {
                known.uncertain.insert(body);
                Err(Gone)
            }
        }
    }

    async fn edit(&mut self) -> Result<(), Gone> {
        if self.own.is_empty() {
            return Ok(());
        }
        let (token, chat, message) = self.own[self.random.random_range(0..self.own.len())].clone();
        let body = self.text();
        let call = self.client.put(message_path(&token, chat, message), &json!({ "body": body }));
        let outcome = send(call).await;
        self.note_change(&token, chat, message, Change::Edit(body), &outcome).await
    }

    async fn delete(&mut self) -> Result<(), Gone> {
        if self.own.is_empty() {
            return Ok(());
        }
        let (token, chat, message) = self.own.swap_remove(self.random.random_range(0..self.own.len()));
        let outcome = send(self.client.delete(message_path(&token, chat, message))).await;
        self.note_change(&token, chat, message, Change::Delete, &outcome).await
    }

    async fn note_change(
        &self,
        token: &str,
        chat: u64,
        message: u64,
        change: Change,
        outcome: &Outcome,
    ) -> Result<(), Gone> {
        let mut ledger = self.ledger.lock().await;
        let known = ledger.touch(token, chat).messages.get_mut(&message).expect("a known message");
        match outcome {
            Outcome::Done(_) => {
                known.body = match change {
                    Change::Edit(body) => Some(body),
                    Change::Delete => None,
                };
            }
            Outcome::Refused => {}
            Outcome::Unknown => {
                known.uncertain = Some(change);
                return Err(Gone);
            }
        }
        Ok(())
    }
}
