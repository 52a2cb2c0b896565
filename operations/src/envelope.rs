//! The frame of every answer for programs: the same at the command line and over HTTP.

use serde::Serialize;
use utoipa::ToSchema;

/// The version of the frame. It rises when something in it changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// An answer for programs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// The version of this frame.
    #[schema(example = 1)]
    pub version: u32,
    /// How it went.
    pub status: Status,
    /// The answer itself.
    pub data: T,
    /// What there is to say about it.
    pub diagnostics: Vec<Diagnostic>,
}

/// How a command or a question went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Ok,
    /// Somebody should have a look.
    Finding,
    /// It could not be answered.
    Error,
}

/// Something to say beside the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// One sentence.
    pub message: String,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Worth a look.
    Warning,
    /// It stood in the way.
    Error,
}

impl Diagnostic {
    /// Good to know.
    pub fn note(message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, message: message.into() }
    }

    /// Worth a look.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, message: message.into() }
    }
}

/// What can say of itself whether somebody should have a look, and what else there is to say.
pub trait Report {
    /// Whether somebody should have a look.
    fn has_findings(&self) -> bool {
        false
    }

    /// What there is to say beside the data.
    fn diagnostics(&self) -> Vec<Diagnostic> {
        Vec::new()
    }
}

impl Status {
    /// How what was answered went.
    pub const fn for_findings(finding: bool) -> Self {
        if finding { Self::Finding } else { Self::Ok }
    }
}

impl<T> Envelope<T> {
    /// The frame, in its present version.
    pub const fn new(status: Status, data: T, diagnostics: Vec<Diagnostic>) -> Self {
        Self { version: VERSION, status, data, diagnostics }
    }
}

impl<T: Report> Envelope<T> {
    /// Frames an answer.
    pub fn for_report(data: T) -> Self {
        let (status, diagnostics) = (Status::for_findings(data.has_findings()), data.diagnostics());
        Self::new(status, data, diagnostics)
    }
}
