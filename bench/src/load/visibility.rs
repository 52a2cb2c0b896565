//! The time from the last acknowledgement until every message can be read and found.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;
use tokio::time::Instant;

use super::setup::Targets;
use super::worker::{Acknowledgement, WorkerOutcome};
use crate::client::{ApiRequest, CONSISTENCY_TOKEN, PREFER, Server, encode_query};
use crate::corpus::Corpus;
use crate::retrying_client::RetryingClient;

/// The time that a query may wait for the projections: the longest that the server grants.
const PREFER_WAIT: &str = "wait=10";
/// The number of characters that a search takes from the start of a body.
const QUERY_CHARS: usize = 20;

/// The time until the projections made every message visible.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Visibility {
    /// The time from the last 201 until a read with the `Consistency-Token` of that 201 is answered, in milliseconds.
    pub readable_after_ms: Option<f64>,
    /// The time from the last 201 until a search with the `Consistency-Token` of that 201 is answered, in milliseconds.
    pub searchable_after_ms: Option<f64>,
    /// The failures of the two timed queries, and of the queries for the last messages of the other connections.
    pub problems: Vec<String>,
}

/// A query that waits for a projection.
#[derive(Clone, Copy)]
enum Query {
    Read,
    Search,
}

/// Waits until the last message of each connection can be read and found.
///
/// Only the message that was acknowledged last is timed. Responses can overtake one another, so another message may be
/// the last one in the log. Therefore the last messages of the other connections are queried afterwards.
pub async fn measure(
    outcomes: &[WorkerOutcome],
    last_acknowledged_at: Instant,
    corpus: &Corpus,
    targets: &Targets,
    server: &Arc<Server>,
) -> Visibility {
    let mut acknowledgements: Vec<&Acknowledgement> =
        outcomes.iter().filter_map(|outcome| outcome.last_acknowledgement.as_ref()).collect();
    acknowledgements.sort_by_key(|acknowledgement| acknowledgement.received_at);
    let Some(last) = acknowledgements.pop() else { return Visibility::default() };
    let time_query = async |acknowledgement: &Acknowledgement, query| {
        let mut client = RetryingClient::new(Arc::clone(server));
        check(&mut client, acknowledgement, query, corpus, targets).await?;
        Ok::<_, String>(millis(last_acknowledged_at.elapsed()))
    };
    let (read, searched) = tokio::join!(time_query(last, Query::Read), time_query(last, Query::Search));
    let mut visibility = Visibility::default();
    let mut record =
        |outcome: Result<f64, String>| outcome.map_err(|problem| visibility.problems.push(problem)).ok();
    let (readable, searchable) = (record(read), record(searched));
    for acknowledgement in acknowledgements {
        record(time_query(acknowledgement, Query::Read).await);
        record(time_query(acknowledgement, Query::Search).await);
    }
    Visibility { readable_after_ms: readable, searchable_after_ms: searchable, ..visibility }
}

/// Queries for an acknowledged message with its token. Fails if there is no token or no 2xx response. The content of
/// the response is not checked: the server promises that a 2xx response to a query with a token has the effect of the
/// token's command, and `verify` checks the contents.
async fn check(
    client: &mut RetryingClient,
    acknowledgement: &Acknowledgement,
    query: Query,
    corpus: &Corpus,
    targets: &Targets,
) -> Result<(), String> {
    let messages = targets.messages_path(corpus, acknowledgement.index.chat);
    let path = match query {
        Query::Read => format!("{messages}/{}", acknowledgement.number),
        Query::Search => {
            let body = &corpus.chats[acknowledgement.index.chat].bodies[acknowledgement.index.message];
            let start: String = body.trim().chars().take(QUERY_CHARS).collect();
            format!("{messages}/search?limit=1&query={}", encode_query(&start))
        }
    };
    let Some(token) = &acknowledgement.token else {
        return Err("the response to a message has no Consistency-Token".to_owned());
    };
    let request = ApiRequest::get(path.clone())
        .with_header(CONSISTENCY_TOKEN, token.clone())
        .with_header(PREFER, HeaderValue::from_static(PREFER_WAIT));
    match client.send(&request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("GET {} answered {error}", redact_token(&path))),
    }
}

/// Replaces the app's token, which is a credential.
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
