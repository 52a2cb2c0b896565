//! Free ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Finds a free port of 127.0.0.1. Another process may take it before it is used, so callers retry with another port if
/// their server can't listen.
pub fn find_free() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether a port of 127.0.0.1 is free.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
