//! The envelope of machine-readable answers to operators, on the command line and over HTTP.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The version of the envelope. Incremented when a field is removed or changes its meaning.
pub const VERSION: u32 = 1;

/// A machine-readable answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// The version of this envelope.
    #[schema(example = 1)]
    pub version: u32,
    /// The status of the answer.
    pub status: Status,
    /// The data.
    pub data: T,
    /// Remarks on the data.
    pub diagnostics: Vec<Diagnostic>,
}

/// The status of a command or query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EnvelopeStatus)]
pub enum Status {
    /// Success without findings.
    Ok,
    /// Success with findings that need attention.
    Finding,
    /// Failure.
    Error,
}

/// A remark on the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    /// The severity.
    pub severity: Severity,
    /// One sentence.
    pub message: String,
}

/// The severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Information.
    Note,
    /// A problem that is no failure.
    Warning,
    /// The cause of a failure.
    Error,
}

impl Diagnostic {
    /// A diagnostic of severity [`Severity::Note`].
    pub fn note(message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, message: message.into() }
    }

    /// A diagnostic of severity [`Severity::Warning`].
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, message: message.into() }
    }
}

/// The data of an answer, with its findings and diagnostics.
pub trait Report {
    /// Whether the data has findings that need attention.
    fn has_findings(&self) -> bool {
        false
    }

    /// Returns remarks on the data.
    fn diagnostics(&self) -> Vec<Diagnostic> {
        Vec::new()
    }
}

impl Status {
    /// The status of an answer with or without findings.
    pub const fn for_findings(has_findings: bool) -> Self {
        if has_findings { Self::Finding } else { Self::Ok }
    }
}

impl<T> Envelope<T> {
    /// An envelope of the current version.
    pub const fn new(status: Status, data: T, diagnostics: Vec<Diagnostic>) -> Self {
        Self { version: VERSION, status, data, diagnostics }
    }
}

impl<T: Report> Envelope<T> {
    /// Wraps a report, with its own status and diagnostics.
    pub fn for_report(data: T) -> Self {
        let (status, diagnostics) = (Status::for_findings(data.has_findings()), data.diagnostics());
        Self::new(status, data, diagnostics)
    }
}
