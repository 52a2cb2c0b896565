//! Clients that write messages until they are stopped or the server is gone, and record the acknowledged messages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::api::{chat_path, create_app, create_chat, number};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;

const CLIENTS: usize = 4;

/// The bodies of the acknowledged messages, by chat and number. Each client has a chat of its own.
pub type Acknowledged = BTreeMap<(u64, u64), String>;

/// Running clients.
pub struct Load {
    /// The token of the app that the clients write to.
    pub token: String,
    acknowledged: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    /// Creates an app, and starts the clients, each with its own chat of that app.
    pub async fn start(client: &Client) -> Self {
        let token = create_app(client, "under load").await;
        let (acknowledged, stop) = (Arc::<Mutex<Acknowledged>>::default(), Arc::<AtomicBool>::default());
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let chat = create_chat(client, &token).await;
            let path = format!("{}/messages", chat_path(&token, chat));
            let (client, acknowledged, stop) = (client.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
            clients.spawn(async move {
                for index in 0.. {
                    let body = format!("message {index} of chat {chat}");
                    let sent = client.post(path.clone(), &json!({ "body": body })).try_send().await;
                    let Ok(reply) = sent else { return };
                    let number = number(&reply.expect(201).json(), "message_number");
                    let previous = lock(&acknowledged).insert((chat, number), body);
                    assert_eq!(previous, None, "number {number} of chat {chat} was assigned twice");
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        Self { token, acknowledged, stop, clients }
    }

    /// Returns the messages that were acknowledged so far.
    pub fn acknowledged(&self) -> Acknowledged {
        lock(&self.acknowledged).clone()
    }

    /// Waits until this many more messages are acknowledged.
    pub async fn write_more(&self, messages: usize) {
        let expected = self.acknowledged().len() + messages;
        eventually("messages are written", async || (self.acknowledged().len() >= expected).then_some(()))
            .await;
    }

    /// Stops the clients, and returns all acknowledged messages.
    pub async fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        lock(&self.acknowledged).clone()
    }
}

fn lock(acknowledged: &Mutex<Acknowledged>) -> std::sync::MutexGuard<'_, Acknowledged> {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
}
