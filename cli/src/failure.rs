//! Why the process could not start or go on, for whoever started it.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// A sentence for the operator. The process exits with 2: usage or environment.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// The sentence, and the chain of causes.
    pub(crate) fn because(sentence: impl fmt::Display, cause: &dyn std::error::Error) -> Self {
        let mut text = format!("{sentence}: {cause}");
        let mut source = cause.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self(text)
    }

    pub(crate) fn report(&self) -> ExitCode {
        // Where standard error is closed nobody reads it; the exit code still tells.
        let _ = writeln!(std::io::stderr(), "chat-api: {self}");
        ExitCode::from(2)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
