//! Destinations of a replay.

use std::path::PathBuf;

use super::endpoint::EndpointOptions;

/// A destination of a replay.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A program that reads lines from its standard input.
    Program {
        /// The command line, for the shell.
        command: String,
        /// Whether the program's standard output is the standard error of this process, rather than the standard
        /// output of this process.
        to_stderr: bool,
    },
    /// A file, to which lines are appended.
    File(PathBuf),
    /// An HTTP endpoint that batches are sent to.
    Endpoint(EndpointOptions),
}
