//! Tests of the command service and its writer on SQLite and a fake KurrentDB: numbers, rejections, idempotency keys,
//! other writers, and failures.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says with which seed"
)]

mod failures;
mod faults;
mod idempotency;
mod kurrentdb;
mod many_writers;
mod one_writer;
mod redis_counters;
mod test_log;
mod unreadable_events;
