//! The request context: request id, correlation id and client of a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use chat_domain::metadata::ActorKind;
use chat_domain::{Actor, Metadata};
use chat_ports::clock;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use uuid::Uuid;

use crate::client_address::TrustedProxies;
use crate::problem::Problem;

/// The request and response header of the request id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest request id accepted from a client, in characters.
const MAX_REQUEST_ID_CHARS: usize = 128;

/// The peer address of the connection. The server adds it to the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddr(pub SocketAddr);

/// The request id, correlation id and client of a request. An extractor for every handler behind the request
/// middleware.
#[derive(Clone, Debug)]
pub struct RequestContext {
    request_id: Arc<str>,
    correlation_id: Arc<str>,
    client_address: Option<IpAddr>,
    user_agent: Option<Arc<str>>,
}

impl RequestContext {
    pub(crate) fn new(request: &Request, proxies: &TrustedProxies) -> Self {
        let headers = request.headers();
        let request_id = request_id(headers);
        let correlation_id = trace_id(headers).map_or_else(|| Arc::clone(&request_id), Arc::from);
        let user_agent = headers.get(USER_AGENT).map(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .chars()
                .take(Actor::MAX_USER_AGENT_CHARS)
                .collect::<String>()
                .into()
        });
        let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0.ip());
        let client_address = peer.map(|peer| proxies.client_address(peer, headers));
        Self { request_id, correlation_id, client_address, user_agent }
    }

    /// Returns the request id: the client's own if it sent a valid one.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Returns the trace id of `traceparent`, or else the request id.
    pub fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    /// Returns the client's address: the peer of the connection, or the client that trusted proxies name.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.client_address
    }

    /// Returns the client as an actor of this kind.
    pub fn actor(&self, kind: ActorKind) -> Actor {
        Actor {
            kind,
            name: None,
            address: self.client_address.map(|client| client.to_string()),
            user_agent: self.user_agent.as_deref().map(str::to_owned),
        }
    }

    /// Returns the metadata of events that this request's command emits.
    pub fn metadata(&self, command: &str, kind: ActorKind) -> Metadata {
        Metadata {
            command: command.to_owned(),
            actor: self.actor(kind),
            correlation_id: self.correlation_id.as_ref().to_owned(),
            causation_id: self.request_id.as_ref().to_owned(),
            idempotency: None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let context = parts.extensions.get::<Self>().cloned();
        context.ok_or_else(|| Problem::internal("the route is not behind the request middleware"))
    }
}

/// Returns the id of a request: the client's own if it sent a valid one, or else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> Arc<str> {
    client_request_id(headers).map_or_else(new_request_id, Arc::from)
}

/// Returns the client's request id if it is 1 to 128 visible ASCII characters.
fn client_request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let is_valid =
        (1..=MAX_REQUEST_ID_CHARS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_valid.then_some(id)
}

/// Creates a UUIDv7. Its random bits come from the thread-local generator, which seldom makes a system call.
fn new_request_id() -> Arc<str> {
    let now = u64::try_from(clock::now().millis()).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(now, &rand::random()).into_uuid();
    Arc::from(&*id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
}

/// Returns the trace id of a valid `traceparent` header (W3C Trace Context, 3.2.2).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let mut fields = value.split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_hex = |field: &str, length| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |field: &str| field.bytes().all(|byte| byte == b'0');
    let well_formed = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    // Later versions may append fields, version 00 may not.
    let has_valid_field_count = version != "00" || fields.next().is_none();
    (well_formed && has_valid_field_count && version != "ff" && !is_zero(trace) && !is_zero(parent))
        .then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn context(headers: &[(&str, &str)]) -> RequestContext {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        RequestContext::new(&request.body(Body::empty()).unwrap(), &TrustedProxies::default())
    }

    #[test]
    fn keeps_a_valid_request_id_of_the_client_and_replaces_others() {
        assert_eq!(context(&[("x-request-id", "abc-1")]).request_id(), "abc-1");
        let long = "x".repeat(129);
        for invalid in ["", "with space", "tab\t", long.as_str()] {
            let context = context(&[("x-request-id", invalid)]);
            let id = Uuid::parse_str(context.request_id()).unwrap();
            assert_eq!(id.get_version_num(), 7, "{invalid:?}");
        }
    }

    #[test]
    fn takes_the_correlation_id_from_traceparent() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for valid in [
            format!("00-{trace}-00f067aa0ba902b7-01"),
            format!("cc-{trace}-00f067aa0ba902b7-01-what-the-future-brings"),
        ] {
            assert_eq!(context(&[("traceparent", &valid)]).correlation_id(), trace, "{valid}");
        }
    }

    #[test]
    fn falls_back_to_the_request_id_without_a_valid_traceparent() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for invalid in [
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{trace}"),
            String::new(),
        ] {
            let context = context(&[("traceparent", &invalid), ("x-request-id", "me")]);
            assert_eq!(context.correlation_id(), "me", "{invalid}");
        }
    }

    #[test]
    fn truncates_a_long_user_agent() {
        let context = context(&[("user-agent", &"a".repeat(1_000))]);
        assert_eq!(
            context.actor(ActorKind::App).user_agent.map(|agent| agent.len()),
            Some(Actor::MAX_USER_AGENT_CHARS)
        );
    }
}
