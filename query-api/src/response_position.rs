//! Where an answer stands: the headers that every query's response carries.

use axum::response::{IntoResponseParts, ResponseParts};
use chat_domain::Position;
use chat_ports::read_model::{Missing, Snapshot};
use chat_web::consistency::{CONSISTENCY_TOKEN, ConsistencyToken, READ_MODEL_LAG};
use chat_web::{ErrorCode, Problem};
use http::HeaderValue;

use crate::api::QueryContext;

/// The position of an answer's snapshot, and by how much that trails the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponsePosition {
    position: Position,
    /// In milliseconds; `None` where the log does not answer.
    lag: Option<u64>,
}

impl ResponsePosition {
    /// Of an answer that was read from the log itself, up to `position`.
    pub(crate) fn for_log(position: Position) -> Self {
        Self { position, lag: Some(0) }
    }

    /// Of an answer from a projection that is at `position`.
    pub(crate) async fn for_projection(api: &QueryContext, position: Position) -> Self {
        Self { position, lag: api.shared.lag_meter.lag_millis(position).await }
    }

    /// A problem that was found in the snapshot.
    pub(crate) fn to_problem(self, code: ErrorCode) -> Problem {
        let problem =
            Problem::from_code(code).with_header(CONSISTENCY_TOKEN, ConsistencyToken(self.position).into());
        match self.lag {
            Some(lag) => problem.with_header(READ_MODEL_LAG, HeaderValue::from(lag)),
            None => problem,
        }
    }
}

impl IntoResponseParts for ResponsePosition {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        response.headers_mut().insert(CONSISTENCY_TOKEN, ConsistencyToken(self.position).into());
        if let Some(lag) = self.lag {
            response.headers_mut().insert(READ_MODEL_LAG, HeaderValue::from(lag));
        }
        Ok(response)
    }
}

/// Takes what a snapshot holds, or says that it is missing.
pub(crate) async fn require_existing<T>(
    api: &QueryContext,
    snapshot: Snapshot<Result<T, Missing>>,
) -> Result<(ResponsePosition, T), Problem> {
    let standing = ResponsePosition::for_projection(api, snapshot.position).await;
    match snapshot.value {
        Ok(value) => Ok((standing, value)),
        Err(missing) => Err(standing.to_problem(match missing {
            Missing::App => ErrorCode::AppNotFound,
            Missing::Chat => ErrorCode::ChatNotFound,
            Missing::Message => ErrorCode::MessageNotFound,
            Missing::Deleted => ErrorCode::MessageDeleted,
        })),
    }
}
