//! Tokens and numbers in paths. A malformed one can't name a resource, so it is rejected as not found.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use chat_domain::{AppToken, ChatNumber, MessageNumber};
use http::request::Parts;
use utoipa::IntoParams;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The parameters of `/apps/{app_token}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct AppPath {
    /// The app's token.
    #[param(value_type = String, example = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT", pattern = "^[1-9A-HJ-NP-Za-km-z]{36}$")]
    pub app_token: AppToken,
}

/// The parameters of `/apps/{app_token}/chats/{chat_number}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ChatPath {
    /// The app's token.
    #[param(value_type = String, example = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT", pattern = "^[1-9A-HJ-NP-Za-km-z]{36}$")]
    pub app_token: AppToken,
    /// The chat's number in the app.
    #[param(value_type = u64, minimum = 1, example = 1)]
    pub chat_number: ChatNumber,
}

/// The parameters of `/apps/{app_token}/chats/{chat_number}/messages/{message_number}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MessagePath {
    /// The app's token.
    #[param(value_type = String, example = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT", pattern = "^[1-9A-HJ-NP-Za-km-z]{36}$")]
    pub app_token: AppToken,
    /// The chat's number in the app.
    #[param(value_type = u64, minimum = 1, example = 1)]
    pub chat_number: ChatNumber,
    /// The message's number in the chat.
    #[param(value_type = u64, minimum = 1, example = 1)]
    pub message_number: MessageNumber,
}

impl<S: Send + Sync> FromRequestParts<S> for AppPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = PathParams::from_parts(parts, state).await?;
        Ok(Self { app_token: params.app_token()? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ChatPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = PathParams::from_parts(parts, state).await?;
        Ok(Self { app_token: params.app_token()?, chat_number: params.chat_number()? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MessagePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = PathParams::from_parts(parts, state).await?;
        Ok(Self {
            app_token: params.app_token()?,
            chat_number: params.chat_number()?,
            message_number: params.message_number()?,
        })
    }
}

struct PathParams(RawPathParams);

impl PathParams {
    async fn from_parts<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|error| match error {
            // Answered as an unknown app, whichever parameter is not UTF-8: every path here starts with an app.
            RawPathParamsRejection::InvalidUtf8InPathParam(error) => {
                Problem::from_code(ErrorCode::AppNotFound).caused_by(error)
            }
            error => Problem::internal(error),
        })
    }

    /// Returns the text of a parameter; empty if the path does not have it.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    fn app_token(&self) -> Result<AppToken, Problem> {
        AppToken::parse(self.get("app_token")).map_err(|_| ErrorCode::AppNotFound.into())
    }

    fn chat_number(&self) -> Result<ChatNumber, Problem> {
        ChatNumber::parse(self.get("chat_number")).map_err(|_| ErrorCode::ChatNotFound.into())
    }

    fn message_number(&self) -> Result<MessageNumber, Problem> {
        MessageNumber::parse(self.get("message_number")).map_err(|_| ErrorCode::MessageNotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_path_that_is_not_utf8_names_no_app() {
        let app = Router::new().route("/apps/{app_token}/chats/{chat_number}", get(async |_: ChatPath| {}));
        for path in ["/apps/%FF/chats/1", &format!("/apps/{}/chats/%C3%28", "k".repeat(36))] {
            let response =
                app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            let problem = response.extensions().get::<Problem>().unwrap();
            assert_eq!(problem.code(), ErrorCode::AppNotFound, "{path}");
        }
    }
}
