//! Searches for words of what was posted, and compares what is found with what must and may be found.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Deserialize;
use serde_json::json;

use super::AppReport;
use super::normalize::{loose_form, strict_form, without_diacritics};
use super::query_sampling::{MatchKind, SampledQuery, sample_query};
use crate::client::{Call, encode_query};
use crate::manifest::App;
use crate::retrying_client::RetryingClient;

/// The largest page that the server gives.
const PAGE_SIZE: usize = 100;

/// A message: its chat's number and its own.
type MessageKey = (u64, u64);

struct PostedMessage<'a> {
    key: MessageKey,
    body: &'a str,
    strict: String,
    loose: String,
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

/// Where a search looks.
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

/// Searches for up to `samples` queries of each kind, in each spelling, in their chat and in the app.
pub async fn check(
    app: &App,
    caller: &mut RetryingClient,
    mut random: StdRng,
    samples: usize,
    report: &mut AppReport,
) {
    let posted: Vec<PostedMessage<'_>> = app
        .chats
        .iter()
        .flat_map(|(chat, content)| content.messages.iter().map(|(number, body)| ((*chat, *number), body)))
        .map(|(key, body)| PostedMessage { key, body, strict: strict_form(body), loose: loose_form(body) })
        .collect();
    // A message that may be there or not may be among the hits or not: it is no use to compare.
    if app.chats.values().any(|chat| !chat.uncertain.is_empty()) {
        report.findings.push("not searched: the answers to some messages were lost".to_owned());
        return;
    }
    for kind in MatchKind::ALL {
        let mut order: Vec<usize> = (0..posted.len()).collect();
        order.shuffle(&mut random);
        let picks = order
            .into_iter()
            .filter_map(|index| Some((index, sample_query(posted[index].body, kind, &mut random)?)));
        let picks: Vec<(usize, SampledQuery)> = picks.take(samples).collect();
        for (source, pick) in picks {
            let source = &posted[source];
            for spelling in spellings(&pick.text) {
                for scope in [Scope::Chat(source.key.0), Scope::App] {
                    let search = SearchCheck {
                        posted: &posted,
                        source: source.key,
                        pick: &pick,
                        spelling: &spelling,
                        scope,
                    };
                    match search.run(app, caller).await {
                        Ok(hits) => report.hits += hits,
                        Err(finding) => report.findings.push(search.describe(kind, &finding)),
                    }
                    match kind {
                        MatchKind::Word => report.words += 1,
                        MatchKind::Prefix => report.starts += 1,
                        MatchKind::Substring => report.insides += 1,
                    }
                }
            }
        }
    }
}

/// The ways in which people may type the same: as it stands, in the other case, without diacritics.
fn spellings(text: &str) -> Vec<String> {
    let mut spellings = vec![text.to_owned()];
    let upper = text.to_uppercase();
    // A letter whose capital is another letter's too (the Turkish dotless i) is not the same in the other case.
    let other_case = if upper == text { text.to_lowercase() } else { upper };
    if strict_form(&other_case) == strict_form(text) {
        spellings.push(other_case);
    }
    spellings.push(without_diacritics(text));
    let mut seen = BTreeSet::new();
    spellings.retain(|spelling| seen.insert(spelling.clone()));
    spellings
}

struct SearchCheck<'a> {
    posted: &'a [PostedMessage<'a>],
    source: MessageKey,
    pick: &'a SampledQuery,
    spelling: &'a str,
    scope: Scope,
}

