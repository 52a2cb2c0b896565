//! Answers of commands, and printing them.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chat_operations::envelope::{Envelope, Report};
use chat_ports::event_store::EventStore;
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::stdout;
use super::table::fitted;
use super::terminal_text::escaped;
use crate::failure::Failure;
use crate::operator::common_args::OutputFormat;

pub(super) use chat_operations::envelope::{Diagnostic, Severity, Status};

/// A command's answer.
pub(super) struct Answer {
    /// The answer for programs.
    pub(super) data: Box<RawValue>,
    /// The answer for people.
    pub(super) text: String,
    /// Notes and warnings.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether the answer has a finding. If so, the process exits with 1.
    pub(super) finding: bool,
}

impl Answer {
    /// Creates an answer without findings.
    pub(super) fn new(data: &impl Serialize, text: impl Into<String>) -> Result<Self, Failure> {
        let data = to_raw_value(data)
            .map_err(|error| Failure::because("the answer can't be written as JSON", &error))?;
        Ok(Self { data, text: text.into(), diagnostics: Vec::new(), finding: false })
    }

    /// Creates the answer for a report, with its findings and diagnostics.
    pub(super) fn from_report(
        data: &(impl Serialize + Report),
        text: impl Into<String>,
    ) -> Result<Self, Failure> {
        let answer = Self::new(data, text)?;
        Ok(Self { diagnostics: data.diagnostics(), finding: data.has_findings(), ..answer })
    }

    /// Adds a note or a warning.
    pub(super) fn with_diagnostic(mut self, severity: Severity, message: impl Into<String>) -> Self {
        self.diagnostics.push(Diagnostic { severity, message: message.into() });
        self
    }

    /// Adds notes and warnings.
    pub(super) fn with_diagnostics(mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) -> Self {
        self.diagnostics.extend(diagnostics);
        self
    }

    /// Marks the answer to a dry run as a finding if the log takes no appends, so that the action would be refused. The
    /// command has warned of that when it opened the log.
    pub(super) fn with_finding_if_log_is_closed(self, log: &dyn EventStore) -> Self {
        self.with_finding(log.closed_because().is_some())
    }

    /// Marks the answer as a finding if `found`.
    pub(super) fn with_finding(mut self, found: bool) -> Self {
        self.finding |= found;
        self
    }
}

/// The warning about the log that the command has opened, for the envelope of its answer, failure, or first part of an
/// answer. A command opens one log.
static LOG_WARNING: Mutex<Option<Diagnostic>> = Mutex::new(None);

fn log_warning() -> MutexGuard<'static, Option<Diagnostic>> {
    LOG_WARNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Warns about the log that the command has opened: at once on standard error, or with `-o json` in the envelope.
pub(super) fn warn_about_log(output: OutputFormat, warning: Diagnostic) {
    match output {
        OutputFormat::Table => report_diagnostics(&[warning]),
        OutputFormat::Json => *log_warning() = Some(warning),
    }
}

/// Writes the warning about the log to standard error at once, also with `-o json`. For a command whose answer may come
/// after days, or never.
pub(super) fn report_log_warning() {
    report_diagnostics(log_warning().as_slice());
}

/// Prints a command's answer or failure, and returns the exit code.
pub(super) fn print(output: OutputFormat, answer: Result<Answer, Failure>) -> ExitCode {
    match (output, answer) {
        (OutputFormat::Table, Ok(answer)) => {
            report_diagnostics(&answer.diagnostics);
            write_to_stdout(&fitted(&answer.text), exit_code(answer.finding))
        }
        (OutputFormat::Table, Err(failure)) => failure.report(),
        (OutputFormat::Json, Ok(Answer { data, diagnostics, finding, .. })) => {
            write_to_stdout(&envelope(Status::for_findings(finding), &data, &diagnostics), exit_code(finding))
        }
        (OutputFormat::Json, Err(failure)) => {
            write_to_stdout(&error_envelope(failure.to_string()), failure.exit_code())
        }
    }
}

/// Writes notes and warnings to standard error.
pub(super) fn report_diagnostics(diagnostics: &[Diagnostic]) {
    for Diagnostic { severity, message } in diagnostics {
        let severity = match severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        // Standard error may be closed.
        let _ = writeln!(std::io::stderr(), "{severity}: {}", escaped(message));
    }
}

/// Prints a command's answer or failure to standard error, and returns the exit code. Used by a command that
/// writes other data, such as exported events, to standard output. With the output format `table`, only the notes and
/// warnings of an answer are printed.
pub(super) fn print_to_stderr(output: OutputFormat, answer: Result<Answer, Failure>) -> ExitCode {
    let (envelope, code) = match (output, answer) {
        (OutputFormat::Table, Err(failure)) => return failure.report(),
        (OutputFormat::Table, Ok(answer)) => {
            report_diagnostics(&answer.diagnostics);
            return exit_code(answer.finding);
        }
        (OutputFormat::Json, Ok(Answer { data, diagnostics, finding, .. })) => {
            (envelope(Status::for_findings(finding), &data, &diagnostics), exit_code(finding))
        }
        (OutputFormat::Json, Err(failure)) => (error_envelope(failure.to_string()), failure.exit_code()),
    };
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{envelope}");
    code
}

/// Prints a usage error as JSON, and returns the exit code.
pub(crate) fn print_usage_error(message: String) -> ExitCode {
    write_to_stdout(&error_envelope(message), ExitCode::from(2))
}

/// Formats the envelope of an error on one line. Its `data` is an empty object, because `data` is an object in every
/// answer.
pub(super) fn error_envelope(message: String) -> String {
    let diagnostic = Diagnostic { severity: Severity::Error, message };
    envelope(Status::Error, &json!({}), &[diagnostic])
}

/// Formats the envelope on one line. The first one of a command has the warning about the log, as the last diagnostic, so
/// that the first diagnostic of a failure is its error.
pub(super) fn envelope(status: Status, data: &impl Serialize, diagnostics: &[Diagnostic]) -> String {
    let diagnostics = diagnostics.iter().cloned().chain(log_warning().take()).collect();
    let envelope = Envelope::new(status, data, diagnostics);
    // Raw JSON, JSON values and strings always serialize.
    serde_json::to_string(&envelope).unwrap_or_default()
}

fn exit_code(finding: bool) -> ExitCode {
    ExitCode::from(u8::from(finding))
}

/// Writes to standard output. Returns `code`, or the exit code of the failure if standard output can't be written.
fn write_to_stdout(text: &str, code: ExitCode) -> ExitCode {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    match stdout::write(text.as_bytes()) {
        Ok(()) => code,
        Err(failure_code) => failure_code,
    }
}
