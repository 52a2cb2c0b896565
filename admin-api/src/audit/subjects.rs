//! The audit routes of apps, chats and messages: `GET /audit/explain/…`, `/audit/at/…` and `/audit/diff/…`.

use axum::extract::State;
use chat_operations::audit::{
    Difference, ExplainError, Explanation, LogPoint, PastState, ResolvedPoint, Subject, difference, explain,
    state_at,
};
use chat_operations::envelope::Envelope;
use chat_web::admin_auth::ReadingOperator;
use chat_web::extract::{AppPath, ChatPath, MessagePath, Query, refuse_unescaped_plus};
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::AdminApi;
use crate::api::{EnvelopeResult, MAX_SCANNED_EVENTS, envelope};
use crate::query_params::malformed_parameter;

problem_responses!(pub(super) ExplainProblems: AdminTokenMissing, AdminTokenWrong, AppNotFound, ChatNotFound,
    MessageNotFound, EventStoreUnavailable, ReadModelUnavailable);
problem_responses!(pub(super) PointProblems: AdminTokenMissing, AdminTokenWrong, AppNotFound,
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
    /// The difference begins after the event at this position, or after the last event recorded by this time.
    #[param(value_type = String, required, example = "1")]
    from: Option<String>,
    /// The difference ends with the event at this position, or with the last event recorded by this time.
    #[param(value_type = String, required, example = "2026-09-21T14:13:20Z")]
    to: Option<String>,
}

fn parse_point(parameter: &str, text: Option<&str>) -> Result<LogPoint, Problem> {
    refuse_unescaped_plus(parameter, text)?;
    let Some(text) = text else {
        return Err(Problem::new(ErrorCode::MalformedQuery, format!("`{parameter}` is missing")));
    };
    LogPoint::parse(text).ok_or_else(|| {
        malformed_parameter(parameter, "a position in the log, or a time such as 2026-09-21T14:13:20Z")
    })
}

impl AdminApi {
    async fn explain_subject(&self, subject: Subject) -> EnvelopeResult<Explanation> {
        let _permit = self.acquire_scan_permit().await?;
        let read_model = (self.read_model)();
        Ok(envelope(explain(&*self.event_store, &*read_model, subject).await.map_err(explain_problem)?))
    }

    async fn subject_state_at(&self, subject: Subject, params: &PointParams) -> EnvelopeResult<PastState> {
        let point = parse_point("point", params.point.as_deref())?;
        let _permit = self.acquire_scan_permit().await?;
        let ResolvedPoint { position, remark, .. } = point.resolve_up_to_head(&*self.event_store).await?;
        let mut answer = envelope(state_at(&*self.event_store, position, subject).await?);
        answer.diagnostics.extend(remark);
        Ok(answer)
    }

    async fn diff_subject(&self, subject: Subject, params: &RangeParams) -> EnvelopeResult<Difference> {
        let (from, to) =
            (parse_point("from", params.from.as_deref())?, parse_point("to", params.to.as_deref())?);
        let _permit = self.acquire_scan_permit().await?;
        let from = from.resolve_up_to_head(&*self.event_store).await?;
        let to = to.resolve_up_to_head(&*self.event_store).await?;
        // Points beyond the head are all clamped to the head, which hides their order.
        if from.unclamped_position > to.unclamped_position {
            return Err(malformed_parameter("from", "at or before `to` in the log"));
        }
        let difference =
            difference(&*self.event_store, from.position, to.position, subject, MAX_SCANNED_EVENTS).await?;
        let mut answer = envelope(difference);
        answer.diagnostics.extend(from.remark.into_iter().chain(to.remark));
        Ok(answer)
    }
}

/// A path that names an app, a chat or a message.
trait SubjectPath {
    fn subject(self) -> Subject;
}

impl SubjectPath for AppPath {
    fn subject(self) -> Subject {
        Subject::App(self.app_token)
    }
}

impl SubjectPath for ChatPath {
    fn subject(self) -> Subject {
        Subject::Chat(self.app_token, self.chat_number)
    }
}

impl SubjectPath for MessagePath {
    fn subject(self) -> Subject {
        Subject::Message(self.app_token, self.chat_number, self.message_number)
    }
}

/// Declares the three handlers of one kind of subject. The handlers' names are the operation ids.
macro_rules! subject_handlers {
    ($noun:literal, $path:literal, $path_params:ident, $explain:ident, $state_at:ident, $diff:ident) => {
        #[utoipa::path(
            get, path = concat!("/admin/v1/audit/explain", $path), tag = openapi::AUDIT,
            summary = concat!("Explain ", $noun),
            description = "Each field of the row, the event that set it, and whether row and log agree on it.",
            params($path_params), security(("admin" = [])),
            responses((status = 200, description = "The explanation", body = Envelope<Explanation>), ExplainProblems),
        )]
        pub(super) async fn $explain(
            _: ReadingOperator,
            State(api): State<AdminApi>,
            path: $path_params,
        ) -> EnvelopeResult<Explanation> {
            api.explain_subject(path.subject()).await
        }

        #[utoipa::path(
            get, path = concat!("/admin/v1/audit/at", $path), tag = openapi::AUDIT,
            summary = concat!("Show ", $noun, " as it was"),
            description = "Its state after an event, folded from the log. Each field has the event that set it.",
            params($path_params, PointParams), security(("admin" = [])),
            responses((status = 200, description = "The state", body = Envelope<PastState>), PointProblems),
        )]
        pub(super) async fn $state_at(
            _: ReadingOperator,
            State(api): State<AdminApi>,
            path: $path_params,
            Query(params): Query<PointParams>,
        ) -> EnvelopeResult<PastState> {
            api.subject_state_at(path.subject(), &params).await
        }

        #[utoipa::path(
            get, path = concat!("/admin/v1/audit/diff", $path), tag = openapi::AUDIT,
            summary = concat!("Show the changes of ", $noun),
            description = "The fields that changed between two points in the log, and the events that changed them.",
            params($path_params, RangeParams), security(("admin" = [])),
            responses((status = 200, description = "The changes", body = Envelope<Difference>), PointProblems),
        )]
        pub(super) async fn $diff(
            _: ReadingOperator,
            State(api): State<AdminApi>,
            path: $path_params,
            Query(params): Query<RangeParams>,
        ) -> EnvelopeResult<Difference> {
            api.diff_subject(path.subject(), &params).await
        }
    };
}

subject_handlers!("an app", "/apps/{app_token}", AppPath, explain_app, app_at, app_diff);
subject_handlers!(
    "a chat",
    "/apps/{app_token}/chats/{chat_number}",
    ChatPath,
    explain_chat,
    chat_at,
    chat_diff
);
subject_handlers!(
    "a message",
    "/apps/{app_token}/chats/{chat_number}/messages/{message_number}",
    MessagePath,
    explain_message,
    message_at,
    message_diff
);

fn explain_problem(error: ExplainError) -> Problem {
    match error {
        ExplainError::EventStore(error) => error.into(),
        ExplainError::ReadModel(error) => error.into(),
    }
}
