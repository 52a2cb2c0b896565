//! The search check: searches for parts of posted messages. Compares the hits with the messages that must be found and
//! the messages that may be found.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Deserialize;
use serde_json::json;

use super::normalize::{loose_form, strict_form, without_diacritics};
use super::query_sampling::{QueryKind, SampledQuery, sample_query};
use super::report::AppReport;
use crate::client::{ApiRequest, encode_query};
use crate::manifest::App;
use crate::retrying_client::RetryingClient;

/// The largest page that the server returns.
const PAGE_SIZE: usize = 100;

/// The number of a chat and of a message in it.
type MessageKey = (u64, u64);

struct PostedMessage<'a> {
    key: MessageKey,
    body: &'a str,
    /// Decides which searches must find the message: see [`strict_form`].
    strict_form: String,
    /// Decides which searches may find the message: see [`loose_form`].
    loose_form: String,
}

#[derive(Deserialize)]
struct SearchBody {
    messages: Vec<Hit>,
    total: u64,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Hit {
    chat_number: Option<u64>,
    message_number: u64,
    body: String,
    snippet: String,
}

/// The messages that a search covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Chat(u64),
    App,
}

impl Scope {
    fn contains(self, key: MessageKey) -> bool {
        match self {
            Self::Chat(chat) => key.0 == chat,
            Self::App => true,
        }
    }
}

/// Runs up to `samples` queries of each kind, in each spelling, in the chat of the sampled message and in the app.
pub async fn check(
    app: &App,
    client: &mut RetryingClient,
    mut random: StdRng,
    samples: usize,
    report: &mut AppReport,
) {
    let posted: Vec<PostedMessage<'_>> = app
        .chats
        .iter()
        .flat_map(|(chat, content)| content.messages.iter().map(|(number, body)| ((*chat, *number), body)))
        .map(|(key, body)| PostedMessage {
            key,
            body,
            strict_form: strict_form(body),
            loose_form: loose_form(body),
        })
        .collect();
    // A message with an unknown outcome may or may not be a hit, so the hits can't be checked.
    if app.chats.values().any(|chat| !chat.uncertain.is_empty()) {
        report.findings.push("not searched: the outcome of some messages is unknown".to_owned());
        return;
    }
    for kind in QueryKind::ALL {
        let mut order: Vec<usize> = (0..posted.len()).collect();
        order.shuffle(&mut random);
        let queries = order
            .into_iter()
            .filter_map(|index| Some((index, sample_query(posted[index].body, kind, &mut random)?)));
        let queries: Vec<(usize, SampledQuery)> = queries.take(samples).collect();
        for (index, query) in queries {
            let source = &posted[index];
            for spelling in spellings(&query.text) {
                for scope in [Scope::Chat(source.key.0), Scope::App] {
                    let search = SearchCheck {
                        posted: &posted,
                        source: source.key,
                        query: &query,
                        spelling: &spelling,
                        scope,
                    };
                    match search.run(app, client).await {
                        Ok(hits) => report.hits += hits,
                        Err(finding) => report.findings.push(search.describe(kind, &finding)),
                    }
                    match kind {
                        QueryKind::Word => report.words += 1,
                        QueryKind::Prefix => report.prefixes += 1,
                        QueryKind::Substring => report.substrings += 1,
                    }
                }
            }
        }
    }
}

/// Returns the distinct spellings of a text: unchanged, in the other case, and without diacritics.
fn spellings(text: &str) -> Vec<String> {
    let mut spellings = vec![text.to_owned()];
    let upper = text.to_uppercase();
    // Changing the case may give a different letter: ı (Turkish, dotless) has the same capital as i, and a search for
    // I finds i.
    let other_case = if upper == text { text.to_lowercase() } else { upper };
    if strict_form(&other_case) == strict_form(text) {
        spellings.push(other_case);
    }
    spellings.push(without_diacritics(text));
    let mut seen = BTreeSet::new();
    spellings.retain(|spelling| seen.insert(spelling.clone()));
    spellings
}

