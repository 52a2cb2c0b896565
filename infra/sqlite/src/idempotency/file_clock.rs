//! The clock of the idempotency store's file.

use chat_domain::Timestamp;

/// The clock that measures the age of reservations. It advances with the time since the machine started, so setting the
/// system time does not move it. All processes of the machine share the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileClock {
    /// The time of this clock at the start of the machine, in milliseconds.
    at_boot: i64,
}

impl FileClock {
    /// Starts the clock at a time.
    pub(super) fn starting_at(time: Timestamp) -> Self {
        Self { at_boot: time.millis().saturating_sub(millis_since_boot()) }
    }

    /// Restores the clock from [`FileClock::at_boot`].
    pub(super) const fn from_time_at_boot(at_boot: i64) -> Self {
        Self { at_boot }
    }

    /// The time of this clock at the start of the machine, in milliseconds.
    pub(super) const fn at_boot(self) -> i64 {
        self.at_boot
    }

    pub(super) fn now(self) -> Timestamp {
        Timestamp::from_millis(self.at_boot.saturating_add(millis_since_boot()))
    }
}

#[cfg(target_os = "linux")]
fn millis_since_boot() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000)
}

/// Returns the system time on systems other than Linux. There, setting the system time changes the age of reservations.
#[cfg(not(target_os = "linux"))]
fn millis_since_boot() -> i64 {
    chat_ports::clock::now().millis()
}
