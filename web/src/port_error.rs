//! Conversions of port and domain errors into problems.

use chat_domain::message_data::InvalidMessageData;
use chat_domain::sender::InvalidSender;
use chat_domain::text::InvalidText;
use chat_ports::event_store::EventStoreError;
use chat_ports::read_model::ReadModelError;
use chat_ports::search_index::SearchError;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

impl From<EventStoreError> for Problem {
    fn from(error: EventStoreError) -> Self {
        let is_retryable = error.is_retryable();
        let code = match &error {
            EventStoreError::StreamTruncated(_) => ErrorCode::StreamTruncated,
            EventStoreError::Unavailable(_) | EventStoreError::Damaged(_) | EventStoreError::Refused(_) => {
                ErrorCode::EventStoreUnavailable
            }
        };
        let problem = Self::from_code(code).caused_by(error);
        if is_retryable { problem } else { problem.needing_attention() }
    }
}

// A damaged projection has the same code as an unavailable one, so that clients retry: a damaged projection is rebuilt,
// and engines report some transient disk errors as damage. Damage is logged as an error for the operator.

impl From<ReadModelError> for Problem {
    fn from(error: ReadModelError) -> Self {
        let is_retryable = error.is_retryable();
        let problem = Self::from_code(ErrorCode::ReadModelUnavailable).caused_by(error);
        if is_retryable { problem } else { problem.needing_attention() }
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        let is_retryable = error.is_retryable();
        let problem = Self::from_code(ErrorCode::ReadModelUnavailable).caused_by(error);
        if is_retryable { problem } else { problem.needing_attention() }
    }
}

impl Problem {
    /// Creates the problem for an invalid app name.
    pub fn invalid_app_name(error: InvalidText) -> Self {
        Self::from_code(match error {
            InvalidText::Blank => ErrorCode::NameBlank,
            InvalidText::TooLong => ErrorCode::NameTooLong,
            InvalidText::Nul => ErrorCode::TextInvalid,
        })
    }

    /// Creates the problem for an invalid message body.
    pub fn invalid_message_body(error: InvalidText) -> Self {
        Self::from_code(match error {
            InvalidText::Blank => ErrorCode::BodyBlank,
            InvalidText::TooLong => ErrorCode::BodyTooLong,
            InvalidText::Nul => ErrorCode::TextInvalid,
        })
    }

    /// Creates the problem for an invalid sender id or name.
    pub fn invalid_sender(error: InvalidSender) -> Self {
        Self::new(ErrorCode::SenderInvalid, error.to_string())
    }

    /// Creates the problem for invalid data of a message.
    pub fn invalid_message_data(error: InvalidMessageData) -> Self {
        let code = match error {
            InvalidMessageData::NotAnObject
            | InvalidMessageData::TooDeep
            | InvalidMessageData::InvalidString => ErrorCode::DataInvalid,
            InvalidMessageData::TooLarge => ErrorCode::DataTooLarge,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_event_store_is_unavailable_and_needs_attention() {
        let away = Problem::from(EventStoreError::Unavailable("away".into()));
        assert_eq!((away.code(), away.needs_attention()), (ErrorCode::EventStoreUnavailable, false));
        let damaged = Problem::from(EventStoreError::Damaged("torn".into()));
        assert_eq!((damaged.code(), damaged.needs_attention()), (ErrorCode::EventStoreUnavailable, true));
    }

    #[test]
    fn a_damaged_projection_is_unavailable_and_needs_attention() {
        let cases: [(Problem, bool); 4] = [
            (ReadModelError::Unavailable("away".into()).into(), false),
            (ReadModelError::Damaged("torn".into()).into(), true),
            (SearchError::NotCreated.into(), false),
            (SearchError::Damaged("torn".into()).into(), true),
        ];
        for (problem, needs_attention) in cases {
            assert_eq!(
                (problem.code(), problem.needs_attention()),
                (ErrorCode::ReadModelUnavailable, needs_attention)
            );
        }
    }
}
