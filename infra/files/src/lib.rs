//! Files and folders of the embedded engines: durable creation, quarantine, and heartbeats beside them.

pub mod durable_fs;
pub mod file_id;
mod generation_path;
pub mod heartbeat;
pub mod last_backup;
pub mod log_anchor;
pub mod ownership;

pub use generation_path::{generation_path, stored_generations};
