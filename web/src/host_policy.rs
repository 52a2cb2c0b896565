//! The checks of `Host`, `Origin` and `Sec-Fetch-Site`.
//!
//! A server that requires no token of operators trusts every client that reaches its loopback address. Every web page
//! in a browser on that machine can send requests to this address: across origins, or by DNS rebinding, where the host
//! name of the page's own origin resolves to a loopback address. So such a server answers only for host names that
//! can't belong to other sites. It also refuses requests that pages of other sites cause, except followed links and
//! what CORS allows.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use thiserror::Error;

use crate::cors::CorsOrigins;
use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The header in which a browser names the relation between the server and the page that sends the request:
/// `same-origin`, `same-site`, `cross-site`, or `none` if no page sends it.
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Paths that orchestrators and monitoring request by the address of a process. For them, `Host` may be any IP address:
/// DNS rebinding needs a name.
const PROBE_PATHS: [&str; 5] = ["/livez", "/up", "/readyz", "/health", "/metrics"];

/// The longest name of a host, without a final dot (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// The hosts that a server answers for.
#[derive(Clone, Debug, Default)]
pub enum HostPolicy {
    /// Any host. For a server that requires a token of operators.
    #[default]
    Any,
    /// Loopback names and addresses, and these hosts. Requests of pages of other sites are refused too, except followed
    /// links and what CORS allows.
    LoopbackAnd(AllowedHosts),
}

/// Host names and addresses beside those of the loopback interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// The error for text that is not a list of host names and addresses.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "allowed hosts are comma-separated names or addresses without a port: chat.example,10.0.0.7,[fd00::7]"
)]
pub struct InvalidAllowedHosts;

/// The host of an authority or origin, without its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

impl FromStr for AllowedHosts {
    type Err = InvalidAllowedHosts;

    fn from_str(text: &str) -> Result<Self, InvalidAllowedHosts> {
        let mut hosts = Self::default();
        for host in text.split(',').map(str::trim) {
            let has_port = host.contains(':') && !host.ends_with(']');
            match Host::parse(host).filter(|_| !has_port).ok_or(InvalidAllowedHosts)? {
                Host::Name(name) => hosts.names.push(name.to_owned()),
                Host::Address(address) => hosts.addresses.push(address),
            }
        }
        Ok(hosts)
    }
}

impl AllowedHosts {
    fn contains(&self, host: Host<'_>) -> bool {
        match host {
            Host::Name(name) => self.names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)),
            Host::Address(address) => self.addresses.contains(&address),
        }
    }
}

impl<'a> Host<'a> {
    /// Parses a host with or without a port. Names are in the form that a DNS resolver takes, without
    /// percent-encoding.
    fn parse(authority: &'a str) -> Option<Self> {
        if let Some(bracketed) = authority.strip_prefix('[') {
            let (address, port) = bracketed.split_once(']')?;
            let address = address.parse::<Ipv6Addr>().ok()?;
            let has_valid_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return has_valid_port.then(|| Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
        if !is_port(port) {
            return None;
        }
        if let Ok(address) = name.parse() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        (name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label)).then_some(Self::Name(name))
    }

    fn is_loopback(self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            // `localhost` and names below it always resolve to loopback addresses (RFC 6761, 6.3).
            Self::Name(name) => {
                name.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
            }
        }
    }
}

/// Whether text is a port, or empty as in `host:`.
fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

impl HostPolicy {
    /// Checks that a request has one valid host, that the policy allows this host, and that no page of another site
    /// sent the request. Pages of other sites may send what `cors` allows, and may open a page by a link.
    pub(crate) fn check<B>(&self, request: &Request<B>, cors: Option<&CorsOrigins>) -> Result<(), Problem> {
        let host = request_host(request)?;
        let Self::LoopbackAnd(hosts) = self else { return Ok(()) };
        let is_allowed = |host: Host<'_>| host.is_loopback() || hosts.contains(host);
        let is_probe = PROBE_PATHS.contains(&request.uri().path());
        let is_refused = match host {
            // A request without a host is HTTP/1.0, which no browser sends.
            None => false,
            Some(Host::Address(_)) if is_probe => false,
            Some(host) => !is_allowed(host),
        };
        if is_refused {
            return Err(Problem::new(
                ErrorCode::OriginRefused,
                "without an admin token the server answers only for `localhost`, loopback addresses and its allowed \
                 hosts, and `Host` is another one",
            ));
        }
        let may_use_cors = cors.is_some_and(|origins| origins.allows(request));
        if !may_use_cors && is_from_foreign_page(request, is_allowed) {
            return Err(ErrorCode::OriginRefused.into());
        }
        Ok(())
    }
}

