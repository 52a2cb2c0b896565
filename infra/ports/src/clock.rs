//! The system clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chat_domain::Timestamp;
use uuid::{NoContext, Uuid};

/// Returns the current time by this machine's clock. A clock without a battery may start before 1970.
pub fn now() -> Timestamp {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since_epoch) => millis(since_epoch),
        Err(before_epoch) => -millis(before_epoch.duration()),
    })
}

/// Generates a UUID of version 7, which begins with the time. Unlike [`Uuid::now_v7`], does not panic before 1970: such
/// times count as 1970.
pub fn time_ordered_uuid() -> Uuid {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, since_epoch.as_secs(), since_epoch.subsec_nanos()))
}
