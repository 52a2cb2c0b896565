//! One line of text for an error and its causes.

use std::error::Error;

/// Formats an error followed by its sources, separated by `: `. Leaves out a source if the text before it already ends
/// with the text of this source, as errors of some libraries do.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiserror::Error;

    #[derive(Debug, Error)]
    #[error("the file can't be read")]
    struct Unreadable(#[source] std::io::Error);

    #[test]
    fn lists_the_error_and_then_its_causes() {
        let error = Unreadable(std::io::Error::other("the disk is gone"));
        assert_eq!(error_chain(&error), "the file can't be read: the disk is gone");
    }

    #[derive(Debug, Error)]
    #[error("no answer: {0}")]
    struct NoAnswer(#[source] std::io::Error);

    #[test]
    fn does_not_repeat_a_cause_that_ends_the_text_of_the_error() {
        assert_eq!(error_chain(&NoAnswer(std::io::Error::other("refused"))), "no answer: refused");
    }
}
