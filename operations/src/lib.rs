//! Operator tasks: backups, audit, integrity proofs, replay, projection rebuilds and dead letters.
//!
//! The command line, the admin API and the console are front ends of this crate. The tasks work beside a running system
//! or without one. Most of them use the ports; backups copy the file of an embedded log. An action that changes the
//! system is recorded in the log ([`operator_actions`]), with its operator and reason, so that it is ordered among all
//! other events.

pub mod atomic_file;
pub mod audit;
pub mod backup;
pub mod counted;
pub mod dead_letters;
pub mod envelope;
pub mod events_check;
mod http_client;
pub mod incarnation;
pub mod jobs;
pub mod log_checker;
pub mod operator_actions;
pub mod projections;
pub mod proof;
pub mod replay;
mod row_fields;
pub mod server_client;
