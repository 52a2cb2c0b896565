//! The operator's credential, and the guard of admin routes.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The admin token: a secret that `Debug` does not show.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

/// Text that can't be sent as a bearer token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an admin token is one or more visible ASCII characters, without white space")]
pub struct InvalidAdminToken;

impl AdminToken {
    /// Takes a text as the admin token.
    pub fn parse(text: &str) -> Result<Self, InvalidAdminToken> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidAdminToken);
        }
        Ok(Self(text.into()))
    }

    /// Whether `presented` is the token; takes the same time wherever two texts of one length differ.
    fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Who may use admin routes.
#[derive(Clone, Debug)]
pub enum AdminAccess {
    /// Whoever reaches the listener: fit for loopback only.
    Open,
    /// Whoever has the token.
    Token(AdminToken),
}

impl AdminAccess {
    /// Checks a request's `Authorization`.
    pub fn authorize(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Self::Token(token) = self else { return Ok(()) };
        let presented = bearer_token(headers).ok_or_else(|| {
            let challenge = HeaderValue::from_static("Bearer realm=\"admin\"");
            Problem::from_code(ErrorCode::AdminTokenMissing).with_header(WWW_AUTHENTICATE, challenge)
        })?;
        if token.matches(presented) { Ok(()) } else { Err(ErrorCode::AdminTokenWrong.into()) }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let credentials = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = credentials.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

/// The extractor that makes a route an admin route. The first in its handler: nothing else is looked at before.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizedAdmin;

impl<S> FromRequestParts<S> for AuthorizedAdmin
where
    S: Sync,
    AdminAccess: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        AdminAccess::from_ref(state).authorize(&parts.headers).map(|()| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    fn check(authorization: Option<&'static str>) -> Result<(), Problem> {
        let access = AdminAccess::Token(AdminToken::parse("secret").unwrap());
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        }
        access.authorize(&headers)
    }

    #[test]
    fn accepts_only_the_configured_token() {
        assert!(check(Some("Bearer secret")).is_ok());
        assert!(check(Some("bearer  secret ")).is_ok());
        for wrong in ["Bearer Secret", "Bearer secrets", "Bearer secre", "Bearer "] {
            assert_eq!(check(Some(wrong)).unwrap_err().code(), ErrorCode::AdminTokenWrong, "{wrong}");
        }
    }

    #[test]
    fn challenges_a_request_without_a_bearer_token() {
        for none in [None, Some(""), Some("Basic c2VjcmV0"), Some("Bearer"), Some("secret")] {
            let problem = check(none).unwrap_err();
            assert_eq!(problem.code(), ErrorCode::AdminTokenMissing, "{none:?}");
            assert_eq!(problem.into_response().headers()[WWW_AUTHENTICATE], "Bearer realm=\"admin\"");
        }
    }

    #[test]
    fn allows_everyone_without_a_configured_token() {
        assert!(AdminAccess::Open.authorize(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn debug_does_not_give_the_token_away() {
        let access = AdminAccess::Token(AdminToken::parse("secret").unwrap());
        assert_eq!(format!("{access:?}"), "Token(AdminToken(…))");
        assert!(AdminToken::parse("").is_err() && AdminToken::parse("two words").is_err());
    }
}
