//! The problem of a field in a form.

/// A field of a form whose value can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldProblem {
    /// The id of the field on the page.
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

impl FieldProblem {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}
