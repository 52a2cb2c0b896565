//! The names of a backup's files.

/// The name of the manifest in a backup.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The name of the copy of the log in a backup.
pub const LOG_FILE: &str = "events.db";
