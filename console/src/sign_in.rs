//! Signing in, which exchanges an operator's token for the cookie of a session, and signing out.

use std::time::Instant;

use askama::Template;
use axum::extract::{FromRef, FromRequestParts, State};
use axum::response::{Html, IntoResponse, Response};
use chat_ports::clock;
use chat_web::host_policy::SEC_FETCH_SITE;
use chat_web::rate_limit::seconds_rounded_up;
use chat_web::request_context::RequestContext;
use http::header::{RETRY_AFTER, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::access::ConsoleAccess;
use crate::console::Console;
use crate::form::{Form, Query, VerifiedForm, check_same_origin};
use crate::page::{ConsoleError, Page, PageResult, render, see_other};
use crate::session::{COOKIE_NAME, SESSION_SECONDS, Session, new_cookie, session_of};
use crate::text;

/// The path of the sign-in page.
const SIGN_IN: &str = "/console/sign-in";

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl<S> FromRequestParts<S> for Session
where
    S: Sync,
    ConsoleAccess: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let access = ConsoleAccess::from_ref(state);
        session_of(&access, &parts.headers, clock::now()).ok_or_else(|| answer_unknown_visitor(parts))
    }
}

/// Answers a request without a session.
fn answer_unknown_visitor(parts: &Parts) -> Response {
    if parts.method != Method::GET {
        let detail = "You are not signed in, or your session has ended. Nothing was done. Sign in, and send the form again.";
        return ConsoleError::new(StatusCode::UNAUTHORIZED, "Signed out", detail).into_response();
    }
    // A link on a page of another site sends no cookie, because the cookie is SameSite=Strict. A reload sends the
    // cookie.
    if parts.headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return Html("<!doctype html><meta http-equiv=\"refresh\" content=\"0\"><title>Console</title>")
            .into_response();
    }
    let path = parts.uri.path_and_query().map_or("/console", |path| path.as_str());
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
pub(crate) async fn show_sign_in(State(console): State<Console>, Query(query): Query) -> PageResult {
    let next = local_path(query.get("next"));
    if Session::without_sign_in(&console.access).is_some() {
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
        let seconds = seconds_rounded_up(wait);
        let problem = format!(
            "Too many attempts from your address. Try again in {}.",
            text::counted(seconds, "second")
        );
        let mut response = refused(StatusCode::TOO_MANY_REQUESTS, &problem)?;
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        return Ok(response);
    }
    let presented = form.get("token").trim();
    // An empty token would match an operator whose hash is that of an empty text.
    let operator = Some(presented).filter(|token| !token.is_empty());
    let operator = operator.and_then(|token| console.access.policy.authenticate(token.as_bytes()));
    let Some((operator, credential)) =
        operator.and_then(|operator| Some((operator.name, operator.credential?)))
    else {
        console.failed_sign_ins.record(client, now);
        tracing::warn!(?client, "a sign-in to the console was refused");
        return refused(StatusCode::FORBIDDEN, "No operator has this token.");
    };
    let nonce = getrandom::u64().map_err(|error| ConsoleError::internal(&error))?;
    let cookie = new_cookie(&credential, clock::now(), nonce);
    let cookie = cookie.map_err(|error| ConsoleError::internal(&error))?;
    tracing::info!(%operator, ?client, "an operator signed in to the console");
    let mut response = see_other(&next);
    set_cookie(&mut response, &headers, &cookie, SESSION_SECONDS);
    Ok(response)
}

/// `POST /console/sign-out`
pub(crate) async fn sign_out(_: Session, headers: HeaderMap, _: VerifiedForm) -> Response {
    let mut response = see_other(SIGN_IN);
    set_cookie(&mut response, &headers, "", 0);
    response
}

/// Sets the session's cookie. If a proxy says that it received the request over TLS, the browser sends the cookie over
/// TLS only. A client that sends the proxy's header without a proxy changes only its own cookie.
fn set_cookie(response: &mut Response, headers: &HeaderMap, value: &str, seconds: i64) {
    let over_tls = headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https");
    let secure = if over_tls { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE_NAME}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

/// Returns the path if it leads to a page of the console, except to the sign-in page. Otherwise returns the path of the
/// overview. So the `next` of a link to the sign-in page can't lead to another site.
fn local_path(path: &str) -> &str {
    let is_local = path == "/console" || path.starts_with("/console/") || path.starts_with("/console?");
    let is_clean = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_local && is_clean && !path.starts_with(SIGN_IN) { path } else { "/console" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_in_page_leads_nowhere_but_to_the_console() {
        for path in ["/console", "/console/events?type=AppCreated", "/console?x"] {
            assert_eq!(local_path(path), path);
        }
        for path in [
            "",
            "https://evil.example/",
            "//evil.example/console",
            "/consolex",
            "/console/\\evil",
            "/console/\0",
            "/console/ä",
            SIGN_IN,
        ] {
            assert_eq!(local_path(path), "/console", "{path}");
        }
    }
}
