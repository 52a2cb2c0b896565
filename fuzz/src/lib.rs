//! The properties that the fuzz targets check, one module a target. Each module has a function `check`, which takes the
//! bytes of one case and panics if a property does not hold. The files in `targets/` only call it.
//!
//! Cases are text wherever that is possible, so that a failing one can be read. The first byte or line often chooses a
//! route, an event type and so on; the rest is what the code under test parses.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backup_manifests;
pub mod consistency_tokens;
pub mod event_filters;
pub mod event_proofs;
pub mod inclusion_paths;
pub mod json_bodies;
pub mod leaves_files;
pub mod log_anchors;
pub mod operator_texts;
pub mod query_strings;
pub mod replay_files;
pub mod request_headers;
pub mod search_snippets;
pub mod signed_notes;
pub mod stored_events;

mod sample_log;
mod server;

use std::future::Future;
use std::path::PathBuf;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// The key that signs the checkpoints of the seeds: the one of RFC 8032, section 7.1, test 2.
const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n-----END PRIVATE KEY-----\n";

/// Runs a future on the runtime of the process, which has one thread for async work.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
    runtime.block_on(future)
}

/// Creates a folder in `TMPDIR`. `scripts/fuzz.sh` removes it: libFuzzer ends the process without running destructors.
fn new_folder() -> PathBuf {
    tempfile::tempdir().expect("a temporary folder").keep()
}
