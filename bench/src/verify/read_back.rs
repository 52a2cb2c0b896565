//! The read-back check: reads each chat page by page, forwards and backwards, and compares it with the posted messages.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::report::AppReport;
use crate::client::{ApiRequest, ApiResponse};
use crate::manifest::{App, Chat};
use crate::retrying_client::RetryingClient;

/// The largest page that the server returns.
const PAGE_SIZE: usize = 100;

#[derive(Deserialize)]
struct AppBody {
    chat_count: u64,
}

#[derive(Deserialize)]
struct ChatsBody {
    chats: Vec<ChatBody>,
}

#[derive(Deserialize)]
struct ChatBody {
    chat_number: u64,
    message_count: u64,
}

#[derive(Deserialize)]
struct MessagesBody {
    messages: Vec<Message>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Message {
    message_number: u64,
    body: String,
}

/// Compares an app's counts, chats and messages with the manifest.
pub async fn check(app: &App, client: &mut RetryingClient, report: &mut AppReport) {
    if let Err(finding) = check_counts(app, client, report).await {
        report.findings.push(finding);
    }
    for (number, chat) in &app.chats {
        match check_chat(app, *number, client, report).await {
            Ok(messages) => compare(*number, chat, &messages, &mut report.findings),
            Err(finding) => report.findings.push(format!("chat {number}: {finding}")),
        }
        report.chats += 1;
    }
}

/// Compares the numbers of the chats, and the counts of chats and messages. Adds differences to the report's findings.
/// An error is a finding too: the counts can't be read.
async fn check_counts(app: &App, client: &mut RetryingClient, report: &mut AppReport) -> Result<(), String> {
    let path = format!("/api/v1/apps/{}", app.token);
    let (body, _): (AppBody, _) = get(client, &path).await?;
    if body.chat_count != app.chats.len() as u64 {
        let findings = &mut report.findings;
        findings.push(format!(
            "chat_count is {}, but {} chats were created",
            body.chat_count,
            app.chats.len()
        ));
    }
    let mut counts = BTreeMap::new();
    let mut page = Some(format!("{path}/chats?limit={PAGE_SIZE}"));
    while let Some(path) = page {
        let (body, response): (ChatsBody, _) = get(client, &path).await?;
        counts.extend(body.chats.into_iter().map(|chat| (chat.chat_number, chat.message_count)));
        page = response.link("next");
    }
    if !counts.keys().eq(app.chats.keys()) || !counts.keys().copied().eq(1..=counts.len() as u64) {
        report.findings.push(format!("the list of chats has the numbers {:?}", counts.keys()));
    }
    for (number, chat) in &app.chats {
        let acknowledged = chat.messages.len() as u64;
        let possible = acknowledged..=acknowledged + chat.uncertain.len() as u64;
        if let Some(count) = counts.get(number).filter(|count| !possible.contains(count)) {
            report.findings.push(format!(
                "chat {number}: message_count is {count}, but {acknowledged} messages were acknowledged"
            ));
        }
    }
    Ok(())
}

/// Reads a chat from its first message to its last and back, and returns its messages. Fails if the two directions
/// differ.
async fn check_chat(
    app: &App,
    chat: u64,
    client: &mut RetryingClient,
    report: &mut AppReport,
) -> Result<Vec<Message>, String> {
    let path = format!("/api/v1/apps/{}/chats/{chat}/messages?limit={PAGE_SIZE}", app.token);
    let mut forwards = Vec::new();
    let mut page = Some(format!("{path}&after=0"));
    while let Some(path) = page {
        let (body, response): (MessagesBody, _) = get(client, &path).await?;
        page = linked_page(&response, "next", &body)?;
        forwards.extend(body.messages);
        report.pages += 1;
    }
    let mut backwards = Vec::new();
    // Without `after`, the server returns the last page.
    let mut page = Some(path);
    while let Some(path) = page {
        let (body, response): (MessagesBody, _) = get(client, &path).await?;
        page = linked_page(&response, "prev", &body)?;
        backwards.extend(body.messages.into_iter().rev());
        report.pages += 1;
    }
    backwards.reverse();
    if forwards != backwards {
        return Err(format!(
            "{} messages read from the first to the last differ from {} read from the last to the first",
            forwards.len(),
            backwards.len()
        ));
    }
    report.messages += forwards.len();
    Ok(forwards)
}

/// Returns the path of the page that the response links with this relation. Fails if a page without messages has such a
/// link: a client could follow such links forever.
fn linked_page(
    response: &ApiResponse,
    relation: &str,
    body: &MessagesBody,
) -> Result<Option<String>, String> {
    match response.link(relation) {
        Some(_) if body.messages.is_empty() => Err(format!("an empty page has a {relation} link")),
        link => Ok(link),
    }
}

fn compare(chat_number: u64, posted: &Chat, read: &[Message], findings: &mut Vec<String>) {
    let mut uncertain = posted.uncertain.clone();
    let mut missing = posted.messages.len();
    for (expected, message) in (1..).zip(read) {
        if message.message_number != expected {
            let found = message.message_number;
            findings
                .push(format!("chat {chat_number}: message {found} is listed instead of message {expected}"));
            return;
        }
        match posted.messages.get(&expected) {
            Some(body) if *body == message.body => missing -= 1,
            Some(_) => findings.push(format!("chat {chat_number}, message {expected}: the body differs")),
            None => match uncertain.iter().position(|body| *body == message.body) {
                Some(index) => drop(uncertain.swap_remove(index)),
                None => findings.push(format!("chat {chat_number}, message {expected}: it was never posted")),
            },
        }
    }
    if missing > 0 {
        findings.push(format!("chat {chat_number}: {missing} acknowledged messages are missing or differ"));
    }
}

async fn get<T: DeserializeOwned>(
    client: &mut RetryingClient,
    path: &str,
) -> Result<(T, ApiResponse), String> {
    let response = client
        .send(&ApiRequest::get(path.to_owned()))
        .await
        .map_err(|error| format!("a GET failed: {error}"))?;
    let body = response.json().map_err(|error| format!("unexpected body: {error}"))?;
    Ok((body, response))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(messages: &[(u64, &str)], uncertain: &[&str]) -> Chat {
        let mut chat = Chat::default();
        for (number, body) in messages {
            chat.add(Some(*number), (*body).to_owned());
        }
        for body in uncertain {
            chat.add(None, (*body).to_owned());
        }
        chat
    }

    fn finding_count(posted: &Chat, read: &[(u64, &str)]) -> usize {
        let message =
            |(number, body): &(u64, &str)| Message { message_number: *number, body: (*body).to_owned() };
        let read: Vec<_> = read.iter().map(message).collect();
        let mut findings = Vec::new();
        compare(1, posted, &read, &mut findings);
        findings.len()
    }

    #[test]
    fn accepts_the_posted_messages() {
        let chat = posted(&[(1, "a"), (2, "b")], &[]);
        assert_eq!(finding_count(&chat, &[(1, "a"), (2, "b")]), 0);
    }

    #[test]
    fn finds_missing_changed_moved_and_extra_messages() {
        let chat = posted(&[(1, "a"), (2, "b")], &[]);
        for read in [
            &[(1, "a")][..],
            &[(1, "a"), (2, "c")],
            &[(1, "b"), (2, "a")],
            &[(1, "a"), (3, "b")],
            &[(2, "b"), (1, "a")],
            &[(1, "a"), (2, "b"), (3, "b")],
            &[],
        ] {
            assert!(finding_count(&chat, read) > 0, "no finding for {read:?}");
        }
    }

    #[test]
    fn accepts_an_uncertain_message_once_or_not_at_all() {
        let chat = posted(&[(1, "a"), (3, "c")], &["b"]);
        assert_eq!(finding_count(&chat, &[(1, "a"), (2, "b"), (3, "c")]), 0);
        let chat = posted(&[(1, "a")], &["b"]);
        assert_eq!(finding_count(&chat, &[(1, "a")]), 0);
        assert!(finding_count(&chat, &[(1, "a"), (2, "b"), (3, "b")]) > 0);
    }
}
