//! Position and lag of a response, as its headers.

use axum::response::{IntoResponseParts, ResponseParts};
use chat_domain::Position;
use chat_ports::read_model::{Missing, Snapshot};
use chat_web::consistency::{CONSISTENCY_TOKEN, ConsistencyToken, READ_MODEL_LAG};
use chat_web::{ErrorCode, Problem};
use http::HeaderValue;

use crate::api::QueryContext;

/// The position of a response's snapshot, and its lag behind the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponsePosition {
    token: ConsistencyToken,
    /// In milliseconds. `None` if the event store does not respond.
    lag: Option<u64>,
}

impl ResponsePosition {
    /// Creates the position of a response that was read from the log itself, up to `position`.
    pub(crate) fn for_log(context: &QueryContext, position: Position) -> Self {
        Self { token: ConsistencyToken::new(context.shared.log_tag, position), lag: Some(0) }
    }

    /// Creates the position of a response from a projection that is at `position`.
    pub(crate) async fn for_projection(context: &QueryContext, position: Position) -> Self {
        let token = ConsistencyToken::new(context.shared.log_tag, position);
        Self { token, lag: context.shared.lag_meter.lag_millis(position).await }
    }

    /// Creates the problem for a resource that the snapshot does not have, with this position and lag.
    pub(crate) fn to_problem(self, code: ErrorCode) -> Problem {
        let problem = Problem::from_code(code).with_header(CONSISTENCY_TOKEN, self.token.into());
        match self.lag {
            Some(lag) => problem.with_header(READ_MODEL_LAG, HeaderValue::from(lag)),
            None => problem,
        }
    }
}

impl IntoResponseParts for ResponsePosition {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        response.headers_mut().insert(CONSISTENCY_TOKEN, self.token.into());
        if let Some(lag) = self.lag {
            response.headers_mut().insert(READ_MODEL_LAG, HeaderValue::from(lag));
        }
        Ok(response)
    }
}

/// Returns the value of a snapshot with its position, or the problem that the resource does not exist.
pub(crate) async fn require_existing<T>(
    context: &QueryContext,
    snapshot: Snapshot<Result<T, Missing>>,
) -> Result<(ResponsePosition, T), Problem> {
    let position = ResponsePosition::for_projection(context, snapshot.position).await;
    match snapshot.value {
        Ok(value) => Ok((position, value)),
        Err(missing) => Err(position.to_problem(match missing {
            Missing::App => ErrorCode::AppNotFound,
            Missing::Chat => ErrorCode::ChatNotFound,
            Missing::Message => ErrorCode::MessageNotFound,
            Missing::Deleted => ErrorCode::MessageDeleted,
        })),
    }
}
