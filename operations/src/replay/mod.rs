//! Replaying the log to an external destination: a program, a file, or an HTTP endpoint.
//!
//! Events are delivered in the order of the log, as JSON, in batches ([`batch`]). A replay checkpoint
//! ([`checkpoint`]) records the position up to which delivery is certain. A replay that is started again with its
//! checkpoint resumes from this position, to the same destination and with the same filter ([`target_fingerprint`]).
//! A file gets each event exactly once, because lines that an interrupted replay wrote after its last checkpoint are
//! cut off. A program or an endpoint gets each event at least once: after an interruption, some events are delivered
//! again.

pub mod batch;
pub mod checkpoint;
mod destination;
mod endpoint;
mod error;
mod file;
mod program;
pub mod rate_limit;
mod run;
mod source;
mod stop_signal;
mod target;
pub mod target_fingerprint;

pub use destination::Destination;
pub use endpoint::{BodyFormat, EndpointOptions, InvalidEndpoint};
pub use error::ReplayError;
pub use run::{ReplayOptions, ReplayOutcome, run};
pub use stop_signal::{StatusCallback, StopSignal};
