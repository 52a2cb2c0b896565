//! The apps and chats that a corpus is posted to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::client::{ApiRequest, Server, ServerError};
use crate::corpus::Corpus;
use crate::manifest::{App, Manifest};
use crate::retrying_client::RetryingClient;

/// The apps and chats on the server, in the order of the corpus.
#[derive(Debug)]
pub struct Targets {
    /// The token of each app of the corpus.
    pub app_tokens: Vec<String>,
    /// The number of each chat of the corpus.
    pub chat_numbers: Vec<u64>,
}

impl Targets {
    /// Returns the path of the messages of the chat that has the index `chat` in the corpus.
    pub fn messages_path(&self, corpus: &Corpus, chat: usize) -> String {
        let token = &self.app_tokens[corpus.chats[chat].app];
        format!("/api/v1/apps/{token}/chats/{}/messages", self.chat_numbers[chat])
    }

    /// Returns a manifest with all apps and chats, and with no messages yet.
    pub fn manifest(&self, corpus: &Corpus) -> Manifest {
        let apps = corpus.apps.iter().zip(&self.app_tokens);
        let mut apps: Vec<App> = apps
            .map(|(name, token)| App { name: name.clone(), token: token.clone(), chats: BTreeMap::new() })
            .collect();
        for (chat, number) in corpus.chats.iter().zip(&self.chat_numbers) {
            apps[chat.app].chats.entry(*number).or_default();
        }
        Manifest { apps }
    }
}

#[derive(Deserialize)]
struct AppCreated {
    data: AppData,
}

#[derive(Deserialize)]
struct AppData {
    app_token: String,
}

#[derive(Deserialize)]
struct ChatCreated {
    chat_number: u64,
}

/// Creates one app for each app of the corpus and one chat for each chat.
pub async fn create_targets(corpus: &Corpus, server: &Arc<Server>) -> Result<Targets, ServerError> {
    let mut client = RetryingClient::new(Arc::clone(server));
    let mut targets = Targets { app_tokens: Vec::new(), chat_numbers: Vec::new() };
    for name in &corpus.apps {
        let request = ApiRequest::post("/api/v1/apps".to_owned(), &json!({ "name": name }));
        let created: AppCreated = send_for_json(&mut client, request, "POST /api/v1/apps", server).await?;
        targets.app_tokens.push(created.data.app_token);
    }
    for chat in &corpus.chats {
        let request =
            ApiRequest::post(format!("/api/v1/apps/{}/chats", targets.app_tokens[chat.app]), &json!({}));
        let created: ChatCreated =
            send_for_json(&mut client, request, "POST /api/v1/apps/{app_token}/chats", server).await?;
        targets.chat_numbers.push(created.chat_number);
    }
    Ok(targets)
}

async fn send_for_json<T: for<'a> Deserialize<'a>>(
    client: &mut RetryingClient,
    request: ApiRequest,
    route: &'static str,
    server: &Server,
) -> Result<T, ServerError> {
    let unexpected =
        |response| ServerError::Unexpected { url: server.url().to_owned(), request: route, response };
    let response = client.send(&request).await.map_err(|error| unexpected(error.to_string()))?;
    response.json().map_err(|error| {
        unexpected(format!("{} with an unexpected body ({error})", response.status_and_code()))
    })
}
