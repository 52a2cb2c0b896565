//! Errors for the person who started the process.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use chat_ports::error_chain;

use crate::stderr;

/// An error message. The process prints it, and exits with the code that belongs to the kind of the failure.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    kind: FailureKind,
}

/// Why a process fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureKind {
    /// Wrong usage or environment.
    UsageOrEnvironment,
    /// A signal stopped an operator command before its end, or a server before its writer had executed all the commands
    /// that it had accepted.
    Interrupted,
}

/// The exit code of a process that a signal stopped before its end.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: FailureKind::UsageOrEnvironment }
    }

    /// Creates the failure of a process that a signal stopped before its end.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: FailureKind::Interrupted }
    }

    /// Creates a failure with a message, its cause, and the sources of the cause.
    pub(crate) fn because(message: impl fmt::Display, cause: &(dyn Error + 'static)) -> Self {
        Self::new(format!("{message}: {}", error_chain(cause)))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            FailureKind::UsageOrEnvironment => 2,
            FailureKind::Interrupted => EXIT_INTERRUPTED,
        })
    }

    pub(crate) fn report(&self) -> ExitCode {
        stderr::print(&format!("chat-api: {self}\n"));
        self.exit_code()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
