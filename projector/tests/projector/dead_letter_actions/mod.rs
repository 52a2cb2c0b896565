//! Tests of operator actions on dead letters, on a real event store and in each engine.

mod discard;
mod engines_agree;
mod retry;
mod test_log;
