//! Settings of a run from environment variables.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads a number from an environment variable.
pub fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Reads a seed from an environment variable, or generates one.
pub fn seed(name: &str) -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    setting(name, u64::from(since_1970.subsec_nanos()) ^ since_1970.as_secs())
}
