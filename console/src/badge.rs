//! A short coloured label on a page, such as a state.

/// A badge.
#[derive(Clone, Copy)]
pub(crate) struct Badge {
    /// The CSS class of its colour; empty for none.
    pub(crate) class: &'static str,
    pub(crate) text: &'static str,
}

impl Badge {
    pub(crate) const fn new(class: &'static str, text: &'static str) -> Self {
        Self { class, text }
    }
}
