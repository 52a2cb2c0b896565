//! Files and folders on the local disk: durable creation, quarantine, names of generations, heartbeats, the log anchor,
//! the time of the last backup, and owners.

pub mod durable_fs;
pub mod file_id;
mod generation_path;
pub mod heartbeat;
pub mod last_backup;
pub mod log_anchor;
pub mod ownership;

pub use generation_path::{generation_path, stored_generations};
