//! Helpers of the black-box tests: processes of the real binary, and an HTTP client.

#![allow(dead_code, reason = "each test program uses only some of the helpers")]

pub mod api;
pub mod client;
pub mod deadline;
pub mod deployment;
pub mod process;
