//! The routes of operator actions. Each request is a dry run, or it requests a job.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_operations::envelope::Envelope;
use chat_operations::jobs::{
    AcknowledgeRequest, ActionError, ActionReport, CheckpointRequest, DiscardRequest, DropRequest, Job,
    JobAction, MAX_REASON_CHARS, Reason, RebuildRequest, RequestedJob, RetryRequest, StartError,
    SwitchOverRequest, VerifyRequest,
};
use chat_operations::operator_actions::Operator;
use chat_ports::event_store::AppendError;
use chat_web::admin_auth::{AuthorizedOperator, ReadingOperator};
use chat_web::extract::{IDEMPOTENCY_REPLAYED, IdempotencyKey, JsonBody};
use chat_web::openapi::IdempotencyKeyHeader;
use chat_web::operators::Scope;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, OpenApi, RefOr, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;
use crate::projections::projections_problem;

/// The name of this API in the records of the actions that it requested: see [`Operator::program`].
const PROGRAM: &str = "admin-api";

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    let mut routes = OpenApiRouter::new()
        .routes(routes!(rebuild_projections))
        .routes(routes!(promote_projections))
        .routes(routes!(roll_back_projections))
        .routes(routes!(drop_projections))
        .routes(routes!(retry_dead_letters))
        .routes(routes!(discard_dead_letter))
        .routes(routes!(acknowledge_discards))
        .routes(routes!(make_checkpoint))
        .routes(routes!(verify_log));
    add_common_fields(routes.get_openapi_mut());
    routes
}

/// Adds `reason` and `execute`, which all actions take, to the schemas of the actions' options. The option types don't
/// contain them: see [`parse_body`].
fn add_common_fields(document: &mut OpenApi) {
    let schemas = document.components.iter_mut().flat_map(|components| &mut components.schemas);
    for (_, schema) in schemas.filter(|(name, _)| name.ends_with("Request")) {
        let RefOr::T(Schema::Object(body)) = schema else { continue };
        let reason = ObjectBuilder::new()
            .schema_type(Type::String)
            .max_length(Some(MAX_REASON_CHARS))
            .description(Some("The reason, which is recorded. Required with `execute`."));
        let execute =
            ObjectBuilder::new().schema_type(Type::Boolean).default(Some(false.into())).description(Some(
                "Whether to execute the action. Without it, the response says what the action would do.",
            ));
        body.properties.insert("reason".to_owned(), reason.into());
        body.properties.insert("execute".to_owned(), execute.into());
    }
}

/// The report of a dry run: the same data as in a dry run on the command line.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
struct DryRunReport(Value);

problem_responses!(ActionProblems:
    MalformedJson, BodyInvalid, AdminTokenMissing, AdminTokenWrong, OperatorScopeMissing, ActionNotPossible,
    PayloadTooLarge, UnsupportedMediaType, RequestTimeout, TextInvalid, IdempotencyKeyInvalid, IdempotencyKeyReused,
    EventStoreUnavailable, ReadModelUnavailable, OutcomeUnknown
);

/// Declares the handler of an action. The handler's name is the operation id.
macro_rules! action_handler {
    (
        $handler:ident, $path:literal, $tag:ident, $request:ident => $action:expr,
        $summary:literal, $description:literal
    ) => {
        #[utoipa::path(
            post, path = $path, tag = openapi::$tag, summary = $summary,
            description = concat!(
                $description, " Without `\"execute\": true` this is a dry run, which needs the scope `read`. Otherwise \
                 a job is requested, which needs the scope `act` and a `reason`; a repetition with the same \
                 `Idempotency-Key` returns the same job."
            ),
            params(IdempotencyKeyHeader), request_body = $request, security(("admin" = [])),
            responses(
                (status = 200, description = "What the action would do", body = Envelope<DryRunReport>),
                (status = 202, description = "The job was requested, durably", body = Envelope<Job>, headers(
                    ("Location" = String, description = "The location of the job"),
                    ("Idempotency-Replayed" = String,
                        description = "`true` if an earlier request with the same key requested it"),
                )),
                ActionProblems,
            ),
        )]
        async fn $handler(
            ReadingOperator(operator): ReadingOperator,
            State(api): State<AdminApi>,
            IdempotencyKey(key): IdempotencyKey,
            JsonBody(body): JsonBody<Map<String, Value>>,
        ) -> Result<Response, Problem> {
            let to_action: fn($request) -> JobAction = $action;
            api.act(&operator, key.as_deref(), body, to_action).await
        }
    };
}

