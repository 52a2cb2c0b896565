//! Helpers of the black-box tests: real processes of the real binary, and a client that talks to them over HTTP.

#![allow(dead_code, reason = "each suite uses its own part of it")]

pub mod api;
pub mod client;
pub mod deadline;
pub mod deployment;
pub mod process;
