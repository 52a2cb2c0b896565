//! The options of this process's sockets.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::time::{Instant, sleep};

const TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Returns one value for each connection of this process to a port of any host: whether Nagle's algorithm is off
/// (`TCP_NODELAY`).
///
/// Fails with [`io::ErrorKind::PermissionDenied`] or [`io::ErrorKind::Unsupported`] where the kernel or a sandbox
/// forbids to duplicate descriptors by number.
fn nodelay_of_connections_to(port: u16) -> io::Result<Vec<bool>> {
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|number| number.parse().ok()) else {
            continue;
        };
        let descriptor = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            // Closed since it was listed.
            Err(rustix::io::Errno::BADF) => continue,
            Err(error) => return Err(error.into()),
        };
        // Other descriptors than connected sockets have no peer.
        let stream = TcpStream::from(descriptor);
        if stream.peer_addr().is_ok_and(|peer| peer.port() == port) {
            found.push(stream.nodelay()?);
        }
    }
    Ok(found)
}

/// Waits until this process has at least `connections` connections to these ports, and Nagle's algorithm is off on all:
/// a client turns it off after it has connected.
///
/// # Panics
///
/// Panics if that takes too long, or where the kernel or a sandbox forbids to duplicate descriptors by number.
pub async fn wait_until_nagle_is_off(ports: &[u16], connections: usize) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let found: io::Result<Vec<_>> = ports.iter().map(|port| nodelay_of_connections_to(*port)).collect();
        let found =
            found.unwrap_or_else(|error| panic!("the connections can't be inspected: {error}")).concat();
        if found.len() >= connections && found.iter().all(|nodelay| *nodelay) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "fewer than {connections} connections, or one without TCP_NODELAY: {found:?}"
        );
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn reports_for_each_connection_whether_nagle_is_off() -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let (delaying, prompt) =
            (TcpStream::connect(("127.0.0.1", port))?, TcpStream::connect(("127.0.0.1", port))?);
        prompt.set_nodelay(true)?;
        let mut found = nodelay_of_connections_to(port)?;
        found.sort_unstable();
        assert_eq!(found, [false, true]);
        drop((delaying, prompt));
        Ok(())
    }
}
