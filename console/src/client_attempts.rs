//! The limit of failed attempts to sign in, for each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The number of failed attempts in one window after which an address has to wait until the window ends.
const MAX_ATTEMPTS: u32 = 10;

/// The length of a window.
const WINDOW: Duration = Duration::from_mins(1);

/// The maximum number of remembered addresses. When it is reached, windows that have ended are removed; if none has
/// ended, all windows are removed.
const MAX_ADDRESSES: usize = 10_000;

/// Counts the failed attempts of client addresses. IPv6 addresses are counted by /64 network, because one client
/// usually has a whole network. Clients of unknown address are counted together, as `None`.
#[derive(Debug, Default)]
pub(crate) struct FailedAttempts(Mutex<HashMap<Option<IpAddr>, Window>>);

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    attempts: u32,
}

impl FailedAttempts {
    /// Checks whether a client may try to sign in. The error is the time that it has to wait.
    pub(crate) fn check(&self, client: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(window) = windows.get(&client.map(network)) else { return Ok(()) };
        let age = now.saturating_duration_since(window.began);
        match WINDOW.checked_sub(age).filter(|wait| !wait.is_zero()) {
            Some(wait) if window.attempts >= MAX_ATTEMPTS => Err(wait),
            _ => Ok(()),
        }
    }

    /// Counts a failed attempt.
    pub(crate) fn record(&self, client: Option<IpAddr>, now: Instant) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_ADDRESSES {
            windows.retain(|_, window| now.saturating_duration_since(window.began) < WINDOW);
        }
        if windows.len() >= MAX_ADDRESSES {
            windows.clear();
        }
        let window = windows.entry(client.map(network)).or_insert(Window { began: now, attempts: 0 });
        if now.saturating_duration_since(window.began) >= WINDOW {
            *window = Window { began: now, attempts: 0 };
        }
        window.attempts += 1;
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_after_ten_failed_attempts_and_others_do_not() {
        let (attempts, now) = (FailedAttempts::default(), Instant::now());
        let client = |text: &str| Some(text.parse().unwrap());
        for _ in 0..MAX_ATTEMPTS {
            assert_eq!(attempts.check(client("2001:db8::1"), now), Ok(()));
            attempts.record(client("2001:db8::1"), now);
        }
        assert_eq!(attempts.check(client("2001:db8::2"), now + WINDOW / 2), Err(WINDOW / 2));
        assert_eq!(attempts.check(client("2001:db8:0:1::1"), now), Ok(()));
        assert_eq!(attempts.check(None, now), Ok(()));
        assert_eq!(attempts.check(client("2001:db8::1"), now + WINDOW), Ok(()));
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded() {
        let (attempts, now) = (FailedAttempts::default(), Instant::now());
        for number in 0..=u32::try_from(MAX_ADDRESSES).unwrap() {
            attempts.record(Some(IpAddr::from(number.to_be_bytes())), now);
        }
        assert!(attempts.0.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
