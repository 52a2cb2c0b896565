//! Signing in: an admin token is exchanged for a signed cookie. Nothing is stored on the server, so a session is good at every
//! process that has the same token, and ends when the token is changed.

use std::time::Instant;

use askama::Template;
use axum::extract::{FromRef, FromRequestParts, OriginalUri, State};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chat_domain::Timestamp;
use chat_ports::clock;
use chat_web::admin_auth::{AdminAccess, OperatorCredential};
use chat_web::operators::{CredentialId, Scope, SessionKey};
use chat_web::request_context::RequestContext;
use http::header::{COOKIE, RETRY_AFTER, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::console::{Console, ConsoleAccess};
use crate::form::{Form, SignedForm, check_same_origin};
use crate::page::{ConsoleError, Page, PageResult, render, see_other};

/// How long a session lasts, in seconds.
const SESSION_SECONDS: i64 = 12 * 60 * 60;

/// The name of the session's cookie.
const COOKIE_NAME: &str = "chat_console_session";

/// The path of the sign-in page.
const SIGN_IN: &str = "/console/sign-in";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// An operator who is signed in. As an extractor it redirects others to the sign-in page.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The operator's name.
    pub(crate) operator: String,
    /// Whether the operator may act, and not only read.
    pub(crate) may_act: bool,
    /// Whether the operator signed in, and can sign out.
    pub(crate) signed_in: bool,
    /// The token that each of the operator's forms sends.
    pub(crate) form_token: String,
}

/// The content of a cookie.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// The id of the operator's credential.
    credential: String,
    expires: i64,
    /// Random, so that no two sessions are the same.
    nonce: u64,
}

impl Session {
    /// The session where no one has to sign in.
    fn of_everyone(ConsoleAccess { access, open_session_key }: &ConsoleAccess) -> Option<Self> {
        let AdminAccess::Open(name) = access else { return None };
        let form_token = form_token(&signing_key(*open_session_key), "everyone");
        Some(Self { operator: name.to_string(), may_act: true, signed_in: false, form_token })
    }

    /// The session of a request's cookie, if it is valid.
    fn of_cookie(access: &AdminAccess, headers: &HeaderMap, now: Timestamp) -> Option<Self> {
        let cookie = session_cookie(headers)?;
        let (claims, tag) = cookie.split_once('.')?;
        let found: Claims = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let operator = access.operator_with_credential(&CredentialId::new(&found.credential))?;
        let key = signing_key(operator.credential.as_ref()?.session_key);
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&key, claims.as_bytes(), &tag).ok()?;
        if found.expires <= now.millis() / 1_000 {
            return None;
        }
        let may_act = operator.scopes.include(Scope::Act);
        let form_token = form_token(&key, cookie);
        Some(Self { operator: operator.name.to_string(), may_act, signed_in: true, form_token })
    }
}

/// Returns the cookie of a new session.
fn new_cookie(
    credential: &OperatorCredential,
    now: Timestamp,
    nonce: u64,
) -> Result<String, serde_json::Error> {
    let expires = now.millis() / 1_000 + SESSION_SECONDS;
    let claims = Claims { credential: credential.id.as_str().to_owned(), expires, nonce };
    let claims = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims)?);
    let tag = hmac::sign(&signing_key(credential.session_key), claims.as_bytes());
    Ok(format!("{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag)))
}

fn signing_key(key: SessionKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.expose())
}

/// The token of the forms of a session. A page of another site can't read it.
fn form_token(key: &hmac::Key, session: &str) -> String {
    let text = format!("form token of {session}");
    BASE64_URL_SAFE_NO_PAD.encode(&hmac::sign(key, text.as_bytes()).as_ref()[..16])
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE_NAME).then_some(value)
    })
}

impl<S> FromRequestParts<S> for Session
where
    S: Sync,
    ConsoleAccess: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let access = ConsoleAccess::from_ref(state);
        let session = Self::of_everyone(&access)
            .or_else(|| Self::of_cookie(&access.access, &parts.headers, clock::now()));
        session.ok_or_else(|| answer_unknown_visitor(parts))
    }
}

/// Answers a request without a session.
fn answer_unknown_visitor(parts: &Parts) -> Response {
    if parts.method != Method::GET {
        let detail = "You are not signed in, or your session has ended. Nothing was done. Sign in, and send the form again.";
        return ConsoleError::new(StatusCode::UNAUTHORIZED, "Signed out", detail).into_response();
    }
    // A link on a page of another site sends no cookie: the session is SameSite=Strict. The page that reloads itself does.
    if parts.headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return Html("<!doctype html><meta http-equiv=\"refresh\" content=\"0\"><title>Console</title>")
            .into_response();
    }
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let path = uri.path_and_query().map_or("/console", |path| path.as_str());
    let next: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
    see_other(&format!("{SIGN_IN}?next={next}"))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    page: Page,
    next: &'a str,
    problem: Option<&'a str>,
}

/// `GET /console/sign-in`
pub(crate) async fn show_sign_in(
    State(console): State<Console>,
    OriginalUri(uri): OriginalUri,
) -> PageResult {
    let query = Form::parse(uri.query().unwrap_or("").as_bytes());
    let next = local_path(query.get("next"));
    if Session::of_everyone(&console.access).is_some() {
        return Ok(see_other(next));
    }
    render(&SignInPage { page: Page::public("Sign in"), next, problem: None })
}

