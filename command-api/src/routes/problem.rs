//! What clients read when a command is not carried out.

use chat_web::{ErrorCode, Problem};

use crate::command::{CommandError, Rejection};

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::Rejected(rejection) => return (*rejection).into(),
            CommandError::Overloaded => ErrorCode::Overloaded,
            CommandError::EventStoreUnavailable(_) => ErrorCode::EventStoreUnavailable,
            CommandError::CountersUnavailable(_) => ErrorCode::CountersUnavailable,
            CommandError::OutcomeUnknown(_) => ErrorCode::OutcomeUnknown,
            CommandError::Internal(_) => ErrorCode::Internal,
        };
        Self::of(code).caused_by(error)
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
