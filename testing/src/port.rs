//! Free ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Finds a free port of 127.0.0.1. Another process may take it before it is used: a caller whose server can't listen
/// should retry with another port.
pub fn find_free() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Finds a free port of 127.0.0.1 for a server that is stopped and started again at the same port. Outgoing connections
/// use higher ports, so they do not take it meanwhile.
pub fn find_free_for_restarts() -> io::Result<u16> {
    const FIRST: u16 = 12_000;
    const COUNT: u32 = 20_000;
    const ATTEMPTS: usize = 100;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..ATTEMPTS {
        // Test processes that run at the same time start at different places.
        let start = std::process::id().wrapping_mul(97);
        let index = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = FIRST + u16::try_from(index).map_err(io::Error::other)?;
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Listens again at a port of 127.0.0.1. Waits while another socket has it, such as the short-lived one of
/// [`find_free`].
pub fn listen_again(port: u16) -> io::Result<TcpListener> {
    const TIMEOUT: Duration = Duration::from_secs(20);
    const POLL_INTERVAL: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(POLL_INTERVAL);
            }
            listening => return listening,
        }
    }
}

/// Whether a port of 127.0.0.1 is free.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
