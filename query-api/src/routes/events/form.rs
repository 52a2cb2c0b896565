//! The form in which a client gets a feed: server-sent events or a page in JSON.

use std::time::Duration;

use chat_web::consistency::wait_preference;
use http::HeaderMap;
use http::header::ACCEPT;

pub(super) const EVENT_STREAM: &str = "text/event-stream";
pub(super) const JSON: &str = "application/json";

/// The longest wait of a long poll.
const MAX_POLL: Duration = Duration::from_secs(30);

/// The form of a feed.
pub(super) enum FeedForm {
    /// Server-sent events.
    EventStream,
    /// A page, with the time to wait for its first event.
    Json(Duration),
}

/// Returns the form that a client gets: the one that its `Accept` prefers, or else server-sent events. Two exceptions:
///
/// - A client that sends `Prefer: wait` gets JSON unless its `Accept` names server-sent events or refuses JSON with
///   `q=0`. The reason is that generated clients send no `Accept` of their own.
/// - A client that accepts neither form gets JSON, as from other routes, unless it refuses JSON with `q=0`.
pub(super) fn preferred_form(headers: &HeaderMap) -> FeedForm {
    let wait = wait_preference(headers);
    let accepted = AcceptedForms::parse(headers);
    let waits_for_json = wait.is_some() && !accepted.names_event_stream && accepted.json > 0.0;
    if accepted.json > accepted.event_stream || waits_for_json {
        FeedForm::Json(wait.unwrap_or_default().min(MAX_POLL))
    } else {
        FeedForm::EventStream
    }
}

/// The qualities that `Accept` gives to each form.
struct AcceptedForms {
    json: f32,
    event_stream: f32,
    /// Whether `Accept` has a range for server-sent events themselves, with a quality above 0.
    names_event_stream: bool,
}

impl AcceptedForms {
    fn parse(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> =
            values.flat_map(|value| value.split(',')).filter_map(parse_media_range).collect();
        let quality_of =
            |range: &str| ranges.iter().find(|(name, _)| name == range).map(|(_, quality)| *quality);
        // The most specific range counts (RFC 9110, 12.5.1).
        let quality = |form: &str, wildcard: &str| {
            quality_of(form).or_else(|| quality_of(wildcard)).or_else(|| quality_of("*/*"))
        };
        // The quality of a form that no range covers.
        let uncovered = if ranges.is_empty() { 1.0 } else { 0.0 };
        Self {
            // If no range covers JSON, its quality is above 0, so that a client that accepts neither form gets JSON.
            json: quality(JSON, "application/*").unwrap_or(f32::MIN_POSITIVE.max(uncovered)),
            event_stream: quality(EVENT_STREAM, "text/*").unwrap_or(uncovered),
            names_event_stream: quality_of(EVENT_STREAM).is_some_and(|quality| quality > 0.0),
        }
    }
}

/// Parses a media range of `Accept`: its name in lower case, and its quality.
fn parse_media_range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((name, quality.and_then(|quality| quality.parse().ok()).unwrap_or(1.0)))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn gets_json(accept: Option<&'static str>, prefer: Option<&'static str>) -> bool {
        let accept = accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept)));
        let prefer =
            prefer.map(|prefer| (HeaderName::from_static("prefer"), HeaderValue::from_static(prefer)));
        matches!(preferred_form(&accept.into_iter().chain(prefer).collect()), FeedForm::Json(_))
    }

    #[test]
    fn a_client_gets_the_form_that_it_prefers() {
        let json = [
            "application/json",
            "application/json, */*;q=0.1",
            "text/event-stream;q=0.5, Application/JSON",
            "text/event-stream;q=0",
            "text/event-stream;q=0, */*",
            "text/html",
            "image/*, application/xml",
            "text/*;q=0.1, application/*",
        ];
        for accept in json {
            assert!(gets_json(Some(accept), None), "{accept}");
        }
        let event_streams = [
            "text/event-stream",
            "*/*",
            "",
            "text/*",
            "text/html, */*;q=0.8",
            "application/json, text/event-stream",
            "application/json;q=0",
        ];
        for accept in event_streams {
            assert!(!gets_json(Some(accept), None), "{accept}");
        }
        assert!(!gets_json(None, None));
    }

    #[test]
    fn a_client_that_wants_to_wait_gets_json_unless_it_names_server_sent_events() {
        for accept in
            [None, Some("*/*"), Some("text/*"), Some("application/json"), Some("text/event-stream;q=0")]
        {
            assert!(gets_json(accept, Some("wait=5")), "{accept:?}");
        }
        assert!(!gets_json(Some("text/event-stream"), Some("wait=5")));
        assert!(!gets_json(Some("application/json;q=0"), Some("wait=5")));
        // Preferences that can't be parsed are ignored (RFC 7240), as by the other routes.
        for prefer in ["respond-async", "wait=1.5", "wait=-1", "wait=abc", "wait"] {
            assert!(!gets_json(None, Some(prefer)), "{prefer}");
        }
    }
}