/// One search and the messages that it is checked against.
struct SearchCheck<'a> {
    posted: &'a [PostedMessage<'a>],
    /// The message that the query was taken from.
    source: MessageKey,
    query: &'a SampledQuery,
    spelling: &'a str,
    scope: Scope,
}

impl SearchCheck<'_> {
    /// Searches and checks the hits. Returns their number, or a finding.
    async fn run(&self, app: &App, client: &mut RetryingClient) -> Result<usize, String> {
        let mut found = BTreeMap::new();
        let (mut first_total, mut cursor) = (None, None);
        loop {
            let page = self.page(app, client, cursor.as_deref()).await?;
            let total = *first_total.get_or_insert(page.total);
            if total != page.total {
                return Err(format!("total is {total} on the first page and {} on a later one", page.total));
            }
            if page.messages.is_empty() && page.next.is_some() {
                return Err("an empty page has a next cursor".to_owned());
            }
            for hit in page.messages {
                check_snippet(&hit)?;
                match found.entry(self.key(&hit)?) {
                    Entry::Occupied(duplicate) => {
                        return Err(format!("{} is found twice", message_name(*duplicate.key())));
                    }
                    Entry::Vacant(first) => drop(first.insert(hit.body)),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                if total != found.len() as u64 {
                    return Err(format!("total is {total}, but the pages have {} hits", found.len()));
                }
                return self.compare(&found);
            }
        }
    }

    async fn page(
        &self,
        app: &App,
        client: &mut RetryingClient,
        cursor: Option<&str>,
    ) -> Result<SearchBody, String> {
        let base = format!("/api/v1/apps/{}", app.token);
        // One scope is searched with POST and one with GET, so that both methods are tested.
        let request = match self.scope {
            Scope::Chat(chat) => {
                let query = json!({ "query": self.spelling, "limit": PAGE_SIZE, "cursor": cursor });
                ApiRequest::post_query(format!("{base}/chats/{chat}/messages/search"), &query)
            }
            Scope::App => {
                let cursor =
                    cursor.map(|cursor| format!("&cursor={}", encode_query(cursor))).unwrap_or_default();
                let query = encode_query(self.spelling);
                ApiRequest::get(format!("{base}/messages/search?query={query}&limit={PAGE_SIZE}{cursor}"))
            }
        };
        let response = client.send(&request).await.map_err(|error| format!("the search failed: {error}"))?;
        response.json().map_err(|error| format!("unexpected body: {error}"))
    }

    /// Returns the numbers of the chat and the message of a hit, or a finding.
    fn key(&self, hit: &Hit) -> Result<MessageKey, String> {
        match (self.scope, hit.chat_number) {
            (Scope::Chat(chat), Some(number)) if number == chat => Ok((chat, hit.message_number)),
            (Scope::Chat(_), Some(number)) => Err(format!("a hit is from chat {number}")),
            (Scope::Chat(chat), None) | (Scope::App, Some(chat)) => Ok((chat, hit.message_number)),
            (Scope::App, None) => Err("a hit has no chat_number".to_owned()),
        }
    }

    /// Compares the hits with the messages that must be found and those that may be found.
    fn compare(&self, found: &BTreeMap<MessageKey, String>) -> Result<usize, String> {
        let (strict_query, loose_query) = (strict_form(&self.query.text), loose_form(self.spelling));
        let in_scope = self.posted.iter().filter(|posted| self.scope.contains(posted.key));
        for posted in in_scope {
            let hit = found.get(&posted.key);
            // A query that is too short is not found inside other words: only its source must be found.
            let must_be_found = posted.key == self.source
                || (self.query.is_found_inside_words && posted.strict_form.contains(&strict_query));
            if must_be_found && hit.is_none() {
                return Err(format!("{} is not found", message_name(posted.key)));
            }
            if hit.is_some() && !posted.loose_form.contains(&loose_query) {
                return Err(format!("{} is found, but does not contain the query", message_name(posted.key)));
            }
            if hit.is_some_and(|body| body != posted.body) {
                return Err(format!("{} is found with another body", message_name(posted.key)));
            }
        }
        if let Some(foreign) = found.keys().find(|key| self.posted.iter().all(|posted| posted.key != **key)) {
            return Err(format!("{} is found, but was never posted", message_name(*foreign)));
        }
        Ok(found.len())
    }

    fn describe(&self, kind: QueryKind, finding: &str) -> String {
        let kind = match kind {
            QueryKind::Word => "the word",
            QueryKind::Prefix => "the prefix",
            QueryKind::Substring => "the substring",
        };
        let scope = match self.scope {
            Scope::Chat(chat) => format!("in chat {chat}"),
            Scope::App => "in the app".to_owned(),
        };
        format!("{kind} {:?} of {}, searched {scope}: {finding}", self.spelling, message_name(self.source))
    }
}

