//! The gRPC protocol, generated from `proto/`.

#![expect(clippy::all, clippy::pedantic, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
