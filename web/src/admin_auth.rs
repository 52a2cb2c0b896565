//! Authorization of requests by the tokens of operators.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use thiserror::Error;
use tokio::sync::watch;

use crate::error_code::ErrorCode;
use crate::operators::{CredentialId, OperatorList, OperatorName, Scope, Scopes, SessionKey, TokenHash};
use crate::problem::Problem;

/// The admin token. `Debug` does not show it.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

/// The error for text that can't be sent as a bearer token.
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
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// An operator who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedOperator {
    /// The operator's name, as actions record it.
    pub name: Arc<str>,
    /// The operator's scopes.
    pub scopes: Scopes,
    /// The credential that the operator presented; `None` with [`AdminAccess::Open`], which requires none.
    pub credential: Option<OperatorCredential>,
}

/// The credential of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorCredential {
    /// The credential's id.
    pub id: CredentialId,
    /// The key that signs the operator's sessions.
    pub session_key: SessionKey,
}

impl AuthorizedOperator {
    /// Checks that the operator has a scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.include(scope) {
            return Ok(());
        }
        // RFC 6750, section 3.1.
        let challenge = match scope {
            Scope::Read => "Bearer realm=\"admin\", error=\"insufficient_scope\", scope=\"read\"",
            Scope::Act => "Bearer realm=\"admin\", error=\"insufficient_scope\", scope=\"act\"",
        };
        Err(Problem::from_code(ErrorCode::OperatorScopeMissing)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge)))
    }
}

/// The access policy of routes for operators.
#[derive(Clone, Debug)]
pub enum AdminAccess {
    /// No authorization: every request counts as one of the operator with this name. Safe on a loopback address only.
    Open(Arc<str>),
    /// Requests must present the token of an operator.
    Operators(Operators),
}

/// The operators of a process.
#[derive(Clone, Debug)]
pub struct Operators {
    /// The token of the operator `admin`, who has all scopes.
    pub admin_token: Option<AdminToken>,
    /// The other operators, as the operators file lists them now.
    pub listed: watch::Receiver<OperatorList>,
}

impl Operators {
    /// The operator `admin` alone.
    pub fn only_admin(token: AdminToken) -> Self {
        // A receiver keeps its value without a sender.
        Self { admin_token: Some(token), listed: watch::channel(OperatorList::default()).1 }
    }

    /// Finds the operator whose token's hash satisfies a condition. All hashes are examined, so that the time that this
    /// takes does not show which operator was found.
    fn find(&self, is_sought: impl Fn(&TokenHash) -> bool) -> Option<AuthorizedOperator> {
        let admin = self.admin_token.as_ref().map(|AdminToken(token)| {
            (OperatorName::ADMIN.to_owned(), Scopes::ReadAndAct, TokenHash::from_token(token.as_bytes()))
        });
        let list = self.listed.borrow();
        let listed = list
            .entries()
            .iter()
            .map(|entry| (entry.name.as_str().to_owned(), entry.scopes, entry.token_hash));
        let found = admin.into_iter().chain(listed).filter(|(_, _, hash)| is_sought(hash)).last();
        found.map(|(name, scopes, hash)| AuthorizedOperator {
            name: name.into(),
            scopes,
            credential: Some(OperatorCredential {
                id: hash.credential_id(),
                session_key: hash.session_key(),
            }),
        })
    }
}

impl AdminAccess {
    /// Access of the operator `admin` alone.
    pub fn with_token(token: AdminToken) -> Self {
        Self::Operators(Operators::only_admin(token))
    }

    /// Returns the operator whose token is in a request's `Authorization` header. Open access needs no token.
    pub fn authenticate_request(&self, headers: &HeaderMap) -> Result<AuthorizedOperator, Problem> {
        if let Self::Open(name) = self {
            return Ok(open_operator(name));
        }
        let presented = bearer_token(headers).ok_or_else(|| {
            let challenge = HeaderValue::from_static("Bearer realm=\"admin\"");
            Problem::from_code(ErrorCode::AdminTokenMissing).with_header(WWW_AUTHENTICATE, challenge)
        })?;
        self.authenticate(presented).ok_or_else(|| ErrorCode::AdminTokenWrong.into())
    }

    /// Returns the operator with a token; `None` if no operator has the token, or if it is blank. With open access, any
    /// token is accepted.
    pub fn authenticate(&self, token: &[u8]) -> Option<AuthorizedOperator> {
        match self {
            Self::Open(name) => Some(open_operator(name)),
            Self::Operators(_) if token.trim_ascii().is_empty() => None,
            Self::Operators(operators) => {
                let presented = TokenHash::from_token(token);
                operators.find(|hash| hash.matches(&presented))
            }
        }
    }

    /// Returns the operator who has a credential now; `None` if the credential was withdrawn. With open access, any
    /// credential is accepted.
    pub fn operator_with_credential(&self, credential: &CredentialId) -> Option<AuthorizedOperator> {
        match self {
            Self::Open(name) => Some(open_operator(name)),
            Self::Operators(operators) => operators.find(|hash| hash.credential_id() == *credential),
        }
    }
}

fn open_operator(name: &Arc<str>) -> AuthorizedOperator {
    AuthorizedOperator { name: Arc::clone(name), scopes: Scopes::ReadAndAct, credential: None }
}

fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let credentials = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = credentials.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

