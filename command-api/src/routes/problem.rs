//! Problem responses for failed commands.

use chat_web::{ErrorCode, Problem};

use crate::command::{CommandError, Rejection};

const IDEMPOTENCY_STORE_UNAVAILABLE: &str = "idempotency keys can't be looked up now; nothing was changed";

const UNREADABLE_EVENT: &str = "an event of this app or chat can't be read, so such commands are refused until an \
                                operator has resolved it; this request changed nothing";

/// `Retry-After` while an operator has to act.
const OPERATOR_RETRY_SECONDS: u64 = 60;

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::Rejected(rejection) => return (*rejection).into(),
            CommandError::Overloaded => ErrorCode::Overloaded,
            CommandError::EventStoreUnavailable(_) => ErrorCode::EventStoreUnavailable,
            CommandError::CountersUnavailable(_) => ErrorCode::CountersUnavailable,
            // Has the error code of the counters: at scale, counters and idempotency keys are both in Redis.
            CommandError::IdempotencyStoreUnavailable(_) => {
                return Self::new(ErrorCode::CountersUnavailable, IDEMPOTENCY_STORE_UNAVAILABLE)
                    .caused_by(error);
            }
            CommandError::KeyInFlight => {
                return Self::from_code(ErrorCode::IdempotencyInFlight).with_retry_after(1);
            }
            CommandError::KeyReused => ErrorCode::IdempotencyKeyReused,
            CommandError::UnreadableEvent(_) => {
                return Self::new(ErrorCode::EventStoreUnavailable, UNREADABLE_EVENT)
                    .with_retry_after(OPERATOR_RETRY_SECONDS)
                    .caused_by(error);
            }
            CommandError::StreamTruncated(_) => {
                return Self::from_code(ErrorCode::StreamTruncated)
                    .with_retry_after(OPERATOR_RETRY_SECONDS)
                    .caused_by(error);
            }
            CommandError::OutcomeUnknown(_) => ErrorCode::OutcomeUnknown,
            CommandError::Internal(_) => ErrorCode::Internal,
        };
        Self::from_code(code).caused_by(error)
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let code = match rejection {
            Rejection::AppNotFound => ErrorCode::AppNotFound,
            Rejection::ChatNotFound => ErrorCode::ChatNotFound,
            Rejection::MessageNotFound => ErrorCode::MessageNotFound,
            Rejection::MessageDeleted => ErrorCode::MessageDeleted,
            Rejection::PreconditionFailed => ErrorCode::PreconditionFailed,
            Rejection::TokenTaken | Rejection::NumberOutOfOrder => return Self::internal(rejection),
        };
        code.into()
    }
}
