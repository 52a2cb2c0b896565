//! KurrentDB's gRPC protocol, as far as the event store and the fake server of the tests use it.
//!
//! Generated from the files in `proto/`, which have the names and field numbers of the public protocol.

/// The generated messages, clients and servers.
#[expect(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
}

pub use generated::event_store::client::*;
