//! `GET /audit/explain/…`, `/audit/at/…` and `/audit/diff/…`, of apps, chats and messages.

use axum::extract::State;
use chat_operations::audit::{
    Difference, Explanation, LogPoint, StateThen, Subject, difference, explain, state_at,
};
use chat_operations::envelope::Envelope;
use chat_web::admin_auth::AuthorizedAdmin;
use chat_web::extract::{AppPath, ChatPath, MessagePath, Query};
use chat_web::{Problem, openapi, problem_responses};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{MAX_SCANNED_EVENTS, explain_problem};
use crate::AdminApi;
use crate::api::{EnvelopeResult, envelope};
use crate::query_params::malformed_parameter;

problem_responses!(pub(super) ExplainFails: AdminTokenMissing, AdminTokenWrong, AppNotFound, ChatNotFound,
    MessageNotFound, EventStoreUnavailable, ReadModelUnavailable);
problem_responses!(pub(super) PointFails: MalformedQuery, AdminTokenMissing, AdminTokenWrong, AppNotFound,
    ChatNotFound, MessageNotFound, EventStoreUnavailable);

/// A point in the log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PointParams {
    /// A position, or a time (RFC 3339, or a date), which means the last event recorded by then.
    #[param(value_type = String, required, example = "2026-09-21T14:13:20Z")]
    point: Option<String>,
}

/// Two points in the log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RangeParams {
    /// The start of the difference: after the event at this position, or the last one recorded by this time.
    #[param(value_type = String, required, example = "17")]
    from: Option<String>,
    /// The end of the difference: with the event at this position, or the last one recorded by this time.
    #[param(value_type = String, required, example = "2026-09-21T14:13:20Z")]
    to: Option<String>,
}

fn parse_point(parameter: &str, text: Option<&str>) -> Result<LogPoint, Problem> {
    text.and_then(LogPoint::parse)
        .ok_or_else(|| malformed_parameter(parameter, "given: a position in the log, or a time"))
}

impl AdminApi {
    async fn explain_entity(&self, subject: Subject) -> EnvelopeResult<Explanation> {
        let _permit = self.acquire_scan_permit().await?;
        let read_model = (self.read_model)();
        Ok(envelope(explain(&*self.event_store, &*read_model, subject).await.map_err(explain_problem)?))
    }

    async fn entity_state_at(&self, subject: Subject, params: &PointParams) -> EnvelopeResult<StateThen> {
        let point = parse_point("point", params.point.as_deref())?;
        let _permit = self.acquire_scan_permit().await?;
        let position = point.resolve(&*self.event_store).await?;
        Ok(envelope(state_at(&*self.event_store, position, subject).await?))
    }

    async fn diff_entity(&self, subject: Subject, params: &RangeParams) -> EnvelopeResult<Difference> {
        let (from, to) =
            (parse_point("from", params.from.as_deref())?, parse_point("to", params.to.as_deref())?);
        let _permit = self.acquire_scan_permit().await?;
        let (from, to) = (from.resolve(&*self.event_store).await?, to.resolve(&*self.event_store).await?);
        if from > to {
            return Err(malformed_parameter("from", "before `to` in the log"));
        }
        Ok(envelope(difference(&*self.event_store, from, to, subject, MAX_SCANNED_EVENTS).await?))
    }
}

/// Explain an app
///
/// Each field of the row, with the event that set it, and whether it agrees with the log.
#[utoipa::path(
    get, path = "/audit/explain/apps/{app_token}", tag = openapi::AUDIT, params(AppPath),
    security(("admin" = [])),
    responses((status = 200, description = "The explanation", body = Envelope<Explanation>), ExplainFails),
)]
pub(super) async fn explain_app(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: AppPath,
) -> EnvelopeResult<Explanation> {
    api.explain_entity(Subject::App(path.app_token)).await
}

/// Explain a chat
///
/// Each field of the row, with the event that set it, and whether it agrees with the log.
#[utoipa::path(
    get, path = "/audit/explain/apps/{app_token}/chats/{chat_number}", tag = openapi::AUDIT, params(ChatPath),
    security(("admin" = [])),
    responses((status = 200, description = "The explanation", body = Envelope<Explanation>), ExplainFails),
)]
pub(super) async fn explain_chat(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: ChatPath,
) -> EnvelopeResult<Explanation> {
    api.explain_entity(Subject::Chat(path.app_token, path.chat_number)).await
}

