//! Files and folders of the embedded engines: durable creation, quarantine, and heartbeats beside them.

pub mod durable_fs;
mod generation_path;
pub mod heartbeat;

pub use generation_path::generation_path;
