//! Errors for the person who started the process.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use chat_ports::error_chain;

use crate::stderr;

/// An error message. The process prints it and exits with 2: wrong usage or environment.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Creates a failure with a message, its cause, and the sources of the cause.
    pub(crate) fn because(message: impl fmt::Display, cause: &(dyn Error + 'static)) -> Self {
        Self(format!("{message}: {}", error_chain(cause)))
    }

    pub(crate) fn report(&self) -> ExitCode {
        stderr::print(&format!("chat-api: {self}\n"));
        ExitCode::from(2)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
