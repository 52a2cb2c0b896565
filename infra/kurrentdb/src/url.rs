//! KurrentDB connection strings.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};

/// The accepted schemes, each also with `+discover`.
const SCHEMES: [&str; 4] = ["kurrentdb", "kurrent", "kdb", "esdb"];

const DEFAULT_PORT: u16 = 2113;

/// The default of `keepAliveInterval` and `keepAliveTimeout`.
const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The timeout for `keepAliveTimeout=-1`: longer than any process runs, and short enough that adding it to the
/// current time does not overflow.
const NO_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_hours(24 * 365 * 100);

/// Parameters that other clients know and that have no effect here.
const PARAMETERS_WITHOUT_EFFECT: [&str; 6] = [
    "connectionname",
    "defaultdeadline",
    "discoveryinterval",
    "gossiptimeout",
    "maxdiscoverattempts",
    "throwonappendfailure",
];

/// A parsed connection string. Displayed without user, password and parameters.
#[derive(Clone)]
pub struct KurrentDbUrl {
    redacted: String,
    discovers_nodes: bool,
    /// At least one.
    pub(super) hosts: Vec<Host>,
    /// The value of the `authorization` header, if the URL names a user.
    pub(super) authorization: Option<MetadataValue<Ascii>>,
    pub(super) tls: Option<TlsSettings>,
    pub(super) node_preference: NodePreference,
    pub(super) keep_alive_interval: Option<Duration>,
    pub(super) keep_alive_timeout: Duration,
}

/// The name or address of a host, and its port. An IPv6 address is in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// The TLS settings of a connection string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsSettings {
    /// The certificate authority, instead of those of the system.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) verification: CertificateVerification,
    /// The client's certificate and its key.
    pub(super) client_files: Option<(PathBuf, PathBuf)>,
}

/// Whether the server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CertificateVerification {
    #[default]
    Enabled,
    Disabled,
}

/// Which node of a cluster a connection prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NodePreference {
    #[default]
    Leader,
    Follower,
    Random,
    ReadOnlyReplica,
}

/// An error of parsing a connection string. Contains no secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidKurrentDbUrl {
    /// The scheme is missing, or KurrentDB's connection strings don't use it.
    #[error("not one of kurrentdb://, kurrent://, kdb:// and esdb://, with or without +discover")]
    Scheme,
    /// The user or password is not percent-encoded.
    #[error("characters such as @, / and : in the user or the password must be percent-encoded")]
    Credentials,
    /// A host is missing, or is not a name or an address with an optional port.
    #[error("the hosts must be names or addresses, such as node1:2113,node2:2113")]
    Hosts,
    /// The URL has a path or a fragment.
    #[error("a path after the hosts has no meaning")]
    Path,
    /// The value of a parameter is invalid.
    #[error("the parameter {name} must be {expected}")]
    Parameter {
        /// The parameter's name.
        name: &'static str,
        /// The valid values.
        expected: &'static str,
    },
    /// The parameter does not exist.
    #[error("there is no parameter {0:?}")]
    UnknownParameter(String),
    /// Only one of the client certificate's two files is set.
    #[error("userCertFile and userKeyFile must be set together")]
    ClientCertificate,
}

