//! The open connections of a listener: their limits, and which ones make room when a limit is reached.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Gauge, counter, gauge};
use tracing::warn;

use super::connection::ClientConnection;
use crate::client_address::TrustedProxies;

/// When room is needed, one idle connection is closed for each this many open ones: with 640 open connections, ten. So
/// not every connection of a flood causes a search for idle ones.
const CONNECTIONS_PER_CLOSED_ONE: usize = 64;

/// The most connections, in all and of one client address.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections of one client address at a time. The IPv6 addresses of one /64 network count as one address.
    pub max_per_address: usize,
    /// Peers that the limit of an address does not apply to: they forward the requests of many clients.
    pub trusted_proxies: TrustedProxies,
}

impl ConnectionLimits {
    /// Connections by default.
    pub const DEFAULT_CONNECTIONS: usize = 10_000;

    /// Creates limits for this many connections, half of them for one address.
    pub fn new(max_connections: usize) -> Self {
        let max_per_address = max_connections.div_ceil(2);
        Self { max_connections, max_per_address, trusted_proxies: TrustedProxies::default() }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CONNECTIONS)
    }
}

/// The open connections.
pub(super) struct ConnectionTable {
    limits: ConnectionLimits,
    open: Mutex<OpenConnections>,
    gauge: Gauge,
}

#[derive(Default)]
struct OpenConnections {
    last_id: u64,
    by_id: HashMap<u64, OpenConnection>,
    /// The number of connections of each address.
    by_address: HashMap<IpAddr, usize>,
    /// Idle connections that were closed since the last report.
    closed_idle: u64,
    /// New connections that were refused since the last report.
    refused: u64,
}

struct OpenConnection {
    address: IpAddr,
    client: Arc<ClientConnection>,
}

/// The entry of a connection in the table. Dropping it removes the connection from the table.
pub(super) struct ConnectionEntry {
    table: Arc<ConnectionTable>,
    id: u64,
}

impl ConnectionTable {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), gauge: gauge!("chat_http_connections") })
    }

    /// Adds a new connection. If a limit is reached, the connections that have been idle for the longest time are
    /// closed; if none is idle, the new connection is not added.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        client: &Arc<ClientConnection>,
    ) -> Option<ConnectionEntry> {
        let address = network(peer);
        let mut open = self.lock();
        let address_connections = open.by_address.get(&address).copied().unwrap_or(0);
        let is_address_full = address_connections >= self.limits.max_per_address
            && !self.limits.trusted_proxies.is_trusted(peer);
        let (limit, has_room) = if is_address_full {
            ("address", self.close_idle(&mut open, Some(address), "address"))
        } else {
            let is_full = open.by_id.len() >= self.limits.max_connections;
            ("process", !is_full || self.close_idle(&mut open, None, "process"))
        };
        if !has_room {
            open.refused += 1;
            counter!("chat_http_connections_refused_total", "limit" => limit).increment(1);
            return None;
        }
        open.last_id += 1;
        let id = open.last_id;
        open.by_id.insert(id, OpenConnection { address, client: Arc::clone(client) });
        *open.by_address.entry(address).or_default() += 1;
        self.gauge.increment(1.0);
        Some(ConnectionEntry { table: Arc::clone(self), id })
    }

    /// Closes connections that have been idle for the longest time.
    pub(super) fn make_room(&self) {
        self.close_idle(&mut self.lock(), None, "process");
    }

    /// Closes the connections, of one address or of all, that have been idle for the longest time. Returns `false` if
    /// none is idle.
    fn close_idle(&self, open: &mut OpenConnections, address: Option<IpAddr>, limit: &'static str) -> bool {
        let candidates = open
            .by_id
            .iter()
            .filter(|(_, connection)| address.is_none_or(|address| connection.address == address));
        let mut total = 0;
        let mut idle: Vec<_> = candidates
            .inspect(|_| total += 1)
            .filter_map(|(id, connection)| connection.client.idle_since().map(|since| (since, *id)))
            .collect();
        idle.sort_unstable();
        idle.truncate((total / CONNECTIONS_PER_CLOSED_ONE).max(1));
        if idle.is_empty() {
            return false;
        }
        for (_, id) in &idle {
            if let Some(connection) = open.remove(*id) {
                connection.client.close();
                self.gauge.decrement(1.0);
            }
        }
        let closed = idle.len() as u64;
        open.closed_idle += closed;
        counter!("chat_http_connections_closed_idle_total", "limit" => limit).increment(closed);
        true
    }

    /// Logs how many connections were closed or refused since the last call, if any.
    pub(super) fn log_report(&self) {
        let (closed_idle, refused) = self.take_report();
        if closed_idle + refused > 0 {
            warn!(closed_idle, refused, "there are too many connections");
        }
    }

    /// Returns how many idle connections were closed and how many new ones were refused since the last call.
    fn take_report(&self) -> (u64, u64) {
        let mut open = self.lock();
        (std::mem::take(&mut open.closed_idle), std::mem::take(&mut open.refused))
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    fn remove(&mut self, id: u64) -> Option<OpenConnection> {
        let connection = self.by_id.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&connection.address);
            }
        }
        Some(connection)
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        // The connection may have been closed to make room.
        if self.table.lock().remove(self.id).is_some() {
            self.table.gauge.decrement(1.0);
        }
    }
}

