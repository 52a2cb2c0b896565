//! Authorization of admin routes with the admin token.

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

/// The admin token. `Debug` does not show it.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

/// Text that can't be sent as a bearer token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an admin token is one or more visible ASCII characters, without white space")]
pub struct InvalidAdminToken;

impl AdminToken {
    /// Parses an admin token.
    pub fn parse(text: &str) -> Result<Self, InvalidAdminToken> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidAdminToken);
        }
        Ok(Self(text.into()))
    }

    /// Whether `presented` is the token, compared in constant time.
    fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// The access policy of admin routes.
#[derive(Clone, Debug)]
pub enum AdminAccess {
    /// No authorization. Safe on a loopback address only.
    Open,
    /// Requests must present the token.
    Token(AdminToken),
}

impl AdminAccess {
    /// Checks the `Authorization` header of a request.
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

/// The extractor that authorizes a request to an admin route. It must be the handler's first extractor, so that
/// nothing else of an unauthorized request is read.
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

    fn authorize(authorization: Option<&'static str>) -> Result<(), Problem> {
        let access = AdminAccess::Token(AdminToken::parse("secret").unwrap());
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        }
        access.authorize(&headers)
    }

    #[test]
    fn accepts_only_the_configured_token() {
        assert!(authorize(Some("Bearer secret")).is_ok());
        assert!(authorize(Some("bearer  secret ")).is_ok());
        for wrong in ["Bearer Secret", "Bearer secrets", "Bearer secre", "Bearer "] {
            assert_eq!(authorize(Some(wrong)).unwrap_err().code(), ErrorCode::AdminTokenWrong, "{wrong}");
        }
    }

    #[test]
    fn challenges_a_request_without_a_bearer_token() {
        for authorization in [None, Some(""), Some("Basic c2VjcmV0"), Some("Bearer"), Some("secret")] {
            let problem = authorize(authorization).unwrap_err();
            assert_eq!(problem.code(), ErrorCode::AdminTokenMissing, "{authorization:?}");
            assert_eq!(problem.into_response().headers()[WWW_AUTHENTICATE], "Bearer realm=\"admin\"");
        }
    }

    #[test]
    fn allows_every_request_without_a_configured_token() {
        assert!(AdminAccess::Open.authorize(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let access = AdminAccess::Token(AdminToken::parse("secret").unwrap());
        assert_eq!(format!("{access:?}"), "Token(AdminToken(…))");
        assert!(AdminToken::parse("").is_err() && AdminToken::parse("two words").is_err());
    }
}