/// `POST /console/sign-in`
pub(crate) async fn sign_in(
    State(console): State<Console>,
    context: RequestContext,
    headers: HeaderMap,
    form: Form,
) -> PageResult {
    check_same_origin(&headers)?;
    let next = local_path(form.get("next")).to_owned();
    let refused = |status, problem: &str| {
        let page =
            render(&SignInPage { page: Page::public("Sign in"), next: &next, problem: Some(problem) })?;
        let mut response = (status, page).into_response();
        response.extensions_mut().insert(chat_web::request_middleware::CustomErrorBody);
        Ok::<_, ConsoleError>(response)
    };
    let (client, now) = (context.client_address(), Instant::now());
    if let Err(wait) = console.failed_sign_ins.check(client, now) {
        let seconds = wait.as_secs().max(1);
        let problem = format!("Too many attempts from your address. Try again in {seconds} seconds.");
        let mut response = refused(StatusCode::TOO_MANY_REQUESTS, &problem)?;
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        return Ok(response);
    }
    let presented = form.get("token").trim();
    let operator = console.access.access.authenticate(presented.as_bytes());
    let Some((operator, credential)) =
        operator.and_then(|operator| Some((operator.name, operator.credential?)))
    else {
        console.failed_sign_ins.record(client, now);
        tracing::warn!(?client, "a sign-in to the console was refused");
        return refused(StatusCode::FORBIDDEN, "No operator has this token.");
    };
    let nonce = getrandom::u64().map_err(|error| ConsoleError::unavailable(&error))?;
    let cookie = new_cookie(&credential, clock::now(), nonce);
    let cookie = cookie.map_err(|error| ConsoleError::unavailable(&error))?;
    tracing::info!(%operator, ?client, "an operator signed in to the console");
    let mut response = see_other(&next);
    set_cookie(&mut response, &headers, &cookie, SESSION_SECONDS);
    Ok(response)
}

/// `POST /console/sign-out`
pub(crate) async fn sign_out(_: Session, headers: HeaderMap, _: SignedForm) -> Response {
    let mut response = see_other(SIGN_IN);
    set_cookie(&mut response, &headers, "", 0);
    response
}

/// Sets the session's cookie. Behind a proxy that says that it received the request over TLS, the browser sends it over TLS
/// only. A client that says so without reason restricts its own cookie.
fn set_cookie(response: &mut Response, headers: &HeaderMap, value: &str, seconds: i64) {
    let over_tls = headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https");
    let secure = if over_tls { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE_NAME}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

/// Returns a path of the console, or else that of its first page: a link to the sign-in page must not lead elsewhere.
fn local_path(path: &str) -> &str {
    let is_local = path == "/console" || path.starts_with("/console/") || path.starts_with("/console?");
    if is_local && !path.contains(['\\', '\r', '\n']) && !path.starts_with(SIGN_IN) {
        path
    } else {
        "/console"
    }
}

#[cfg(test)]
mod tests {
    use chat_web::admin_auth::AdminToken;

    use super::*;

    fn access(token: &str) -> AdminAccess {
        AdminAccess::with_token(AdminToken::parse(token).unwrap())
    }

    fn cookie(nonce: u64) -> String {
        let admin = access("secret").authenticate(b"secret").unwrap();
        new_cookie(&admin.credential.unwrap(), NOW, nonce).unwrap()
    }

    fn headers(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("other=1; {COOKIE_NAME}={cookie}").parse().unwrap());
        headers
    }

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[test]
    fn a_session_ends_after_twelve_hours_or_with_the_token() {
        let cookie = headers(&cookie(1));
        let after = |seconds: i64| Timestamp::from_millis(NOW.millis() + seconds * 1_000);
        let session = Session::of_cookie(&access("secret"), &cookie, after(SESSION_SECONDS - 1)).unwrap();
        assert_eq!((session.operator.as_str(), session.may_act), ("admin", true));
        assert!(Session::of_cookie(&access("secret"), &cookie, after(SESSION_SECONDS)).is_none());
        assert!(Session::of_cookie(&access("another"), &cookie, NOW).is_none());
    }

    #[test]
    fn an_altered_cookie_is_no_session() {
        let cookie = cookie(1);
        let (claims, tag) = cookie.split_once('.').unwrap();
        let longer = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap();
        let longer = String::from_utf8(longer).unwrap().replace("\"expires\":1", "\"expires\":9");
        let others = BASE64_URL_SAFE_NO_PAD.encode(longer);
        for altered in [format!("{others}.{tag}"), format!("{claims}."), claims.to_owned(), String::new()] {
            assert!(Session::of_cookie(&access("secret"), &headers(&altered), NOW).is_none(), "{altered}");
        }
    }

    #[test]
    fn form_tokens_of_sessions_differ() {
        let session = |nonce| Session::of_cookie(&access("secret"), &headers(&cookie(nonce)), NOW).unwrap();
        assert_ne!(session(1).form_token, session(2).form_token);
        assert_eq!(session(1).form_token, session(1).form_token);
    }

    #[test]
    fn the_sign_in_page_leads_nowhere_but_to_the_console() {
        for path in ["/console", "/console/events?type=AppCreated", "/console?x"] {
            assert_eq!(local_path(path), path);
        }
        for path in
            ["", "https://evil.example/", "//evil.example/console", "/consolex", "/console/\\evil", SIGN_IN]
        {
            assert_eq!(local_path(path), "/console", "{path}");
        }
    }
}
