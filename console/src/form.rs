//! Forms: parsing, and the refusal of forms that pages of other sites sent.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use chat_domain::Position;
use chat_web::host_policy::SEC_FETCH_SITE;
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use subtle::ConstantTimeEq;

use crate::access::ConsoleAccess;
use crate::field_problem::FieldProblem;
use crate::page::ConsoleError;
use crate::secret_text::token_in;
use crate::session::Session;
use crate::shown_value::to_parsable;

/// The field of the form token.
const FORM_TOKEN_FIELD: &str = "form_token";

/// The fields of a form or a query string, in their order.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The first value of a field; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    /// The first value of a field, without white space around it. `None` if the rest is empty, or if there is no value.
    pub(crate) fn given(&self, name: &str) -> Option<String> {
        let value = self.get(name).trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// A position in the log; `None` if the field is not set.
    pub(crate) fn position(&self, name: &str) -> Result<Option<Position>, ConsoleError> {
        let position = self.given(name).map(|text| Position::parse(&to_parsable(&text))).transpose();
        position.map_err(|_| ConsoleError::bad_request(format!("`{name}` must be a position in the log.")))
    }

    /// All values of a field.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// The query string of a request.
#[derive(Debug)]
pub(crate) struct Query(pub(crate) Form);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Form::parse(parts.uri.query().unwrap_or("").as_bytes())))
    }
}

/// Why a form was not accepted.
#[derive(Debug)]
pub(crate) enum FormError {
    /// A field can't be used. The page shows the form again, with the values and the problem.
    Field(FieldProblem),
    /// The page can't be shown at all.
    Page(ConsoleError),
}

impl From<ConsoleError> for FormError {
    fn from(error: ConsoleError) -> Self {
        Self::Page(error)
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self::parse(&body))
    }
}

/// A form that an operator sent from a page of the console. It was verified that no page of another site sent the form,
/// that the request's session is valid, and that the form token belongs to this session.
#[derive(Debug)]
pub(crate) struct VerifiedForm(pub(crate) Form);

impl<S> FromRequest<S> for VerifiedForm
where
    S: Send + Sync,
    ConsoleAccess: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        check_same_origin(&parts.headers).map_err(IntoResponse::into_response)?;
        let session = Session::from_request_parts(&mut parts, state).await?;
        let form = Form::from_request(Request::from_parts(parts, body), state).await?;
        let token = form.get(FORM_TOKEN_FIELD);
        if bool::from(token.as_bytes().ct_eq(session.form_token.as_bytes())) {
            return Ok(Self(form));
        }
        let detail =
            "The form belongs to another session. Nothing was done. Reload its page, and send it again.";
        Err(ConsoleError::forbidden(detail).into_response())
    }
}

/// Refuses a form with an app token in one of `fields`: the values of these fields go into the URL of the next page. A
/// token in the field `app` is allowed, because the URL then names the app by the position of the app's creation.
pub(crate) fn refuse_secrets(form: &Form, fields: &[&'static str]) -> Result<(), FieldProblem> {
    let has_secret = |field: &&&'static str| form.all(field).any(|value| token_in(value).is_some());
    match fields.iter().filter(|field| **field != "app").find(has_secret) {
        Some(field) => Err(FieldProblem::new(
            field,
            "This is the token of an app, which is a secret and must not get into an address. Choose the app in the field “App”.",
        )),
        None => Ok(()),
    }
}

/// Refuses a form that a page of another site sent. `Sec-Fetch-Site` says whether the page has the server's origin;
/// older browsers send only `Origin`. Current browsers send `Origin: null` if the page sends no `Referer`. The
/// console's pages send none, so `null` is accepted together with `Sec-Fetch-Site: same-origin`. Clients other than
/// browsers may send neither header.
pub(crate) fn check_same_origin(headers: &HeaderMap) -> Result<(), ConsoleError> {
    let authority = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own_origin = |origin: &HeaderValue| {
        let parts = origin.to_str().ok().and_then(|text| text.split_once("://"));
        parts.is_some_and(|(_, sent)| authority.is_some_and(|own| own.eq_ignore_ascii_case(sent)))
    };
    let is_own = match (headers.get(SEC_FETCH_SITE), headers.get(ORIGIN)) {
        (Some(site), Some(origin)) => site == "same-origin" && (origin == "null" || is_own_origin(origin)),
        (Some(site), None) => site == "same-origin",
        (None, Some(origin)) => is_own_origin(origin),
        (None, None) => true,
    };
    if is_own {
        return Ok(());
    }
    let detail = "The form was sent by a page of another site. Nothing was done.";
    Err(ConsoleError::new(StatusCode::FORBIDDEN, "Not allowed", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(host: &str, origin: Option<&str>, site: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        if let Some(site) = site {
            headers.insert(SEC_FETCH_SITE, site.parse().unwrap());
        }
        check_same_origin(&headers).is_ok()
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        assert!(is_accepted("chat.example", None, None));
        assert!(is_accepted("chat.example", Some("https://chat.example"), Some("same-origin")));
        assert!(is_accepted("127.0.0.1:8000", Some("http://127.0.0.1:8000"), None));
        assert!(is_accepted("127.0.0.1:8000", Some("null"), Some("same-origin")));
        assert!(!is_accepted("chat.example", Some("null"), Some("cross-site")));
        assert!(!is_accepted("chat.example", Some("https://evil.example"), None));
        assert!(!is_accepted("chat.example", Some("null"), None));
        assert!(!is_accepted("chat.example", Some("https://chat.example:444"), None));
        assert!(!is_accepted("chat.example", None, Some("cross-site")));
        assert!(!is_accepted("chat.example", Some("https://chat.example"), Some("same-site")));
    }

    #[test]
    fn a_form_has_several_values_of_a_field() {
        let form = Form::parse(b"type=A&type=B+C&empty=&x=%20y%20");
        assert_eq!(form.all("type").collect::<Vec<_>>(), ["A", "B C"]);
        assert_eq!((form.get("type"), form.get("none")), ("A", ""));
        assert_eq!((form.given("x"), form.given("empty")), (Some("y".to_owned()), None));
    }
}