/// Returns the address that stands for a client: an IPv4 address, or the /64 network of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_limits::HttpLimits;
    use crate::server::connection::InFlightRequest;

    struct Fixture {
        table: Arc<ConnectionTable>,
        http_limits: Arc<HttpLimits>,
    }

    impl Fixture {
        fn new(max_connections: usize, max_per_address: usize) -> Self {
            let trusted_proxies = "10.0.0.7".parse().unwrap();
            let limits = ConnectionLimits { max_connections, max_per_address, trusted_proxies };
            Self { table: ConnectionTable::new(limits), http_limits: HttpLimits::new(1, 1024) }
        }

        fn connect(&self, peer: &str) -> Option<(ConnectionEntry, Arc<ClientConnection>)> {
            let client = ClientConnection::new(&self.http_limits);
            let entry = self.table.admit(peer.parse().unwrap(), &client)?;
            Some((entry, client))
        }

        fn is_open(&self, entry: &ConnectionEntry) -> bool {
            self.table.lock().by_id.contains_key(&entry.id)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_was_idle_for_the_longest_time_makes_room() {
        let fixture = Fixture::new(3, 3);
        let mut entries = Vec::new();
        for peer in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            entries.push(fixture.connect(peer).unwrap());
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        let _busy = InFlightRequest::begin(&entries[0].1);
        entries[1].1.touch();
        let fourth = fixture.connect("192.0.2.4").unwrap();
        let open: Vec<_> = entries.iter().map(|(entry, _)| fixture.is_open(entry)).collect();
        assert_eq!(open, [true, true, false]);
        assert_eq!(fixture.table.take_report(), (1, 0));
        let _others = [InFlightRequest::begin(&entries[1].1), InFlightRequest::begin(&fourth.1)];
        assert!(fixture.connect("192.0.2.5").is_none(), "no connection is idle");
        assert_eq!(fixture.table.take_report(), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_over_its_limit_closes_its_own_connections_only() {
        let fixture = Fixture::new(100, 2);
        let other = fixture.connect("192.0.2.9").unwrap();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let entries: Vec<_> = (0..5).map(|_| fixture.connect("192.0.2.1").unwrap()).collect();
        assert_eq!(entries.iter().filter(|(entry, _)| fixture.is_open(entry)).count(), 2);
        assert!(fixture.is_open(&other.0));
        let network: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"]
            .map(|peer| fixture.connect(peer).unwrap())
            .into();
        assert_eq!(network.iter().filter(|(entry, _)| fixture.is_open(entry)).count(), 2);
        drop(entries);
        drop(network);
        assert_eq!(fixture.table.lock().by_address.len(), 1);
    }

    #[tokio::test]
    async fn a_trusted_proxy_may_have_all_connections() {
        let fixture = Fixture::new(10, 2);
        let entries: Vec<_> = (0..10).map(|_| fixture.connect("10.0.0.7").unwrap()).collect();
        assert!(entries.iter().all(|(entry, _)| fixture.is_open(entry)));
    }
}