/// Returns the host that a request is for. Only HTTP/1.0 may leave it out.
fn request_host<B>(request: &Request<B>) -> Result<Option<Host<'_>>, Problem> {
    let invalid = |detail| Problem::new(ErrorCode::HostInvalid, detail);
    let mut headers = request.headers().get_all(HOST).iter();
    let (header, another) = (headers.next(), headers.next());
    if another.is_some() {
        return Err(invalid("the request has more than one `Host`"));
    }
    let header = match header.map(|value| value.to_str()) {
        Some(Ok(value)) => Some(value),
        Some(Err(_)) => return Err(ErrorCode::HostInvalid.into()),
        None => None,
    };
    // `:authority` in HTTP/2, and the target of HTTP/1 in its absolute form.
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    let host = match (target, header) {
        (Some(target), Some(header)) if !target.eq_ignore_ascii_case(header) => {
            return Err(invalid("`Host` differs from the host in the request's target"));
        }
        (None, None) if request.version() <= Version::HTTP_10 => return Ok(None),
        (_, None) if request.version() == Version::HTTP_11 => {
            return Err(invalid("the request has no `Host`"));
        }
        (_, Some(host)) | (Some(host), None) => host,
        (None, None) => return Err(invalid("the request has no `:authority`")),
    };
    Host::parse(host).map(Some).ok_or_else(|| ErrorCode::HostInvalid.into())
}

/// Whether a browser sent the request for a page of another site.
fn is_from_foreign_page<B>(request: &Request<B>, is_allowed: impl Fn(Host<'_>) -> bool) -> bool {
    let headers = request.headers();
    let is_own = |origin: &str| {
        let host = origin.split_once("://").and_then(|(_, authority)| Host::parse(authority));
        host.is_some_and(&is_allowed)
    };
    // The origin of sandboxed frames and local files is `null`, and they are foreign. A form on a page of this server
    // has the origin `null` too if the page sends no `Referer`, but then `Sec-Fetch-Site` is `same-origin`.
    let is_same_origin = header_is(headers, &SEC_FETCH_SITE, "same-origin");
    let is_foreign =
        |origin: &HeaderValue| !(origin.to_str().is_ok_and(&is_own) || is_same_origin && origin == "null");
    let has_foreign_origin = headers.get_all(ORIGIN).iter().any(is_foreign);
    let is_cross_site = header_is(headers, &SEC_FETCH_SITE, "cross-site");
    has_foreign_origin || (is_cross_site && !is_followed_link(request))
}

/// Whether a request opens a page in a whole window and not in a frame, as a followed link does. The page with the link
/// can't read the response.
fn is_followed_link<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && header_is(request.headers(), &SEC_FETCH_MODE, "navigate")
        && header_is(request.headers(), &SEC_FETCH_DEST, "document")
}