impl SearchCheck<'_> {
    /// Searches and checks the hits; how many there are, or what is wrong with them.
    async fn run(&self, app: &App, caller: &mut RetryingClient) -> Result<usize, String> {
        let mut found = BTreeMap::new();
        let (mut total, mut cursor) = (None, None);
        loop {
            let page = self.page(app, caller, cursor.as_deref()).await?;
            if *total.get_or_insert(page.total) != page.total {
                return Err(format!("total is {total:?} on one page and {} on the next", page.total));
            }
            if page.messages.is_empty() && page.next.is_some() {
                return Err("an empty page leads on".to_owned());
            }
            for hit in page.messages {
                check_snippet(&hit)?;
                match found.entry(self.key(&hit)?) {
                    Entry::Occupied(twice) => {
                        return Err(format!("{} is found twice", message_name(*twice.key())));
                    }
                    Entry::Vacant(first) => drop(first.insert(hit.body)),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if total != Some(found.len() as u64) {
            return Err(format!("total is {total:?}, the pages hold {}", found.len()));
        }
        self.compare(&found)
    }

    async fn page(
        &self,
        app: &App,
        caller: &mut RetryingClient,
        cursor: Option<&str>,
    ) -> Result<SearchBody, String> {
        let base = format!("/api/v1/apps/{}", app.token);
        // One scope is asked by POST and one by GET, so that both are tried.
        let call = match self.scope {
            Scope::Chat(chat) => {
                let query = json!({ "query": self.spelling, "limit": PAGE_SIZE, "cursor": cursor });
                Call::post_query(format!("{base}/chats/{chat}/messages/search"), &query)
            }
            Scope::App => {
                let cursor =
                    cursor.map(|cursor| format!("&cursor={}", encode_query(cursor))).unwrap_or_default();
                let query = encode_query(self.spelling);
                Call::get(format!("{base}/messages/search?query={query}&limit={PAGE_SIZE}{cursor}"))
            }
        };
        let reply = caller.call(&call).await.map_err(|error| format!("the search failed: {error}"))?;
        reply.json().map_err(|error| format!("a body of another form: {error}"))
    }

    fn key(&self, hit: &Hit) -> Result<MessageKey, String> {
        match (self.scope, hit.chat_number) {
            (Scope::Chat(chat), Some(number)) if number == chat => Ok((chat, hit.message_number)),
            (Scope::Chat(_), Some(number)) => Err(format!("a hit is of chat {number}")),
            (Scope::Chat(chat), None) | (Scope::App, Some(chat)) => Ok((chat, hit.message_number)),
            (Scope::App, None) => Err("a hit has no chat_number".to_owned()),
        }
    }

    /// Holds the hits against what must be found and what may be.
    fn compare(&self, found: &BTreeMap<MessageKey, String>) -> Result<usize, String> {
        let (must, may) = (strict_form(&self.pick.text), loose_form(self.spelling));
        let in_scope = self.posted.iter().filter(|posted| self.scope.contains(posted.key));
        for posted in in_scope {
            let hit = found.get(&posted.key);
            let expected =
                posted.key == self.source || (self.pick.matches_substrings && posted.strict.contains(&must));
            if expected && hit.is_none() {
                return Err(format!("{} is not found", message_name(posted.key)));
            }
            if hit.is_some() && !posted.loose.contains(&may) {
                return Err(format!("{} is found, but does not hold it", message_name(posted.key)));
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

    fn describe(&self, kind: MatchKind, finding: &str) -> String {
        let kind = match kind {
            MatchKind::Word => "the word",
            MatchKind::Prefix => "the start of a word",
            MatchKind::Substring => "the inside of a word",
        };
        let place = match self.scope {
            Scope::Chat(chat) => format!("in chat {chat}"),
            Scope::App => "in the app".to_owned(),
        };
        format!("{kind} {:?} of {}, searched {place}: {finding}", self.spelling, message_name(self.source))
    }
}

/// A snippet marks what matched and holds no other HTML.
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

    fn compare(found: &[(MessageKey, &str)], spelling: &str, found_inside: bool) -> Result<usize, String> {
        let bodies = [((1, 1), "a red fox"), ((1, 2), "foxes, Réd"), ((2, 1), "a box"), ((2, 2), "FOX")];
        let posted: Vec<_> = bodies
            .iter()
            .map(|(key, body)| PostedMessage {
                key: *key,
                body,
                strict: strict_form(body),
                loose: loose_form(body),
            })
            .collect();
        let pick = SampledQuery { text: spelling.to_owned(), matches_substrings: found_inside };
        let search =
            SearchCheck { posted: &posted, source: (1, 1), pick: &pick, spelling, scope: Scope::App };
        search.compare(&found.iter().map(|(key, body)| (*key, (*body).to_owned())).collect())
    }

    #[test]
    fn every_message_that_holds_the_query_must_be_found() {
        let all = [((1, 1), "a red fox"), ((1, 2), "foxes, Réd"), ((2, 2), "FOX")];
        assert_eq!(compare(&all, "fox", true), Ok(3));
        for missing in 0..3 {
            let mut some = all.to_vec();
            some.remove(missing);
            assert!(compare(&some, "fox", true).is_err(), "{missing}");
        }
        assert_eq!(compare(&all[..1], "fox", false), Ok(1));
    }

    #[test]
    fn what_differs_in_diacritics_alone_may_be_found() {
        assert_eq!(compare(&[((1, 1), "a red fox")], "red", true), Ok(1));
        assert_eq!(compare(&[((1, 1), "a red fox"), ((1, 2), "foxes, Réd")], "red", true), Ok(2));
    }

    #[test]
    fn nothing_else_may_be_found() {
        let wrong = [((1, 1), "a red fox"), ((2, 1), "a box")];
        assert!(compare(&wrong, "red", true).is_err());
        assert!(compare(&[((1, 1), "a red fox"), ((9, 9), "red")], "red", true).is_err());
        assert!(compare(&[((1, 1), "a red ox")], "red", true).is_err());
    }
}
