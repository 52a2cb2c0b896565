//! The apps and chats that a corpus is posted to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::client::{Call, Server, ServerError};
use crate::corpus::Corpus;
use crate::manifest::{App, Manifest};
use crate::retrying_client::{CallError, RetryingClient};

/// Where the messages of a corpus go.
#[derive(Debug)]
pub struct Targets {
    /// The token of each app of the corpus.
    pub apps: Vec<String>,
    /// The number of each chat of the corpus.
    pub chats: Vec<u64>,
}

impl Targets {
    /// The path of a chat's messages.
    pub fn messages_path(&self, corpus: &Corpus, chat: usize) -> String {
        let token = &self.apps[corpus.chats[chat].app];
        format!("/api/v1/apps/{token}/chats/{}/messages", self.chats[chat])
    }

    /// A manifest of the apps and chats, without messages yet.
    pub fn manifest(&self, corpus: &Corpus) -> Manifest {
        let apps = corpus.apps.iter().zip(&self.apps);
        let mut apps: Vec<App> = apps
            .map(|(name, token)| App { name: name.clone(), token: token.clone(), chats: BTreeMap::new() })
            .collect();
        for (chat, number) in corpus.chats.iter().zip(&self.chats) {
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
    let mut caller = RetryingClient::new(Arc::clone(server));
    let mut targets = Targets { apps: Vec::new(), chats: Vec::new() };
    for name in &corpus.apps {
        let call = Call::post("/api/v1/apps".to_owned(), &json!({ "name": name }));
        let created: AppCreated = request(&mut caller, call, "POST /api/v1/apps", server).await?;
        targets.apps.push(created.data.app_token);
    }
    for chat in &corpus.chats {
        let call = Call::post(format!("/api/v1/apps/{}/chats", targets.apps[chat.app]), &json!({}));
        let created: ChatCreated =
            request(&mut caller, call, "POST /api/v1/apps/{app_token}/chats", server).await?;
        targets.chats.push(created.chat_number);
    }
    Ok(targets)
}

async fn request<T: for<'a> Deserialize<'a>>(
    caller: &mut RetryingClient,
    call: Call,
    request: &'static str,
    server: &Server,
) -> Result<T, ServerError> {
    let unexpected = |answer| ServerError::Unexpected { url: server.url().to_owned(), request, answer };
    let reply = caller.call(&call).await.map_err(|error: CallError| unexpected(error.to_string()))?;
    reply
        .json()
        .map_err(|error| unexpected(format!("{} with a body of another form ({error})", reply.outcome())))
}