/// Checks that a snippet marks a match and holds no other HTML.
fn check_snippet(hit: &Hit) -> Result<(), String> {
    let text = hit.snippet.replace("<mark>", "").replace("</mark>", "");
    if !hit.snippet.contains("<mark>") || text.contains(['<', '>']) {
        return Err(format!("message {} has the snippet {:?}", hit.message_number, hit.snippet));
    }
    Ok(())
}

fn message_name((chat, message): MessageKey) -> String {
    format!("message {message} of chat {chat}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_differ_in_case_and_diacritics() {
        assert_eq!(spellings("niño"), ["niño", "NIÑO", "nino"]);
        assert_eq!(spellings("AI"), ["AI", "ai"]);
        assert_eq!(spellings("什么"), ["什么"]);
        assert_eq!(spellings("ılık"), ["ılık"]);
    }

    fn compare(
        found: &[(MessageKey, &str)],
        spelling: &str,
        is_found_inside_words: bool,
    ) -> Result<usize, String> {
        let bodies = [((1, 1), "a red fox"), ((1, 2), "foxes, Réd"), ((2, 1), "a box"), ((2, 2), "FOX")];
        let posted: Vec<_> = bodies
            .iter()
            .map(|(key, body)| PostedMessage {
                key: *key,
                body,
                strict_form: strict_form(body),
                loose_form: loose_form(body),
            })
            .collect();
        let query = SampledQuery { text: spelling.to_owned(), is_found_inside_words };
        let search =
            SearchCheck { posted: &posted, source: (1, 1), query: &query, spelling, scope: Scope::App };
        search.compare(&found.iter().map(|(key, body)| (*key, (*body).to_owned())).collect())
    }

    #[test]
    fn requires_every_message_that_contains_the_query() {
        let all = [((1, 1), "a red fox"), ((1, 2), "foxes, Réd"), ((2, 2), "FOX")];
        assert_eq!(compare(&all, "fox", true), Ok(3));
        for missing in 0..3 {
            let mut found = all.to_vec();
            found.remove(missing);
            assert!(compare(&found, "fox", true).is_err(), "accepted without hit {missing}");
        }
        assert_eq!(compare(&all[..1], "fox", false), Ok(1));
    }

    #[test]
    fn permits_messages_that_differ_only_in_diacritics() {
        assert_eq!(compare(&[((1, 1), "a red fox")], "red", true), Ok(1));
        assert_eq!(compare(&[((1, 1), "a red fox"), ((1, 2), "foxes, Réd")], "red", true), Ok(2));
    }

    #[test]
    fn rejects_a_hit_that_is_not_a_posted_message_with_the_query() {
        let found = [((1, 1), "a red fox"), ((2, 1), "a box")];
        assert!(compare(&found, "red", true).is_err());
        assert!(compare(&[((1, 1), "a red fox"), ((9, 9), "red")], "red", true).is_err());
        assert!(compare(&[((1, 1), "a red ox")], "red", true).is_err());
    }
}