impl KurrentDbUrl {
    /// Parses a connection string.
    pub fn parse(url: &str) -> Result<Self, InvalidKurrentDbUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidKurrentDbUrl::Scheme)?;
        let (plain_scheme, discovers_nodes) = match scheme.strip_suffix("+discover") {
            Some(plain_scheme) => (plain_scheme, true),
            None => (scheme, false),
        };
        if !SCHEMES.contains(&plain_scheme) {
            return Err(InvalidKurrentDbUrl::Scheme);
        }
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after_authority) = rest.split_at(authority_end);
        // The password probably contains an unescaped `/`, `?` or `#`. Then `after_authority` begins with the rest of
        // the password, which must not appear in an error as the name of an unknown parameter.
        if after_authority.contains('@') {
            return Err(InvalidKurrentDbUrl::Credentials);
        }
        let (credentials, hosts_text) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (path, query) = after_authority.split_once('?').unwrap_or((after_authority, ""));
        if !matches!(path, "" | "/") || query.contains('#') {
            return Err(InvalidKurrentDbUrl::Path);
        }
        let hosts = hosts_text.split(',').map(parse_host).collect::<Option<Vec<_>>>();
        let mut url = Self {
            redacted: format!("{scheme}://{hosts_text}"),
            discovers_nodes,
            hosts: hosts.ok_or(InvalidKurrentDbUrl::Hosts)?,
            authorization: credentials.map(parse_credentials).transpose()?,
            tls: Some(TlsSettings::default()),
            node_preference: NodePreference::default(),
            keep_alive_interval: Some(DEFAULT_KEEP_ALIVE),
            keep_alive_timeout: DEFAULT_KEEP_ALIVE,
        };
        url.read_parameters(query)?;
        Ok(url)
    }

    fn read_parameters(&mut self, query: &str) -> Result<(), InvalidKurrentDbUrl> {
        let mut tls = TlsSettings::default();
        let (mut tls_enabled, mut certificate, mut key) = (true, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.to_ascii_lowercase().as_str() {
                "tls" => tls_enabled = parse_bool("tls", &value)?,
                "tlsverifycert" => {
                    tls.verification = if parse_bool("tlsVerifyCert", &value)? {
                        CertificateVerification::Enabled
                    } else {
                        CertificateVerification::Disabled
                    };
                }
                "tlscafile" => tls.ca_file = Some(value.into_owned().into()),
                "usercertfile" => certificate = Some(PathBuf::from(value.into_owned())),
                "userkeyfile" => key = Some(PathBuf::from(value.into_owned())),
                "nodepreference" => self.node_preference = parse_node_preference(&value)?,
                "keepaliveinterval" => {
                    self.keep_alive_interval = parse_millis("keepAliveInterval", &value)?;
                }
                "keepalivetimeout" => {
                    self.keep_alive_timeout =
                        parse_millis("keepAliveTimeout", &value)?.unwrap_or(NO_KEEP_ALIVE_TIMEOUT);
                }
                name if PARAMETERS_WITHOUT_EFFECT.contains(&name) => {}
                _ => return Err(InvalidKurrentDbUrl::UnknownParameter(name.into_owned())),
            }
        }
        tls.client_files = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(InvalidKurrentDbUrl::ClientCertificate),
        };
        self.tls = tls_enabled.then_some(tls);
        Ok(())
    }

    /// Whether the URL may lead to several nodes.
    pub(super) fn is_cluster(&self) -> bool {
        self.discovers_nodes || self.hosts.len() > 1
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

/// Parses `name`, `name:port`, or an IPv6 address in brackets with or without a port.
fn parse_host(text: &str) -> Option<Host> {
    let name_end = match text.find(']') {
        Some(bracket) if text.starts_with('[') => bracket + 1,
        Some(_) => return None,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (name, port) = text.split_at(name_end);
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return None,
    };
    // Checked here, so that the URI that is later made from the host is valid.
    let is_valid = !name.is_empty() && format!("{name}:{port}").parse::<http::uri::Authority>().is_ok();
    is_valid.then(|| Host { name: name.to_owned(), port })
}

/// Parses `user:password` or `user` into the value of the `authorization` header.
fn parse_credentials(text: &str) -> Result<MetadataValue<Ascii>, InvalidKurrentDbUrl> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |text| percent_decode(text).ok_or(InvalidKurrentDbUrl::Credentials);
    let encoded = BASE64.encode(format!("{}:{}", decode(user)?, decode(password)?));
    let mut value =
        MetadataValue::try_from(format!("Basic {encoded}")).map_err(|_| InvalidKurrentDbUrl::Credentials)?;
    value.set_sensitive(true);
    Ok(value)
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
        // `from_str_radix` also takes a sign.
        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn parse_bool(name: &'static str, value: &str) -> Result<bool, InvalidKurrentDbUrl> {
    value.parse().map_err(|_| InvalidKurrentDbUrl::Parameter { name, expected: "true or false" })
}

/// Parses a number of milliseconds. `None` for -1, which means never.
fn parse_millis(name: &'static str, value: &str) -> Result<Option<Duration>, InvalidKurrentDbUrl> {
    if value == "-1" {
        return Ok(None);
    }
    match value.parse() {
        Ok(millis) => Ok(Some(Duration::from_millis(millis))),
        Err(_) => Err(InvalidKurrentDbUrl::Parameter {
            name,
            expected: "a number of milliseconds, or -1 for never",
        }),
    }
}

fn parse_node_preference(value: &str) -> Result<NodePreference, InvalidKurrentDbUrl> {
    match value.to_ascii_lowercase().as_str() {
        "leader" => Ok(NodePreference::Leader),
        "follower" => Ok(NodePreference::Follower),
        "random" => Ok(NodePreference::Random),
        "readonlyreplica" => Ok(NodePreference::ReadOnlyReplica),
        _ => Err(InvalidKurrentDbUrl::Parameter {
            name: "nodePreference",
            expected: "leader, follower, random or readOnlyReplica",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_every_scheme_with_and_without_discovery() {
        for scheme in SCHEMES {
            let single = KurrentDbUrl::parse(&format!("{scheme}://node:2113?tls=false")).unwrap();
            assert!(!single.is_cluster());
            assert_eq!(single.tls, None);
            let cluster = KurrentDbUrl::parse(&format!("{scheme}+discover://cluster")).unwrap();
            assert!(cluster.is_cluster());
            assert_eq!(cluster.tls, Some(TlsSettings::default()));
            assert_eq!(cluster.hosts, [Host { name: "cluster".to_owned(), port: DEFAULT_PORT }]);
        }
        let seeds = KurrentDbUrl::parse("esdb://a:1,b,[::1]:3/?nodePreference=Follower").unwrap();
        assert!(seeds.is_cluster());
        let hosts: Vec<String> = seeds.hosts.iter().map(Host::to_string).collect();
        assert_eq!(hosts, ["a:1", "b:2113", "[::1]:3"]);
        assert_eq!(seeds.node_preference, NodePreference::Follower);
    }

    #[test]
    fn reads_the_parameters_whatever_the_case_of_their_names() {
        let url = "esdb://a?TLSCAFILE=/certs/my%20ca.crt&tlsVerifyCert=false&keepAliveInterval=-1&keepAliveTimeout=500\
                   &userCertFile=c&userKeyFile=k&defaultDeadline=1&maxDiscoverAttempts=1";
        let url = KurrentDbUrl::parse(url).unwrap();
        let tls = TlsSettings {
            ca_file: Some("/certs/my ca.crt".into()),
            verification: CertificateVerification::Disabled,
            client_files: Some(("c".into(), "k".into())),
        };
        assert_eq!(url.tls, Some(tls));
        assert_eq!(url.keep_alive_interval, None);
        assert_eq!(url.keep_alive_timeout, Duration::from_millis(500));
    }

    #[test]
    fn rejects_invalid_urls_with_a_reason() {
        let refused = |url: &str| KurrentDbUrl::parse(url).unwrap_err();
        for other in ["", "kurrentdb", "postgres://node", "kurrentdb+srv://node", "sqlite://events.db"] {
            assert_eq!(refused(other), InvalidKurrentDbUrl::Scheme, "{other}");
        }
        for hosts in
            ["esdb://", "esdb://a:x", "esdb://a:1:2", "esdb://a,", "esdb://a b", "esdb://::1", "esdb://a]"]
        {
            assert_eq!(refused(hosts), InvalidKurrentDbUrl::Hosts, "{hosts}");
        }
        assert_eq!(refused("esdb://node/database"), InvalidKurrentDbUrl::Path);
        for password in ["100%", "%+f", "%-1"] {
            assert_eq!(refused(&format!("esdb://ops:{password}@node")), InvalidKurrentDbUrl::Credentials);
        }
        assert_eq!(refused("esdb://node?userKeyFile=k"), InvalidKurrentDbUrl::ClientCertificate);
        let unknown = InvalidKurrentDbUrl::UnknownParameter("tlsCa".to_owned());
        assert_eq!(refused("esdb://node?tlsCa=ca.crt"), unknown);
        for parameter in ["tls=perhaps", "keepAliveInterval=soon", "nodePreference=nearest"] {
            let error = refused(&format!("esdb://node?{parameter}"));
            assert!(matches!(error, InvalidKurrentDbUrl::Parameter { .. }), "{parameter}: {error:?}");
        }
    }

    #[test]
    fn never_displays_secrets() {
        let secret = "correct%2Fhorse";
        let url = KurrentDbUrl::parse(&format!("kurrentdb://ops:{secret}@a:1,b:2?tls=false")).unwrap();
        assert_eq!(url.to_string(), "kurrentdb://a:1,b:2");
        assert_eq!(format!("{url:?}"), "KurrentDbUrl(kurrentdb://a:1,b:2)");
        assert_eq!(url.authorization.as_ref().unwrap(), "Basic b3BzOmNvcnJlY3QvaG9yc2U=");
        assert_eq!(format!("{:?}", url.authorization.unwrap()), "Sensitive");
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
