//! Consistency tokens and the wait for them. Each line of a case is a header: `token: …` or `prefer: …`.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts as _};
use chat_domain::{Position, Timestamp};
use chat_ports::event_store::{LogId, LogLineage, NewIncarnation};
use chat_web::consistency::{CONSISTENCY_TOKEN, ConsistencyToken, Freshness, MAX_WAIT};
use futures::executor::block_on;
use http::{HeaderValue, Request};
use uuid::Uuid;

/// The position up to which the second incarnation of the log kept the events of the first one.
const KEPT_UP_TO: u64 = 40;

struct State(Arc<LogLineage>);

impl FromRef<State> for Arc<LogLineage> {
    fn from_ref(state: &State) -> Self {
        Self::clone(&state.0)
    }
}

/// A token can be written and read back; of several tokens, the newest counts; and a token of another log is refused.
pub fn check(case: &[u8]) {
    let Ok(text) = str::from_utf8(case) else { return };
    let (mut request, mut tokens) = (Request::builder(), Vec::new());
    for line in text.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let Ok(header) = HeaderValue::from_str(value) else { continue };
        match name {
            "token" => {
                // A header with other characters than ASCII is malformed, also if they are spaces.
                let value = if header.to_str().is_ok() { value } else { "" };
                tokens.extend(value.split(',').map(|token| token.trim().parse::<ConsistencyToken>()));
                request = request.header(CONSISTENCY_TOKEN, header);
            }
            "prefer" => request = request.header("prefer", header),
            _ => {}
        }
    }
    let mut belong_to_this_log = Vec::new();
    for token in tokens.iter().flatten() {
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(*token), "{text}");
        // The tags of the two incarnations below are `100` and `2s`, in base 36. A token without a tag belongs to the
        // first.
        let (tag, _) = text.trim_start_matches("v1-").split_once('.').unwrap_or(("100", ""));
        let is_kept = token.position().get() <= KEPT_UP_TO;
        belong_to_this_log.push(tag == "2s" || (tag == "100" && is_kept));
    }
    let (original, restored) = (LogId(Uuid::from_u128(1_296)), LogId(Uuid::from_u128(100)));
    let incarnation = NewIncarnation {
        log: restored,
        began_at: Timestamp::from_millis(0),
        reason: String::new(),
        replaces: Vec::new(),
    };
    let lineage = LogLineage::new(original, vec![incarnation.begun_after(Position::new(KEPT_UP_TO))]);
    let (mut parts, ()) = request.body(()).expect("a request").into_parts();
    match block_on(Freshness::from_request_parts(&mut parts, &State(Arc::new(lineage)))) {
        Ok(freshness) => {
            assert!(freshness.max_wait <= MAX_WAIT);
            assert!(!belong_to_this_log.contains(&false));
            let newest = tokens.iter().map(|token| token.as_ref().expect("a token").position()).max();
            assert_eq!(freshness.min_position, newest);
        }
        Err(problem) => {
            let is_malformed = tokens.iter().any(Result::is_err);
            assert!(is_malformed || belong_to_this_log.contains(&false), "{}", problem.detail());
        }
    }
}