fn header_is(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    headers.get(name).is_some_and(|header| header.as_bytes() == value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback_and(hosts: &str) -> HostPolicy {
        HostPolicy::LoopbackAnd(if hosts.is_empty() {
            AllowedHosts::default()
        } else {
            hosts.parse().unwrap()
        })
    }

    fn check(policy: &HostPolicy, target: &str, headers: &[(&str, &str)]) -> Option<ErrorCode> {
        let version = if target.contains("://") { Version::HTTP_2 } else { Version::HTTP_11 };
        check_in_version(policy, version, target, headers)
    }

    fn check_in_version(
        policy: &HostPolicy,
        version: Version,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Option<ErrorCode> {
        let request = headers.iter().fold(Request::get(target).version(version), |request, (name, value)| {
            request.header(*name, *value)
        });
        policy.check(&request.body(()).unwrap(), None).err().map(|problem| problem.code())
    }

    #[test]
    fn without_an_admin_token_only_loopback_hosts_are_answered() {
        let policy = loopback_and("");
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "app.localhost:80",
            "127.0.0.1",
            "127.8.9.1:8000",
            "[::1]",
            "[::1]:8000",
            "[::ffff:127.0.0.1]",
            "localhost:",
        ] {
            assert_eq!(check(&policy, "/apps", &[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.nip.io",
            "0.0.0.0:8000",
            "10.0.0.7",
            "[fd00::7]",
            "127.1",
            "2130706433",
            "[::]",
        ] {
            let refused = Some(ErrorCode::OriginRefused);
            assert_eq!(check(&policy, "/apps", &[("host", host)]), refused, "{host}");
            assert_eq!(check(&policy, &format!("http://{host}/apps"), &[]), refused, "{host}");
            assert_eq!(check(&HostPolicy::Any, "/apps", &[("host", host)]), None, "{host}");
        }
        assert_eq!(check(&policy, "http://localhost:8000/apps", &[]), None);
    }

    #[test]
    fn every_request_has_exactly_one_valid_host() {
        for policy in [HostPolicy::Any, loopback_and("")] {
            let invalid = Some(ErrorCode::HostInvalid);
            for host in [
                "",
                " ",
                "a b",
                "a/b",
                "user@localhost",
                "localhost:port",
                "localhost:65536",
                "localhost:1:2",
                "::1",
                "[::1",
                "[::1]8",
                "[localhost]",
                ".localhost",
                "a..localhost",
                "%6cocalhost",
                "localhost,localhost",
                "löcalhost",
                &"a.".repeat(200),
            ] {
                let value = http::HeaderValue::from_bytes(host.as_bytes()).unwrap();
                let request = Request::get("/").header("host", value).body(()).unwrap();
                assert_eq!(
                    policy.check(&request, None).err().map(|problem| problem.code()),
                    invalid,
                    "{host}"
                );
            }
            assert_eq!(check(&policy, "/", &[("host", "localhost"), ("host", "localhost")]), invalid);
            assert_eq!(check(&policy, "/", &[]), invalid);
            assert_eq!(check_in_version(&policy, Version::HTTP_2, "/", &[]), invalid);
            // The target of a request names the host too: as `:authority`, or in the absolute form of HTTP/1.1.
            assert_eq!(check(&policy, "http://localhost/", &[("host", "127.0.0.1")]), invalid);
            assert_eq!(check(&policy, "http://localhost/", &[("host", "Localhost")]), None);
            assert_eq!(check_in_version(&policy, Version::HTTP_11, "http://localhost/", &[]), invalid);
            assert_eq!(check(&policy, "http://user@localhost/", &[]), invalid);
        }
    }

    #[test]
    fn http_1_0_may_have_no_host() {
        for policy in [HostPolicy::Any, loopback_and("")] {
            assert_eq!(check_in_version(&policy, Version::HTTP_10, "/readyz", &[]), None);
        }
        let foreign = check_in_version(&loopback_and(""), Version::HTTP_10, "/", &[("host", "evil.example")]);
        assert_eq!(foreign, Some(ErrorCode::OriginRefused));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let policy = loopback_and("chat.example");
        let with =
            |headers: &[(&str, &str)]| check(&policy, "/apps", &[&[("host", "localhost")], headers].concat());
        for origin in
            ["http://localhost:8000", "http://127.0.0.1:3000", "http://[::1]", "https://chat.example"]
        {
            assert_eq!(with(&[("origin", origin)]), None, "{origin}");
        }
        for origin in ["http://evil.example", "null", "", "localhost", "http://localhost.evil.example"] {
            assert_eq!(with(&[("origin", origin)]), Some(ErrorCode::OriginRefused), "{origin}");
        }
        let both = [("origin", "http://localhost"), ("origin", "http://evil.example")];
        assert_eq!(with(&both), Some(ErrorCode::OriginRefused));
        for site in ["same-origin", "same-site", "none"] {
            assert_eq!(with(&[("sec-fetch-site", site)]), None, "{site}");
        }
        // A form of a page that sends no referrer, and one in a sandboxed frame.
        assert_eq!(with(&[("origin", "null"), ("sec-fetch-site", "same-origin")]), None);
        let sandboxed = with(&[("origin", "null"), ("sec-fetch-site", "cross-site")]);
        assert_eq!(sandboxed, Some(ErrorCode::OriginRefused));
        let cross_site = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert_eq!(with(&cross_site), Some(ErrorCode::OriginRefused));
        assert_eq!(check(&HostPolicy::Any, "/apps", &[&[("host", "a")], &cross_site[..]].concat()), None);
    }

    #[test]
    fn a_link_from_another_site_opens_a_page_but_no_frame() {
        let policy = loopback_and("");
        let open = |destination| {
            let headers = [
                ("host", "localhost:8000"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", destination),
            ];
            check(&policy, "/docs", &headers)
        };
        assert_eq!(open("document"), None);
        assert_eq!(open("iframe"), Some(ErrorCode::OriginRefused));
    }

    #[test]
    fn probes_are_answered_by_address_but_not_by_a_foreign_name() {
        let policy = loopback_and("");
        for path in PROBE_PATHS {
            assert_eq!(check(&policy, path, &[("host", "10.1.2.3:8000")]), None, "{path}");
            assert_eq!(check(&policy, path, &[("host", "[fd00::7]:8000")]), None, "{path}");
            assert_eq!(
                check(&policy, path, &[("host", "evil.example")]),
                Some(ErrorCode::OriginRefused),
                "{path}"
            );
        }
        assert_eq!(
            check(&policy, "/admin/v1/events", &[("host", "10.1.2.3")]),
            Some(ErrorCode::OriginRefused)
        );
    }

    #[test]
    fn allowed_hosts_are_names_and_addresses() {
        let policy = loopback_and("chat.example., 10.0.0.7,[fd00::7]");
        for host in ["chat.example", "Chat.Example:8443", "10.0.0.7:80", "[fd00::7]:8000", "localhost"] {
            assert_eq!(check(&policy, "/apps", &[("host", host)]), None, "{host}");
        }
        for host in ["a.chat.example", "10.0.0.8"] {
            assert_eq!(check(&policy, "/apps", &[("host", host)]), Some(ErrorCode::OriginRefused), "{host}");
        }
        for wrong in
            ["", "chat.example:8000", "10.0.0.7:80", "[::1]:80", "http://chat.example", "a,,b", "*", "::1"]
        {
            assert_eq!(wrong.parse::<AllowedHosts>(), Err(InvalidAllowedHosts), "{wrong}");
        }
    }
}
