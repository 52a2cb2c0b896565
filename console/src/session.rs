//! Sessions: signed cookies. Nothing is stored on the server, so a session is valid at every process that has the same
//! operators, and ends when the operator's token is changed.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chat_domain::Timestamp;
use chat_web::admin_auth::{AdminAccess, OperatorCredential};
use chat_web::operators::{CredentialId, Scope, SessionKey};
use http::HeaderMap;
use http::header::COOKIE;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::access::ConsoleAccess;

/// How long a session lasts, in seconds.
pub(crate) const SESSION_SECONDS: i64 = 12 * 60 * 60;

/// The name of the session's cookie.
pub(crate) const COOKIE_NAME: &str = "chat_console_session";

/// An operator who is signed in, or any visitor if the console requires no sign-in. `sign_in` implements the extractor.
/// Without a session, the extractor redirects a GET request to the sign-in page, and refuses any other request. The
/// browser does not send the cookie when it follows a link from another site. Such a request is first answered with a
/// page that reloads itself.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The operator's name.
    pub(crate) operator: String,
    /// Whether the operator may act, and not only read.
    pub(crate) may_act: bool,
    /// Whether the operator signed in, and can sign out.
    pub(crate) signed_in: bool,
    /// The token that each of the operator's `POST` forms sends.
    pub(crate) form_token: String,
}

/// The content of a cookie.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// The id of the operator's credential.
    credential: String,
    /// When the session ends, in seconds since 1970.
    expires: i64,
    /// Random, so that no two sessions are the same.
    nonce: u64,
}

impl Session {
    /// The session of every visitor, if the console requires no sign-in.
    pub(crate) fn without_sign_in(
        ConsoleAccess { policy, open_session_key }: &ConsoleAccess,
    ) -> Option<Self> {
        let AdminAccess::Open(name) = policy else { return None };
        let form_token = form_token(&signing_key(*open_session_key), "everyone");
        Some(Self { operator: name.to_string(), may_act: true, signed_in: false, form_token })
    }

    /// The session of a request's cookie, if it is valid.
    fn from_cookie(access: &AdminAccess, headers: &HeaderMap, now: Timestamp) -> Option<Self> {
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

/// The session of a request, if it has one.
pub(crate) fn session_of(access: &ConsoleAccess, headers: &HeaderMap, now: Timestamp) -> Option<Session> {
    Session::without_sign_in(access).or_else(|| Session::from_cookie(&access.policy, headers, now))
}

/// Returns the cookie of a new session.
pub(crate) fn new_cookie(
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

/// The token of a session's forms. A page of another site can't read the token. `session` is the session's cookie, or
/// `everyone` if the console requires no sign-in.
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
    fn a_session_ends_after_twelve_hours_or_when_the_token_changes() {
        let cookie = headers(&cookie(1));
        let after = |seconds: i64| Timestamp::from_millis(NOW.millis() + seconds * 1_000);
        let session = Session::from_cookie(&access("secret"), &cookie, after(SESSION_SECONDS - 1)).unwrap();
        assert_eq!((session.operator.as_str(), session.may_act), ("admin", true));
        assert!(Session::from_cookie(&access("secret"), &cookie, after(SESSION_SECONDS)).is_none());
        assert!(Session::from_cookie(&access("another"), &cookie, NOW).is_none());
    }

    #[test]
    fn an_altered_cookie_is_no_session() {
        let cookie = cookie(1);
        let (claims, tag) = cookie.split_once('.').unwrap();
        let json = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let prolonged = json.replace("\"expires\":1", "\"expires\":9");
        let prolonged = BASE64_URL_SAFE_NO_PAD.encode(prolonged);
        for altered in [format!("{prolonged}.{tag}"), format!("{claims}."), claims.to_owned(), String::new()]
        {
            assert!(Session::from_cookie(&access("secret"), &headers(&altered), NOW).is_none(), "{altered}");
        }
    }

    #[test]
    fn form_tokens_of_sessions_differ() {
        let session = |nonce| Session::from_cookie(&access("secret"), &headers(&cookie(nonce)), NOW).unwrap();
        assert_ne!(session(1).form_token, session(2).form_token);
        assert_eq!(session(1).form_token, session(1).form_token);
    }
}
