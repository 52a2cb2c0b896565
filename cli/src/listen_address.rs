//! Addresses to listen on, as options name them.

use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::failure::Failure;

/// An address with its port, or a host name with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    Address(SocketAddr),
    Name { host: String, port: u16 },
}

impl ListenAddress {
    /// Parses `IP:PORT` or `HOST:PORT`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let invalid = || "expected IP:PORT or HOST:PORT, such as 127.0.0.1:8000 or localhost:8000".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let port = port.parse().ok().filter(|_| is_name).ok_or_else(invalid)?;
        Ok(Self::Name { host: host.to_owned(), port })
    }

    /// Returns the address. Looks a host name up. Of several addresses of a name, prefers the first IPv4 address,
    /// because `curl` and browsers try that one too.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, Failure> {
        let (host, port) = match self {
            Self::Address(address) => return Ok(*address),
            Self::Name { host, port } => (host, *port),
        };
        let found = (host.as_str(), port).to_socket_addrs();
        let found: Vec<SocketAddr> = found
            .map_err(|error| Failure::because(format!("the address of {host} can't be looked up"), &error))?
            .collect();
        let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
        preferred.ok_or_else(|| Failure::new(format!("{host} has no address")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_a_loopback_address() {
        let address = ListenAddress::parse("localhost:8000").unwrap().resolve().unwrap();
        assert!(address.ip().is_loopback(), "{address}");
        assert_eq!(address.port(), 8000);
    }

    #[test]
    fn takes_only_addresses_and_names_with_a_port() {
        for valid in ["127.0.0.1:8000", "[::1]:0", "chat-1.example.com:80"] {
            assert!(ListenAddress::parse(valid).is_ok(), "{valid}");
        }
        for invalid in
            ["nowhere", "127.0.0.1:99999", "localhost:", ":8000", "::1:8000", "a b:80", "http://a:80"]
        {
            assert!(ListenAddress::parse(invalid).is_err(), "{invalid}");
        }
    }
}
