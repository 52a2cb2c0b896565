//! What a command prints.

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use super::Output;
use crate::failure::Failure;

/// The version of the JSON envelope. It rises when something in it changes its meaning or goes away.
const VERSION: u32 = 1;

/// A command's answer.
pub(super) struct Answer {
    /// For programs.
    pub(super) data: Value,
    /// For people: the same, as lines.
    pub(super) text: String,
    /// What there is to say about it.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether somebody should have a look: then the process exits with 1.
    pub(super) finding: bool,
}

/// Something to say beside the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Diagnostic {
    /// How much it matters.
    pub(super) severity: Severity,
    /// One sentence.
    pub(super) message: String,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// Good to know.
    Note,
    /// Worth a look.
    Warning,
    /// It stood in the way.
    Error,
}

#[derive(Serialize)]
struct Envelope<'a> {
    version: u32,
    status: &'static str,
    data: &'a Value,
    diagnostics: &'a [Diagnostic],
}

impl Answer {
    /// An answer without findings.
    pub(super) fn new(data: &impl Serialize, text: impl Into<String>) -> Result<Self, Failure> {
        let data = serde_json::to_value(data)
            .map_err(|error| Failure::because("the answer can't be written as JSON", &error))?;
        Ok(Self { data, text: text.into(), diagnostics: Vec::new(), finding: false })
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
                let _ = writeln!(std::io::stderr(), "{severity}: {message}");
            }
            write(&answer.text, exit(answer.finding))
        }
        (Output::Table, Err(failure)) => failure.report(),
        (Output::Json, Ok(Answer { data, diagnostics, finding, .. })) => {
            let status = if finding { "finding" } else { "ok" };
            write(&envelope(status, &data, &diagnostics), exit(finding))
        }
        (Output::Json, Err(failure)) => {
            let said = Diagnostic { severity: Severity::Error, message: failure.to_string() };
            write(&envelope("error", &Value::Null, &[said]), ExitCode::from(2))
        }
    }
}

/// The envelope, on one line.
pub(super) fn envelope(status: &'static str, data: &Value, diagnostics: &[Diagnostic]) -> String {
    let envelope = Envelope { version: VERSION, status, data, diagnostics };
    // Values and strings always serialize.
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
