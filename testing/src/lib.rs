//! Servers for tests: private instances of Postgres and Redis, and a fake KurrentDB. A browser. The gateway. Hosts with
//! a network between them. Faults of disk, clock and network.
//!
//! Postgres and Redis listen on a free port of 127.0.0.1 or on a host, and keep their files in a temporary folder. Each
//! server ends with the process that started it, even if that is killed. If Postgres, Redis, HAProxy or Chromium is
//! missing, it is installed from the system's packages. If that is not possible, the test fails with a message that names
//! the missing package.

pub mod browser;
pub mod certificates;
pub mod cutting_proxy;
#[cfg(target_os = "linux")]
pub mod fault_injector;
pub mod gateway;
pub mod hosts;
pub mod install;
pub mod kurrentdb;
pub mod pause;
pub mod port;
pub mod postgres;
pub mod redis;
#[cfg(target_os = "linux")]
pub mod sockets;
pub mod supervised_server;

pub use browser::Browser;
pub use postgres::Postgres;