action_handler!(
    rebuild_projections, "/admin/v1/projections/rebuilds", PROJECTIONS, RebuildRequest => JobAction::Rebuild,
    "Rebuild projections",
    "Builds new generations from the log, compares them with the live ones, and promotes them unless rows differ."
);
action_handler!(
    promote_projections, "/admin/v1/projections/promotions", PROJECTIONS, SwitchOverRequest => JobAction::Promote,
    "Promote generations",
    "Makes the generations that were built, or that are left over, live: queries are answered from them."
);
action_handler!(
    roll_back_projections, "/admin/v1/projections/rollbacks", PROJECTIONS, SwitchOverRequest => JobAction::RollBack,
    "Roll back to the previous generations",
    "Makes the generations live again that were live before."
);
action_handler!(
    drop_projections, "/admin/v1/projections/drops", PROJECTIONS, DropRequest => JobAction::Drop,
    "Drop generations",
    "Removes generations that are not live: all left-over ones, or one by its number."
);
action_handler!(
    retry_dead_letters, "/admin/v1/dead-letters/retries", PROJECTIONS, RetryRequest => JobAction::RetryDeadLetters,
    "Retry dead letters",
    "Applies the dead letters of streams again, in order, in each stream up to the first one that fails."
);
action_handler!(
    discard_dead_letter, "/admin/v1/dead-letters/discards", PROJECTIONS, DiscardRequest => JobAction::DiscardDeadLetter,
    "Discard a dead letter",
    "Excludes an event from the projections, and retries the events of its stream that wait behind it. The event stays in the log."
);
action_handler!(
    acknowledge_discards, "/admin/v1/dead-letters/acknowledgements", PROJECTIONS,
    AcknowledgeRequest => JobAction::AcknowledgeDiscards,
    "Acknowledge discarded events",
    "Confirms that events were discarded, so that health reports no longer show them."
);
action_handler!(
    make_checkpoint, "/admin/v1/audit/checkpoints", AUDIT, CheckpointRequest => JobAction::MakeCheckpoint,
    "Sign the log",
    "Makes a checkpoint with the server's key (`--audit-key`). The job's report has its text in `note`."
);
action_handler!(
    verify_log, "/admin/v1/audit/verifications", AUDIT, VerifyRequest => JobAction::VerifyLog,
    "Verify the log",
    "Checks the consistency of the whole log, or compares the log with a checkpoint."
);

impl AdminApi {
    /// Answers a dry run, or requests a job.
    async fn act<T: DeserializeOwned>(
        &self,
        operator: &AuthorizedOperator,
        key: Option<&str>,
        body: Map<String, Value>,
        to_action: fn(T) -> JobAction,
    ) -> Result<Response, Problem> {
        let (options, reason_to_execute) = parse_body(body)?;
        let action = to_action(options);
        action.validate().map_err(|error| Problem::new(ErrorCode::BodyInvalid, error.to_string()))?;
        let Some(reason) = reason_to_execute else {
            let _permit = self.acquire_scan_permit().await?;
            let ActionReport { status, data, diagnostics } =
                self.jobs.dry_run(&action).await.map_err(action_problem)?;
            return Ok(Json(Envelope::new(status, DryRunReport(data), diagnostics)).into_response());
        };
        operator.require(Scope::Act)?;
        let operator =
            Operator { name: operator.name.as_ref().to_owned(), program: PROGRAM.to_owned(), job: None };
        let requested = self.jobs.start(&action, &operator, &reason, key).await.map_err(start_problem)?;
        self.job_accepted(requested).await
    }

    async fn job_accepted(
        &self,
        RequestedJob { id, is_replayed }: RequestedJob,
    ) -> Result<Response, Problem> {
        let location = format!("/admin/v1/jobs/{id}");
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_str(&location).map_err(Problem::internal)?);
        if is_replayed {
            headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        let job = self.find_job(id).await?;
        Ok((StatusCode::ACCEPTED, headers, Json(Envelope::for_report(job))).into_response())
    }
}

/// Reads the options of an action. Returns the reason too if the action is to be executed, and `None` for a dry run.
fn parse_body<T: DeserializeOwned>(mut body: Map<String, Value>) -> Result<(T, Option<Reason>), Problem> {
    let invalid = |detail: String| Problem::new(ErrorCode::BodyInvalid, detail);
    let is_executed = match body.remove("execute") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(invalid("`execute`: expected `true` or `false`".to_owned())),
    };
    let reason = match body.remove("reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(reason)) => Some(reason),
        Some(_) => return Err(invalid("`reason`: expected a string".to_owned())),
    };
    let options = serde_path_to_error::deserialize(Value::Object(body)).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.inner());
        invalid(if path == "." { error.to_string() } else { format!("`{path}`: {error}") })
    })?;
    // An action that is executed needs a reason: an absent one is refused like an empty one. The reason of a dry run is
    // parsed too, so that the dry run refuses what the execution would refuse.
    let reason = reason.or_else(|| is_executed.then(String::new));
    let reason = reason.map(|reason| Reason::parse(&reason)).transpose();
    let reason = reason.map_err(|error| invalid(format!("`reason`: {error}")))?;
    Ok((options, reason.filter(|_| is_executed)))
}

fn action_problem(error: ActionError) -> Problem {
    match error {
        ActionError::Options(error) => Problem::new(ErrorCode::BodyInvalid, error.to_string()),
        ActionError::NotPossible(reason) => Problem::new(ErrorCode::ActionNotPossible, reason),
        ActionError::EventStore(error) => error.into(),
        ActionError::Projections(error) => projections_problem(error),
        ActionError::Interrupted => Problem::from_code(ErrorCode::Overloaded),
        error => Problem::internal(error),
    }
}

fn start_problem(error: StartError) -> Problem {
    match error {
        StartError::Action(error) => action_problem(error),
        StartError::KeyReused => ErrorCode::IdempotencyKeyReused.into(),
        error @ (StartError::TooManyJobs | StartError::Contended) => {
            Problem::from_code(ErrorCode::Overloaded).caused_by(error)
        }
        StartError::EventStore(error) => error.into(),
        StartError::Append(error) if matches!(error, AppendError::OutcomeUnknown(_)) => {
            Problem::from_code(ErrorCode::OutcomeUnknown).caused_by(error)
        }
        StartError::Append(error) => Problem::from_code(ErrorCode::EventStoreUnavailable).caused_by(error),
    }
}
