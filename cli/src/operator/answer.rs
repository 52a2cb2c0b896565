//! What a command prints.

use std::io::Write as _;
use std::process::ExitCode;

use chat_operations::envelope::{Envelope, Report};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Output;
use super::text::escaped;
use crate::failure::Failure;

pub(super) use chat_operations::envelope::{Diagnostic, Severity, Status};

/// A command's answer.
pub(super) struct Answer {
    /// For programs.
    pub(super) data: Box<RawValue>,
    /// For people: the same, as lines.
    pub(super) text: String,
    /// What there is to say about it.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether somebody should have a look: then the process exits with 1.
    pub(super) finding: bool,
}

impl Answer {
    /// An answer without findings.
    pub(super) fn new(data: &impl Serialize, text: impl Into<String>) -> Result<Self, Failure> {
        let data = to_raw_value(data)
            .map_err(|error| Failure::because("the answer can't be written as JSON", &error))?;
        Ok(Self { data, text: text.into(), diagnostics: Vec::new(), finding: false })
    }

    /// An answer that says by itself whether there is a finding, and what else there is to say.
    pub(super) fn of(data: &(impl Serialize + Report), text: impl Into<String>) -> Result<Self, Failure> {
        let answer = Self::new(data, text)?;
        Ok(Self { diagnostics: data.diagnostics(), finding: data.has_findings(), ..answer })
    }

    /// Adds a note or a warning.
    pub(super) fn note(mut self, severity: Severity, message: impl Into<String>) -> Self {
        self.diagnostics.push(Diagnostic { severity, message: message.into() });
        self
    }

    /// Says that somebody should have a look.
    pub(super) fn finding(mut self, found: bool) -> Self {
        self.finding |= found;
        self
    }
}

/// Prints what a command came to, and says how the process ends.
pub(super) fn print(output: Output, answer: Result<Answer, Failure>) -> ExitCode {
    match (output, answer) {
        (Output::Table, Ok(answer)) => {
            for Diagnostic { severity, message } in &answer.diagnostics {
                let severity = match severity {
                    Severity::Note => "note",
                    Severity::Warning => "warning",
                    Severity::Error => "error",
                };
                let _ = writeln!(std::io::stderr(), "{severity}: {}", escaped(message));
            }
            write(&answer.text, exit(answer.finding))
        }
        (Output::Table, Err(failure)) => failure.report(),
        (Output::Json, Ok(Answer { data, diagnostics, finding, .. })) => {
            write(&envelope(Status::for_findings(finding), &data, &diagnostics), exit(finding))
        }
        (Output::Json, Err(failure)) => {
            let said = Diagnostic { severity: Severity::Error, message: failure.to_string() };
            write(&envelope(Status::Error, &(), &[said]), ExitCode::from(2))
        }
    }
}

/// The envelope, on one line.
pub(super) fn envelope(status: Status, data: &impl Serialize, diagnostics: &[Diagnostic]) -> String {
    let envelope = Envelope::new(status, data, diagnostics.to_vec());
    // JSON, values and strings always serialize.
    serde_json::to_string(&envelope).unwrap_or_default()
}

fn exit(finding: bool) -> ExitCode {
    ExitCode::from(u8::from(finding))
}

/// Writes to standard output. Whoever reads it may have seen enough and gone (`| head`): that is no failure.
fn write(text: &str, code: ExitCode) -> ExitCode {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Failure::because("the answer can't be written", &error).report()
        }
        _ => code,
    }
}