/// Extracts the operator who sent a request, and refuses an operator without [`Scope::Read`]. It must be the handler's
/// first extractor, so that nothing else of an unauthorized request is read.
#[derive(Clone, Debug)]
pub struct ReadingOperator(pub AuthorizedOperator);

/// Extracts the operator who sent a request, and refuses an operator without [`Scope::Act`]. It must be the handler's
/// first extractor too.
#[derive(Clone, Debug)]
pub struct ActingOperator(pub AuthorizedOperator);

impl<S> FromRequestParts<S> for ReadingOperator
where
    S: Sync,
    AdminAccess: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        authorize_for(Scope::Read, parts, state).map(Self)
    }
}

impl<S> FromRequestParts<S> for ActingOperator
where
    S: Sync,
    AdminAccess: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        authorize_for(Scope::Act, parts, state).map(Self)
    }
}

fn authorize_for<S>(scope: Scope, parts: &Parts, state: &S) -> Result<AuthorizedOperator, Problem>
where
    AdminAccess: FromRef<S>,
{
    let operator = AdminAccess::from_ref(state).authenticate_request(&parts.headers)?;
    operator.require(scope)?;
    Ok(operator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    fn admin() -> AdminAccess {
        AdminAccess::with_token(AdminToken::parse("secret").unwrap())
    }

    fn list(lines: &[(&str, &str)]) -> OperatorList {
        let lines: Vec<_> = lines
            .iter()
            .map(|(operator, token)| format!("{operator} {}", TokenHash::from_token(token.as_bytes())))
            .collect();
        OperatorList::parse(&lines.join("\n")).unwrap()
    }

    fn authenticate(
        access: &AdminAccess,
        authorization: Option<&str>,
    ) -> Result<AuthorizedOperator, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        access.authenticate_request(&headers)
    }

    #[test]
    fn accepts_only_the_configured_token() {
        for right in ["Bearer secret", "bearer  secret "] {
            let operator = authenticate(&admin(), Some(right)).unwrap();
            assert_eq!((&*operator.name, operator.scopes), ("admin", Scopes::ReadAndAct));
        }
        for wrong in ["Bearer Secret", "Bearer secrets", "Bearer secre", "Bearer "] {
            let problem = authenticate(&admin(), Some(wrong)).unwrap_err();
            assert_eq!(problem.code(), ErrorCode::AdminTokenWrong, "{wrong}");
        }
    }

    #[test]
    fn challenges_a_request_without_a_bearer_token() {
        for authorization in [None, Some(""), Some("Basic c2VjcmV0"), Some("Bearer"), Some("secret")] {
            let problem = authenticate(&admin(), authorization).unwrap_err();
            assert_eq!(problem.code(), ErrorCode::AdminTokenMissing, "{authorization:?}");
            assert_eq!(problem.into_response().headers()[WWW_AUTHENTICATE], "Bearer realm=\"admin\"");
        }
    }

    #[test]
    fn open_access_allows_a_request_without_a_token() {
        let operator = authenticate(&AdminAccess::Open("alice@ops-1".into()), None).unwrap();
        assert_eq!((&*operator.name, operator.scopes), ("alice@ops-1", Scopes::ReadAndAct));
    }

    #[test]
    fn a_token_belongs_to_its_operator_until_the_list_changes() {
        let (sender, listed) = watch::channel(list(&[("alice read,act", "a"), ("bob read", "b")]));
        let access =
            AdminAccess::Operators(Operators { admin_token: AdminToken::parse("secret").ok(), listed });
        let name =
            |token: &str| access.authenticate(token.as_bytes()).map(|operator| operator.name.to_string());
        assert_eq!(name("a").as_deref(), Some("alice"));
        assert_eq!(name("b").as_deref(), Some("bob"));
        assert_eq!(name("secret").as_deref(), Some("admin"));
        assert_eq!(name(""), None);
        let bobs_credential = access.authenticate(b"b").unwrap().credential.unwrap().id;
        let bobs_credential = CredentialId::new(bobs_credential.as_str());
        assert_eq!(&*access.operator_with_credential(&bobs_credential).unwrap().name, "bob");

        sender.send_replace(list(&[("bob read,act", "new")]));
        assert_eq!(name("a"), None);
        assert_eq!(name("b"), None);
        assert_eq!(name("new").as_deref(), Some("bob"));
        assert_eq!(access.operator_with_credential(&bobs_credential), None);
    }

    #[test]
    fn an_operator_who_may_only_read_does_not_act() {
        let (_, listed) = watch::channel(list(&[("bob read", "b")]));
        let access = AdminAccess::Operators(Operators { admin_token: None, listed });
        let bob = authenticate(&access, Some("Bearer b")).unwrap();
        assert!(bob.require(Scope::Read).is_ok());
        let problem = bob.require(Scope::Act).unwrap_err();
        assert_eq!(problem.code(), ErrorCode::OperatorScopeMissing);
        let response = problem.into_response();
        let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.ends_with("error=\"insufficient_scope\", scope=\"act\""), "{challenge}");
    }

    #[test]
    fn an_admin_token_is_one_word_and_debug_does_not_show_it() {
        assert!(!format!("{:?}", admin()).contains("secret"));
        assert!(AdminToken::parse("").is_err() && AdminToken::parse("two words").is_err());
    }
}
