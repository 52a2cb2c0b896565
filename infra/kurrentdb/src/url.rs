//! Where the server is: KurrentDB's connection strings.

use std::fmt;

use kurrentdb::{ClientSettings, Credentials};
use thiserror::Error;

/// The schemes, each also with `+discover`.
const SCHEMES: [&str; 4] = ["kurrentdb", "kurrent", "kdb", "esdb"];

/// How long the client waits before it connects to a node that it has chosen, the first one too. Its own default is
/// 500 ms, which every lost connection would cost.
const DISCOVERY_INTERVAL: &str = "discoveryInterval=50";

/// A connection string of KurrentDB, read. Shown without user, password and parameters.
#[derive(Clone)]
pub struct KurrentDbUrl {
    redacted: String,
    pub(super) settings: ClientSettings,
    pub(super) credentials: Option<Credentials>,
}

/// Why a text is not a connection string. Names no secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidKurrentDbUrl {
    /// Of another kind of server.
    #[error("not one of kurrentdb://, kurrent://, kdb:// and esdb://, with or without +discover")]
    Scheme,
    /// A user or password that can't be read.
    #[error("characters such as @, / and : in the user or the password must be percent-encoded")]
    Credentials,
    /// The client counts choosing a node as its first attempt, and would never connect.
    #[error("maxDiscoverAttempts must be 2 at least")]
    TooFewAttempts,
    /// What the client makes of it.
    #[error("{0}")]
    Settings(String),
}

impl KurrentDbUrl {
    /// Reads a connection string.
    pub fn parse(url: &str) -> Result<Self, InvalidKurrentDbUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidKurrentDbUrl::Scheme)?;
        if !SCHEMES.contains(&scheme.strip_suffix("+discover").unwrap_or(scheme)) {
            return Err(InvalidKurrentDbUrl::Scheme);
        }
        let authority_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, parameters) = rest.split_at(authority_ends);
        // What looks like the end of the hosts may be in a password, which is repeated nowhere.
        if parameters.contains('@') {
            return Err(InvalidKurrentDbUrl::Credentials);
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        // The client's own errors may repeat what it was given, so the secrets are kept from it at first.
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

    /// Whether there may be another node to turn to.
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

/// Reads `user:password`. The client itself would send percent signs as they are.
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
    fn every_scheme_is_read_with_and_without_discovery() {
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
    fn secrets_are_never_shown() {
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
