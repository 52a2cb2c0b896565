//! What clients read when a port fails.

use chat_domain::text::InvalidText;
use chat_ports::counters::CountersError;
use chat_ports::event_store::EventStoreError;
use chat_ports::read_model::ReadModelError;
use chat_ports::search_index::SearchError;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

impl From<EventStoreError> for Problem {
    fn from(error: EventStoreError) -> Self {
        if error.is_retryable() {
            return Self::from_code(ErrorCode::EventStoreUnavailable).caused_by(error);
        }
        // Clients would retry for ever what an operator has to repair.
        Self::internal(error)
    }
}

impl From<CountersError> for Problem {
    fn from(error: CountersError) -> Self {
        Self::from_code(ErrorCode::CountersUnavailable).caused_by(error)
    }
}

// A damaged projection is built anew, so a client may come back in any case; the operator has to know of the damage.

impl From<ReadModelError> for Problem {
    fn from(error: ReadModelError) -> Self {
        let needs_attention = !error.is_retryable();
        Self::from_code(ErrorCode::ReadModelUnavailable).caused_by(error).needs_attention_if(needs_attention)
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        let needs_attention = !error.is_retryable();
        Self::from_code(ErrorCode::ReadModelUnavailable).caused_by(error).needs_attention_if(needs_attention)
    }
}

impl Problem {
    /// Why a text can't be an app's name.
    pub fn invalid_app_name(error: InvalidText) -> Self {
        Self::from_code(match error {
            InvalidText::Blank => ErrorCode::NameBlank,
            InvalidText::TooLong => ErrorCode::NameTooLong,
            InvalidText::Nul => ErrorCode::TextInvalid,
        })
    }

    /// Why a text can't be a message's body.
    pub fn invalid_message_body(error: InvalidText) -> Self {
        Self::from_code(match error {
            InvalidText::Blank => ErrorCode::BodyBlank,
            InvalidText::TooLong => ErrorCode::BodyTooLong,
            InvalidText::Nul => ErrorCode::TextInvalid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_retryable_errors_are_unavailable() {
        let away = Problem::from(EventStoreError::Unavailable("away".into()));
        assert_eq!((away.code(), away.needs_attention()), (ErrorCode::EventStoreUnavailable, false));
        let damaged = Problem::from(EventStoreError::Damaged("torn".into()));
        assert_eq!((damaged.code(), damaged.needs_attention()), (ErrorCode::Internal, true));
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
