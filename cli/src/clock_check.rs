//! Refuses to serve with a clock before 1970.

use chat_domain::Timestamp;
use chat_ports::clock;

use crate::failure::Failure;

/// Fails if the time is before 1970. Formatting such a time for the `Date` header panics.
pub(crate) fn check() -> Result<(), Failure> {
    let now = clock::now();
    if now >= Timestamp::from_millis(0) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the clock of this machine says {now}: set it, or wait until it is synchronized, and start again"
    )))
}
