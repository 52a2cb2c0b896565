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
        /// Whether the program writes its output to the standard error of this process, rather than to its standard
        /// output.
        to_stderr: bool,
    },
    /// A file, to which lines are appended.
    File(PathBuf),
    /// An HTTP endpoint that batches are sent to.
    Endpoint(EndpointOptions),
}
