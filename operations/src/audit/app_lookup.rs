//! Finds an app by the beginning of its token or by its name, and a stream by its abbreviated name.

use std::collections::BTreeMap;

use chat_domain::{AppName, AppToken, ChatNumber, Event, StreamId};
use chat_ports::event_store::{EventStore, EventStoreError};
use thiserror::Error;

use super::filter::EventFilter;
use super::near_names::NearNames;
use super::scan::{Order, Scan};

/// The end of an abbreviated token, as tables print it.
const ELLIPSIS: char = '…';

/// The maximal number of apps that are remembered as candidates. Further apps are ignored.
const MAX_CANDIDATES: usize = 1_000;

/// The maximal number of candidates that an error names.
const MAX_NAMED: usize = 5;

/// The number of characters of a token that an error shows after the prefix that all candidates share.
const CHARACTERS_AFTER_SHARED_PREFIX: usize = 4;

/// Why no app was found.
#[derive(Debug, Error)]
pub enum AppLookupError {
    /// The log could not be read.
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    /// No app has such a token or name.
    #[error("no app has a token that begins with {text:?}, or that name{suggestion}")]
    NotFound {
        /// The text.
        text: String,
        /// Names that resemble it, as the end of the sentence.
        suggestion: String,
    },
    /// Several apps match.
    #[error("{text:?} fits {count} apps: {candidates}")]
    Ambiguous {
        /// The text.
        text: String,
        /// The number of apps. Apps that were ignored because there were too many candidates are not counted.
        count: usize,
        /// Some of them, each with the beginning of its token.
        candidates: String,
    },
}

/// Finds an app by its token, the beginning of its token, or its current name. A beginning may end in `…`, as tables
/// print it. Reads the whole log, unless the text is a whole token, which is returned even if no app has it.
pub async fn find_app(log: &dyn EventStore, text: &str) -> Result<AppToken, AppLookupError> {
    if let Ok(token) = AppToken::parse(text) {
        return Ok(token);
    }
    let prefix = text.trim_end_matches(ELLIPSIS);
    // The apps whose tokens or names fit so far, with their names.
    let mut candidates: BTreeMap<AppToken, Option<AppName>> = BTreeMap::new();
    let mut near = NearNames::new(text);
    let mut scan = Scan::new(EventFilter::default(), Order::OldestFirst);
    while let Some(batch) = scan.next_batch(log).await? {
        for event in &batch.events {
            let Ok(stream) = StreamId::parse(&event.stream) else { continue };
            let app = stream.app();
            let has_prefix = !prefix.is_empty() && app.expose().starts_with(prefix);
            // Only the events of app streams have names.
            let name = match (&stream, event.decode()) {
                (StreamId::App(_), Ok(Event::AppCreated(created))) => Some(created.name),
                (StreamId::App(_), Ok(Event::AppRenamed(renamed))) => Some(renamed.name),
                _ => None,
            };
            // The text itself is no suggestion, even if an app had this name before.
            if let Some(name) = name.as_ref().filter(|name| name.as_str() != text) {
                near.offer(name.as_str());
            }
            if has_prefix || name.as_ref().is_some_and(|name| name.as_str() == text) {
                if candidates.len() >= MAX_CANDIDATES && !candidates.contains_key(app) {
                    continue;
                }
                let candidate = candidates.entry(*app).or_default();
                *candidate = name.or(candidate.take());
            } else if name.is_some() {
                // The app has another name now, and is no candidate any more.
                candidates.remove(app);
            }
        }
    }
    let mut apps = candidates.keys();
    match (apps.next(), apps.next()) {
        (Some(app), None) => Ok(*app),
        (None, _) => Err(AppLookupError::NotFound { text: text.to_owned(), suggestion: near.suggestion() }),
        (Some(_), Some(_)) => Err(AppLookupError::Ambiguous {
            text: text.to_owned(),
            count: candidates.len(),
            candidates: describe(&candidates),
        }),
    }
}

/// Finds a stream by its name, in which the app's token may be abbreviated, as in `chat-4Vq9…-1`. Text that is no such
/// name, or whose app is not found, is returned as it is.
pub async fn find_stream(log: &dyn EventStore, text: &str) -> Result<String, AppLookupError> {
    let abbreviated = match (text.strip_prefix("app-"), text.strip_prefix("chat-")) {
        _ if StreamId::parse(text).is_ok() => None,
        (Some(app), _) => Some((app, None)),
        (None, Some(chat)) => {
            chat.rsplit_once('-').and_then(|(app, number)| Some((app, Some(ChatNumber::parse(number).ok()?))))
        }
        (None, None) => None,
    };
    let Some((app, chat)) = abbreviated else { return Ok(text.to_owned()) };
    match find_app(log, app).await {
        Ok(app) => Ok(chat.map_or(StreamId::App(app), |chat| StreamId::Chat(app, chat)).to_string()),
        Err(AppLookupError::NotFound { .. }) => Ok(text.to_owned()),
        Err(error) => Err(error),
    }
}

fn describe(candidates: &BTreeMap<AppToken, Option<AppName>>) -> String {
    // The tokens are in order, so a prefix that the first and the last one share is shared by all.
    let shared = match (candidates.keys().next(), candidates.keys().next_back()) {
        (Some(first), Some(last)) => {
            first.expose().bytes().zip(last.expose().bytes()).take_while(|(a, b)| a == b).count()
        }
        _ => 0,
    };
    let describe_candidate = |(app, name): (&AppToken, &Option<AppName>)| {
        let token = app.expose();
        let prefix = token.get(..shared + CHARACTERS_AFTER_SHARED_PREFIX).unwrap_or(token);
        match name {
            Some(name) => format!("{prefix}{ELLIPSIS} {:?}", name.as_str()),
            None => format!("{prefix}{ELLIPSIS}"),
        }
    };
    let named: Vec<String> = candidates.iter().take(MAX_NAMED).map(describe_candidate).collect();
    let more = candidates.len().saturating_sub(named.len());
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    named.join(", ") + &more
}
