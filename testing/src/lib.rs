//! Servers for tests: private instances of real Postgres and Redis, and a stand-in that speaks KurrentDB's protocol.
//!
//! Each listens on a port of 127.0.0.1 that was free, keeps its files in a temporary folder, and ends with the process
//! that started it, however that ends. Where Postgres or Redis is not installed it is installed from the system's
//! packages if that may be done, and otherwise the test stops with a sentence that says what is missing.

pub mod install;
pub mod kurrentdb;
pub mod port;
pub mod postgres;
pub mod redis;
pub mod supervised_server;

pub use postgres::Postgres;
