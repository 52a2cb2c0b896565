//! Files and folders of the embedded engines: durable creation, quarantine, and heartbeats beside them.

pub mod durable_fs;
pub mod heartbeat;
