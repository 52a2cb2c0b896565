//! One line of text for an error and its causes.

use std::error::Error;

/// Formats an error followed by its sources, separated by `: `.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
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
}
