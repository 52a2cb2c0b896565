//! How long after the last acknowledgement everything could be read and found.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;
use tokio::time::Instant;

use super::setup::Targets;
use super::worker::{Acknowledgement, WorkerOutcome};
use crate::client::{CONSISTENCY_TOKEN, Call, PREFER, Server, encode_query};
use crate::corpus::Corpus;
use crate::retrying_client::{CallError, RetryingClient};

/// How long one query may wait for the projections, in seconds: the most that the server grants.
const PREFER_WAIT: &str = "wait=10";
/// Characters of a body that are searched for.
const QUERY_CHARS: usize = 20;

/// What came of waiting for the projections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Visibility {
    /// From the last 201 to an answered read that carried its `Consistency-Token`, in milliseconds.
    pub readable_after_ms: Option<f64>,
    /// From the last 201 to an answered search that carried its `Consistency-Token`, in milliseconds.
    pub searchable_after_ms: Option<f64>,
    /// Why one of them, or a query with the last token of another connection, failed.
    pub problems: Vec<String>,
}

/// A query of a kind and what it needs of the corpus.
#[derive(Clone, Copy)]
enum Query {
    Read,
    SearchCheck,
}

/// Waits until the last message of every connection can be read and everything up to it can be searched.
///
/// Timed is what was acknowledged last. Answers can overtake one another, so the last message of each other
/// connection is asked for afterwards, untimed.
pub async fn measure(
    outcomes: &[WorkerOutcome],
    last_acknowledged: Instant,
    corpus: &Corpus,
    targets: &Targets,
    server: &Arc<Server>,
) -> Visibility {
    let mut marks: Vec<&Acknowledgement> =
        outcomes.iter().filter_map(|outcome| outcome.last.as_ref()).collect();
    marks.sort_by_key(|mark| mark.at);
    let Some(last) = marks.pop() else { return Visibility::default() };
    let ask = async |mark: &Acknowledgement, query| {
        let mut caller = RetryingClient::new(Arc::clone(server));
        check(&mut caller, mark, query, corpus, targets).await?;
        Ok::<_, String>(millis(last_acknowledged.elapsed()))
    };
    let (read, searched) = tokio::join!(ask(last, Query::Read), ask(last, Query::SearchCheck));
    let mut visibility = Visibility::default();
    let mut note = |outcome: Result<f64, String>| outcome.map_err(|why| visibility.problems.push(why)).ok();
    let (readable, searchable) = (note(read), note(searched));
    for mark in marks {
        note(ask(mark, Query::Read).await);
        note(ask(mark, Query::SearchCheck).await);
    }
    Visibility { readable_after_ms: readable, searchable_after_ms: searchable, ..visibility }
}

async fn check(
    caller: &mut RetryingClient,
    mark: &Acknowledgement,
    query: Query,
    corpus: &Corpus,
    targets: &Targets,
) -> Result<(), String> {
    let messages = targets.messages_path(corpus, mark.item.chat);
    let path = match query {
        Query::Read => format!("{messages}/{}", mark.number),
        Query::SearchCheck => {
            let body = &corpus.chats[mark.item.chat].bodies[mark.item.message];
            let start: String = body.trim().chars().take(QUERY_CHARS).collect();
            format!("{messages}/search?limit=1&query={}", encode_query(&start))
        }
    };
    let Some(token) = &mark.token else {
        return Err("the answer to a message carried no Consistency-Token".to_owned());
    };
    let call = Call::get(path.clone())
        .with_header(CONSISTENCY_TOKEN, token.clone())
        .with_header(PREFER, HeaderValue::from_static(PREFER_WAIT));
    match caller.call(&call).await {
        Ok(_) => Ok(()),
        Err(error @ (CallError::Refused(_) | CallError::Uncertain(_) | CallError::Unreachable)) => {
            Err(format!("GET {} answered {error}", redact_token(&path)))
        }
    }
}

/// The path without the app's token, which is a credential.
fn redact_token(path: &str) -> String {
    let mut segments: Vec<&str> = path.split('/').collect();
    if let Some(token) = segments.get_mut(4) {
        *token = "{app_token}";
    }
    segments.join("/")
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