/// Explain a message
///
/// Each field of the row, with the event that set it, and whether it agrees with the log.
#[utoipa::path(
    get, path = "/audit/explain/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::AUDIT, params(MessagePath),
    security(("admin" = [])),
    responses((status = 200, description = "The explanation", body = Envelope<Explanation>), ExplainFails),
)]
pub(super) async fn explain_message(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: MessagePath,
) -> EnvelopeResult<Explanation> {
    api.explain_entity(Subject::Message(path.app_token, path.chat_number, path.message_number)).await
}

/// Show an app as it was
///
/// Its state after an event, by the log. Each field has the event that set it.
#[utoipa::path(
    get, path = "/audit/at/apps/{app_token}", tag = openapi::AUDIT, params(AppPath, PointParams),
    security(("admin" = [])),
    responses((status = 200, description = "The state", body = Envelope<StateThen>), PointFails),
)]
pub(super) async fn app_at(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: AppPath,
    Query(params): Query<PointParams>,
) -> EnvelopeResult<StateThen> {
    api.entity_state_at(Subject::App(path.app_token), &params).await
}

/// Show a chat as it was
///
/// Its state after an event, by the log. Each field has the event that set it.
#[utoipa::path(
    get, path = "/audit/at/apps/{app_token}/chats/{chat_number}", tag = openapi::AUDIT, params(ChatPath, PointParams),
    security(("admin" = [])),
    responses((status = 200, description = "The state", body = Envelope<StateThen>), PointFails),
)]
pub(super) async fn chat_at(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: ChatPath,
    Query(params): Query<PointParams>,
) -> EnvelopeResult<StateThen> {
    api.entity_state_at(Subject::Chat(path.app_token, path.chat_number), &params).await
}

/// Show a message as it was
///
/// Its state after an event, by the log. Each field has the event that set it.
#[utoipa::path(
    get, path = "/audit/at/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::AUDIT, params(MessagePath, PointParams),
    security(("admin" = [])),
    responses((status = 200, description = "The state", body = Envelope<StateThen>), PointFails),
)]
pub(super) async fn message_at(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: MessagePath,
    Query(params): Query<PointParams>,
) -> EnvelopeResult<StateThen> {
    api.entity_state_at(Subject::Message(path.app_token, path.chat_number, path.message_number), &params)
        .await
}

/// Show the changes of an app
///
/// Between two points in the log, and by which events.
#[utoipa::path(
    get, path = "/audit/diff/apps/{app_token}", tag = openapi::AUDIT, params(AppPath, RangeParams),
    security(("admin" = [])),
    responses((status = 200, description = "The changes", body = Envelope<Difference>), PointFails),
)]
pub(super) async fn app_diff(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: AppPath,
    Query(params): Query<RangeParams>,
) -> EnvelopeResult<Difference> {
    api.diff_entity(Subject::App(path.app_token), &params).await
}

/// Show the changes of a chat
///
/// Between two points in the log, and by which events.
#[utoipa::path(
    get, path = "/audit/diff/apps/{app_token}/chats/{chat_number}", tag = openapi::AUDIT, params(ChatPath, RangeParams),
    security(("admin" = [])),
    responses((status = 200, description = "The changes", body = Envelope<Difference>), PointFails),
)]
pub(super) async fn chat_diff(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: ChatPath,
    Query(params): Query<RangeParams>,
) -> EnvelopeResult<Difference> {
    api.diff_entity(Subject::Chat(path.app_token, path.chat_number), &params).await
}

/// Show the changes of a message
///
/// Between two points in the log, and by which events.
#[utoipa::path(
    get, path = "/audit/diff/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::AUDIT, params(MessagePath, RangeParams),
    security(("admin" = [])),
    responses((status = 200, description = "The changes", body = Envelope<Difference>), PointFails),
)]
pub(super) async fn message_diff(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
    path: MessagePath,
    Query(params): Query<RangeParams>,
) -> EnvelopeResult<Difference> {
    api.diff_entity(Subject::Message(path.app_token, path.chat_number, path.message_number), &params).await
}
