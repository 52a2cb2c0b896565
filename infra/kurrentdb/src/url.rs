//! KurrentDB connection strings.

use std::fmt;

use kurrentdb::{ClientSettings, Credentials};
use thiserror::Error;

/// The accepted schemes, each also with `+discover`.
const SCHEMES: [&str; 4] = ["kurrentdb", "kurrent", "kdb", "esdb"];

/// The pause of the client before each connection attempt, including the first. The client's default of 500 ms would
/// delay every reconnect.
const DISCOVERY_INTERVAL: &str = "discoveryInterval=50";

/// A parsed connection string. Displayed without user, password and parameters.
#[derive(Clone)]
pub struct KurrentDbUrl {
    redacted: String,
    pub(super) settings: ClientSettings,
    pub(super) credentials: Option<Credentials>,
}

/// An error of parsing a connection string. Contains no secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidKurrentDbUrl {
    /// The scheme is not one of KurrentDB.
    #[error("not one of kurrentdb://, kurrent://, kdb:// and esdb://, with or without +discover")]
    Scheme,
    /// The user or password is not percent-encoded.
    #[error("characters such as @, / and : in the user or the password must be percent-encoded")]
    Credentials,
    /// `maxDiscoverAttempts` is below 2. The client counts the choice of a node as the first attempt, so with a single
    /// attempt it would never connect.
    #[error("maxDiscoverAttempts must be at least 2")]
    TooFewAttempts,
    /// An error of the client.
    #[error("{0}")]
    Settings(String),
}

impl KurrentDbUrl {
    /// Parses a connection string.
    pub fn parse(url: &str) -> Result<Self, InvalidKurrentDbUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidKurrentDbUrl::Scheme)?;
        if !SCHEMES.contains(&scheme.strip_suffix("+discover").unwrap_or(scheme)) {
            return Err(InvalidKurrentDbUrl::Scheme);
        }
        let authority_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, parameters) = rest.split_at(authority_ends);
        // An unescaped separator in a password looks like the end of the hosts; the password must not leak into an error.
        if parameters.contains('@') {
            return Err(InvalidKurrentDbUrl::Credentials);
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        // The client's errors may repeat its input, so it is first parsed without the secrets.
        let without_user = format!("{scheme}://{hosts}{parameters}");
        let settings = |url: &str| with_discovery_interval(url).parse::<ClientSettings>();
        let mut read =
            settings(&without_user).map_err(|error| InvalidKurrentDbUrl::Settings(error.to_string()))?;
        if read.max_discover_attempts() < 2 {
            return Err(InvalidKurrentDbUrl::TooFewAttempts);
        }
        let credentials = user.map(parse_credentials).transpose()?;
        if user.is_some() {
            read = settings(url).map_err(|_| InvalidKurrentDbUrl::Credentials)?;
        }
        Ok(Self { redacted: format!("{scheme}://{hosts}"), settings: read, credentials })
    }

    /// Whether the URL may lead to several nodes.
    pub(super) fn is_cluster(&self) -> bool {
        self.settings.is_dns_discovery_enabled() || self.settings.hosts().len() > 1
    }
}

impl fmt::Display for KurrentDbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl fmt::Debug for KurrentDbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KurrentDbUrl({self})")
    }
}

fn with_discovery_interval(url: &str) -> String {
    if url.to_ascii_lowercase().contains("discoveryinterval=") {
        return url.to_owned();
    }
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{DISCOVERY_INTERVAL}")
}

/// Parses `user:password`. The client itself does not percent-decode.
fn parse_credentials(text: &str) -> Result<Credentials, InvalidKurrentDbUrl> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |text| percent_decode(text).ok_or(InvalidKurrentDbUrl::Credentials);
    Ok(Credentials::new(decode(user)?, decode(password)?))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_every_scheme_with_and_without_discovery() {
        for scheme in SCHEMES {
            let single = KurrentDbUrl::parse(&format!("{scheme}://node:2113?tls=false")).unwrap();
            assert!(!single.is_cluster());
            assert!(!single.settings.is_secure_mode_enabled());
            let cluster = KurrentDbUrl::parse(&format!("{scheme}+discover://cluster")).unwrap();
            assert!(cluster.is_cluster());
            assert!(cluster.settings.is_secure_mode_enabled());
        }
        let seeds = KurrentDbUrl::parse("esdb://a:1,b:2,c:3").unwrap();
        assert!(seeds.is_cluster());
        assert_eq!(seeds.settings.hosts().len(), 3);
    }

    #[test]
    fn rejects_invalid_urls_with_a_reason() {
        let refused = |url| KurrentDbUrl::parse(url).unwrap_err();
        for other in ["", "kurrentdb", "postgres://node", "kurrentdb+srv://node", "sqlite://events.db"] {
            assert_eq!(refused(other), InvalidKurrentDbUrl::Scheme, "{other}");
        }
        assert_eq!(refused("esdb://node?maxDiscoverAttempts=1"), InvalidKurrentDbUrl::TooFewAttempts);
        assert!(matches!(refused("esdb://node?tls=perhaps"), InvalidKurrentDbUrl::Settings(_)));
        assert!(matches!(refused("esdb://node/database"), InvalidKurrentDbUrl::Settings(_)));
        assert_eq!(refused("esdb://ops:100%@node"), InvalidKurrentDbUrl::Credentials);
    }

    #[test]
    fn never_displays_secrets() {
        let secret = "correct%2Fhorse";
        let url = KurrentDbUrl::parse(&format!("kurrentdb://ops:{secret}@a:1,b:2?tls=false")).unwrap();
        assert_eq!(url.to_string(), "kurrentdb://a:1,b:2");
        assert_eq!(format!("{url:?}"), "KurrentDbUrl(kurrentdb://a:1,b:2)");
        assert_eq!(url.credentials, Some(Credentials::new("ops", "correct/horse")));
        for broken in [
            "kurrentdb://ops:horse@a:x",
            "kurrentdb://ops:horse@a?tls=perhaps",
            "esdb://ops:horse@",
            "kurrentdb://ops:ho/horse@a",
            "kurrentdb://ops:horse?horse@a",
            "esdb://ops:#horse@a:1",
        ] {
            let error = KurrentDbUrl::parse(broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("horse"), "{broken}: {error:?}");
        }
    }
}
