//! The path prefixes of the APIs and of the console.

/// The path prefix of the API.
pub const API_PREFIX: &str = "/api/v1";

/// The path prefix of the admin API.
pub const ADMIN_PREFIX: &str = "/admin/v1";

/// The path prefix of the console.
pub const CONSOLE_PREFIX: &str = "/console";
