//! The client address of a request, behind trusted proxies.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use thiserror::Error;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The largest number of `X-Forwarded-For` hops that are read.
const MAX_HOPS: usize = 16;

/// The proxies whose `X-Forwarded-For` is trusted. By default there are none, because any client can send the header.
/// The client address is then the peer of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// The error for text that is not a list of addresses and networks.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("trusted proxies are comma-separated addresses or networks: 10.0.0.7,192.168.0.0/16,::1")]
pub struct InvalidTrustedProxies;

impl FromStr for TrustedProxies {
    type Err = InvalidTrustedProxies;

    fn from_str(text: &str) -> Result<Self, InvalidTrustedProxies> {
        let parse_network = |item: &str| {
            let address = || item.parse::<IpAddr>().map(IpNet::from);
            item.parse::<IpNet>().or_else(|_| address()).map_err(|_| InvalidTrustedProxies)
        };
        text.split(',').map(str::trim).map(parse_network).collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    /// Whether the address belongs to a trusted proxy.
    pub(crate) fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the client of a request that came from `peer`: the nearest hop that is not a trusted proxy. The search
    /// for it is given up where the list ends, after [`MAX_HOPS`], or at a hop that is not an address. In these cases,
    /// the client is the farthest trusted proxy that was found.
    pub(crate) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        if !self.is_trusted(peer) {
            return client;
        }
        // Each proxy appends the address of its peer. Repeated headers form one list.
        let hops = headers.get_all(X_FORWARDED_FOR).iter().rev().flat_map(|value| {
            let list = value.to_str().unwrap_or_default();
            list.rsplit(',').map(|hop| parse_address(hop.trim()))
        });
        for hop in hops.take(MAX_HOPS) {
            let Some(hop) = hop else { break };
            client = hop;
            if !self.is_trusted(hop) {
                break;
            }
        }
        client
    }
}

/// Parses an address with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        let proxies = if trusted.is_empty() { TrustedProxies::default() } else { trusted.parse().unwrap() };
        proxies.client_address(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn ignores_x_forwarded_for_of_an_untrusted_peer() {
        assert_eq!(client("", "203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client() {
        let trusted = "10.0.0.0/8, ::1";
        assert_eq!(client(trusted, "10.0.0.7", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(trusted, "::ffff:10.0.0.7", &["198.51.100.1:5000"]), "198.51.100.1");
        assert_eq!(client(trusted, "::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        // The addresses that the client itself sent come before those that the proxies appended.
        assert_eq!(client(trusted, "10.0.0.7", &["1.1.1.1, 198.51.100.1, 10.0.0.8"]), "198.51.100.1");
        assert_eq!(client(trusted, "10.0.0.7", &["1.1.1.1", "198.51.100.1", "10.0.0.8"]), "198.51.100.1");
    }

    #[test]
    fn the_farthest_trusted_proxy_is_the_client_if_the_list_ends_or_a_hop_is_not_an_address() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &[]), "10.0.0.7");
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &["198.51.100.1, unknown"]), "10.0.0.7");
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &["unknown, 10.0.0.8"]), "10.0.0.8");
        let long = vec!["10.0.0.8"; 1_000].join(",");
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &[&long]), "10.0.0.8");
    }

    #[test]
    fn rejects_other_text_than_addresses_and_networks() {
        for wrong in ["", "proxy", "10.0.0.0/33", "10.0.0.1,,10.0.0.2", "10.0.0.1;10.0.0.2"] {
            assert_eq!(wrong.parse::<TrustedProxies>(), Err(InvalidTrustedProxies), "{wrong}");
        }
    }
}
