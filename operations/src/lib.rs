//! What operators ask of the system and do to it, without a word about how they ask: the command line and the admin
//! routes are two faces of this crate.
//!
//! Everything here works on the ports, beside a running system or without one. What an operator does, as opposed to
//! reads, is recorded in the log first ([`acts`]): who, why, and in which order with everything else.

pub mod atomic_file;
pub mod audit;
pub mod dead_letters;
pub mod envelope;
pub mod events_check;
pub mod operator_actions;
pub mod projections;
pub mod proof;
pub mod replay;
