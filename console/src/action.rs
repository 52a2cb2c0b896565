//! Actions of operators: each is first tried in a dry run, and then requested as a job.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chat_domain::Position;
use chat_domain::projection::{Generation, ProjectionName};
use chat_operations::jobs::{
    AcknowledgeRequest, ActionError, CheckpointRequest, DiscardRequest, DropRequest, JobAction,
    MAX_REASON_CHARS, ProjectionList, Reason, RebuildRequest, RetryRequest, StartError, SwitchOverRequest,
    VerifyRequest,
};
use chat_operations::operator_actions::Operator;
use http::StatusCode;

use crate::console::Console;
use crate::dead_letters::{self, parse_projection};
use crate::field_problem::FieldProblem;
use crate::form::{Form, FormError, VerifiedForm};
use crate::operator_action_view::{job_path, job_section, job_title};
use crate::page::{ConsoleError, Page, PageResult, render, see_other};
use crate::projections;
use crate::promotion_facts::promotion_facts;
use crate::proofs::{ProofFields, proofs_page};
use crate::report_view::ReportView;
use crate::session::Session;
use crate::text;

/// The name of the console in the metadata of actions.
const PROGRAM: &str = "console";

/// The maximal number of actions of one form: each becomes a job.
const MAX_ACTIONS: usize = 20;

/// Fields of a form.
type Fields = Vec<(&'static str, String)>;

/// An action with the form fields that describe it.
struct PlannedAction {
    action: JobAction,
    fields: Fields,
}

/// A dry run of an action.
struct DryRun {
    /// The subject of the action. Empty if the form of the action has only one action.
    title: String,
    report: ReportView,
    diagnostics: Vec<String>,
}

#[derive(Template)]
#[template(path = "dry_run.html")]
struct DryRunPage<'a> {
    page: Page,
    kind: &'a str,
    dry_runs: Vec<DryRun>,
    /// Why actions are not possible.
    impossible: Vec<String>,
    /// The fields of the actions that are possible.
    fields: Fields,
    idempotency_key: String,
    reason: String,
    /// Why the reason is not accepted, if the page is shown again.
    problem: Option<String>,
    /// The page that the form was on.
    back: &'static str,
    back_title: &'static str,
}

impl DryRunPage<'_> {
    fn is_destructive(&self) -> bool {
        matches!(self.kind, "projections.drop" | "dead_letters.discard")
    }
}

/// `GET /console/actions/{kind}`: goes to the page with the form of the action.
pub(crate) async fn redirect_to_form(Path(kind): Path<String>) -> Response {
    see_other(match kind.split('.').next() {
        Some("dead_letters") => "/console/dead-letters",
        Some("audit") => "/console/proofs",
        _ => "/console/projections",
    })
}

/// `POST /console/actions/{kind}`: makes a dry run of each action of the form. With `execute`, requests a job for each
/// action instead.
pub(crate) async fn act(
    session: Session,
    State(console): State<Console>,
    Path(kind): Path<String>,
    VerifiedForm(form): VerifiedForm,
) -> PageResult {
    if !session.may_act {
        return Err(ConsoleError::forbidden(
            "You can read, but not act. An operator with the scope `act` can. Nothing was done.",
        ));
    }
    let planned = match plan(&kind, &form) {
        Ok(planned) => planned,
        Err(FormError::Field(problem)) => return form_page(&session, &console, &form, problem).await,
        Err(FormError::Page(error)) => return Err(error),
    };
    if form.get("execute") != "true" {
        return dry_run_page(&session, &console, &kind, planned, &form, None).await;
    }
    let reason = match Reason::parse(form.get("reason")) {
        Ok(reason) => reason,
        Err(error) => {
            let problem = text::sentence(&error.to_string());
            return dry_run_page(&session, &console, &kind, planned, &form, Some(problem)).await;
        }
    };
    let operator = Operator { name: session.operator.clone(), program: PROGRAM.to_owned(), job: None };
    let key = form.given("idempotency_key");
    let mut jobs = Vec::with_capacity(planned.len());
    for (index, PlannedAction { action, .. }) in planned.iter().enumerate() {
        let key = key.as_ref().map(|key| format!("{key}-{index}"));
        let requested = console.ports.jobs.start(action, &operator, &reason, key.as_deref()).await;
        jobs.push(requested.map_err(|error| start_error(error, jobs.len()))?.id);
    }
    match jobs[..] {
        [job] => Ok(see_other(&job_path(&job.to_string()))),
        _ => Ok(see_other("/console/jobs")),
    }
}

/// Shows the page with the action's form again, with the problem of a field.
async fn form_page(session: &Session, console: &Console, form: &Form, problem: FieldProblem) -> PageResult {
    match problem.field {
        "dead_letters" => dead_letters::form_page(session, console, form, problem).await,
        "rebuild" | "promote" | "rollback" | "drop" => {
            projections::projections_page(session, console, form.get("reason"), Some(problem)).await
        }
        _ => proofs_page(session, console, ProofFields::for_verification(form), Some(problem)).await,
    }
}

/// Returns the form field that made a verification of the log fail, with its problem. `None` for other actions and
/// other errors.
fn verification_problem(action: &JobAction, error: &ActionError) -> Option<FieldProblem> {
    let JobAction::VerifyLog(request) = action else { return None };
    let (field, reason) = match error {
        ActionError::NotPossible(reason) => (request.malformed_field()?, reason.clone()),
        ActionError::Options(error) => (error.field, error.to_string()),
        _ => return None,
    };
    let field = if field == "public_key" { "verify-key" } else { "verify-checkpoint" };
    Some(FieldProblem::new(field, text::sentence(&text::shorten_tokens(&reason))))
}

async fn dry_run_page(
    session: &Session,
    console: &Console,
    kind: &str,
    planned: Vec<PlannedAction>,
    form: &Form,
    problem: Option<String>,
) -> PageResult {
    let _permit = console.acquire_scan_permit().await?;
    let (mut dry_runs, mut impossible, mut fields) = (Vec::new(), Vec::new(), Vec::new());
    for PlannedAction { action, fields: action_fields } in planned {
        let title = action_title(&action_fields);
        match console.ports.jobs.dry_run(&action).await {
            Ok(dry_run) => {
                let diagnostics = dry_run.diagnostics.iter().map(|diagnostic| &diagnostic.message);
                let diagnostics = diagnostics.map(|message| text::sentence(&text::shorten_tokens(message)));
                let diagnostics = diagnostics.collect();
                let mut report = ReportView::load(console, kind, &dry_run.data).await?;
                if kind == "projections.promote" {
                    report.tables.push(promotion_facts(console, &dry_run.data).await?);
                }
                dry_runs.push(DryRun { title, report, diagnostics });
                fields.extend(action_fields);
            }
            Err(error) if verification_problem(&action, &error).is_some() => {
                let problem = verification_problem(&action, &error);
                let fields = ProofFields::for_verification(form);
                return proofs_page(session, console, fields, problem).await;
            }
            Err(ActionError::NotPossible(reason)) => {
                let reason = text::sentence(&text::shorten_tokens(&reason));
                impossible.push(if title.is_empty() { reason } else { format!("{title}: {reason}") });
            }
            Err(error) => return Err(action_error(error)),
        }
    }
    let key = getrandom::u64().map_err(|error| ConsoleError::unavailable(&error))?;
    let (section, back, back_title) = job_section(kind);
    render(&DryRunPage {
        page: Page::new(section, format!("Dry run: {}", job_title(kind)), session),
        kind,
        dry_runs,
        impossible,
        fields,
        idempotency_key: BASE64_URL_SAFE_NO_PAD.encode(key.to_be_bytes()),
        reason: form.get("reason").to_owned(),
        problem,
        back,
        back_title,
    })
}

/// The subject of the action that these fields describe. Empty if the form of the action has only one action.
fn action_title(fields: &[(&'static str, String)]) -> String {
    let subjects = fields.iter().filter(|(name, _)| *name == "dead_letter" || *name == "generation");
    subjects.map(|(_, value)| value.replace(['_', '/'], " ")).collect()
}

/// Reads the actions of a form.
fn plan(kind: &str, form: &Form) -> Result<Vec<PlannedAction>, FormError> {
    let one = |action, fields| Ok(vec![PlannedAction { action, fields }]);
    match kind {
        "projections.rebuild" => {
            let (projections, mut fields) = selected_projections(form, "rebuild")?;
            let flag = |name| form.get(name) == "true";
            let flags = ["from_scratch", "accept_differences"].into_iter().filter(|name| flag(name));
            fields.extend(flags.map(|name| (name, "true".to_owned())));
            let (from_scratch, accept_differences) = (flag("from_scratch"), flag("accept_differences"));
            let request = RebuildRequest { projections, from_scratch, accept_differences, until: None };
            one(JobAction::Rebuild(request), fields)
        }
        "projections.promote" => {
            let (projections, fields) = selected_projections(form, "promote")?;
            one(JobAction::Promote(SwitchOverRequest { projections: Some(projections) }), fields)
        }
        "projections.rollback" => {
            let (projections, fields) = selected_projections(form, "rollback")?;
            one(JobAction::RollBack(SwitchOverRequest { projections: Some(projections) }), fields)
        }
        "projections.drop" => plan_each_selected(form, "generation", |projection, number| {
            let generation = number.parse().map(Generation).map_err(|_| unreadable("generation"))?;
            let projections = projection.into();
            Ok(JobAction::Drop(DropRequest { projections, generation: Some(generation) }))
        }),
        "dead_letters.retry" if form.get("all") == "true" => {
            let request = RetryRequest { all: true, ..RetryRequest::default() };
            one(JobAction::RetryDeadLetters(request), vec![("all", "true".to_owned())])
        }
        "dead_letters.retry" => plan_each_selected(form, "dead_letter", |projection, position| {
            let (projections, position) = (projection.into(), Some(dead_letter_position(position)?));
            let request = RetryRequest { projections, position, ..RetryRequest::default() };
            Ok(JobAction::RetryDeadLetters(request))
        }),
        "dead_letters.discard" => plan_each_selected(form, "dead_letter", |projection, position| {
            let (projections, position) = (projection.into(), dead_letter_position(position)?);
            Ok(JobAction::DiscardDeadLetter(DiscardRequest { projections, position }))
        }),
        "dead_letters.acknowledge" => plan_each_selected(form, "dead_letter", |projection, position| {
            let (projections, position) = (projection.into(), Some(dead_letter_position(position)?));
            let request = AcknowledgeRequest { projections, position, all: false };
            Ok(JobAction::AcknowledgeDiscards(request))
        }),
        "audit.checkpoint" => one(JobAction::MakeCheckpoint(CheckpointRequest::default()), Vec::new()),
        "audit.verify" => {
            let (checkpoint, public_key) = (form.given("checkpoint"), form.given("public_key"));
            // A signed note ends with a line break, which `given` has trimmed.
            let checkpoint = checkpoint.map(|note| note.replace("\r\n", "\n") + "\n");
            let texts = [("checkpoint", &checkpoint), ("public_key", &public_key)];
            let fields = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect();
            one(JobAction::VerifyLog(VerifyRequest { checkpoint, public_key }), fields)
        }
        _ => Err(ConsoleError::not_found("There is no such action.").into()),
    }
}

fn unreadable(field: &str) -> ConsoleError {
    ConsoleError::bad_request(format!("`{field}` can’t be read. Load the page again, and send its form."))
}

fn dead_letter_position(text: &str) -> Result<Position, ConsoleError> {
    Position::parse(text).map_err(|_| unreadable("dead_letter"))
}

/// Returns the projections that are selected in a form, and the fields that select them. `id` is the form's id on the
/// page, where a problem is shown.
fn selected_projections(form: &Form, id: &'static str) -> Result<(ProjectionList, Fields), FormError> {
    let names: Vec<ProjectionName> =
        form.all("projection").map(parse_projection).collect::<Result<_, _>>()?;
    let problem = FieldProblem::new(id, "Select at least one projection.");
    let projections: ProjectionList = names.try_into().map_err(|_| FormError::Field(problem))?;
    let fields = projections.names().iter().map(|name| ("projection", name.as_str().to_owned())).collect();
    Ok((projections, fields))
}

/// Plans an action for each selected value of a field, such as `read_model/17`.
fn plan_each_selected(
    form: &Form,
    field: &'static str,
    to_action: impl Fn(ProjectionName, &str) -> Result<JobAction, ConsoleError>,
) -> Result<Vec<PlannedAction>, FormError> {
    let mut values: Vec<&str> = Vec::new();
    for value in form.all(field) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    if values.is_empty() || values.len() > MAX_ACTIONS {
        let message = match values.len() {
            0 => "Select at least one.".to_owned(),
            selected => format!("{selected} are selected. At most {MAX_ACTIONS} can be selected at a time."),
        };
        let id = if field == "dead_letter" { "dead_letters" } else { "drop" };
        return Err(FormError::Field(FieldProblem::new(id, message)));
    }
    let planned = values.into_iter().map(|value| {
        let (projection, rest) = value.split_once('/').ok_or_else(|| unreadable(field))?;
        let action = to_action(parse_projection(projection)?, rest)?;
        Ok(PlannedAction { action, fields: vec![(field, value.to_owned())] })
    });
    planned.collect()
}

/// The error page for an error of an action.
fn action_error(error: ActionError) -> ConsoleError {
    match error {
        ActionError::NotPossible(reason) => {
            let reason = text::sentence(&text::shorten_tokens(&reason));
            ConsoleError::new(StatusCode::CONFLICT, "Not possible now", reason)
        }
        ActionError::Options(error) => ConsoleError::bad_request(text::sentence(&error.to_string())),
        error => ConsoleError::unavailable(&error),
    }
}

/// The error page of a job that could not be requested. `requested` jobs of the same form were requested before it.
fn start_error(error: StartError, requested: usize) -> ConsoleError {
    let error = match error {
        StartError::Action(error) => action_error(error),
        error @ (StartError::KeyReused | StartError::TooManyJobs | StartError::Contended) => {
            ConsoleError::new(StatusCode::CONFLICT, "Not possible now", text::sentence(&error.to_string()))
        }
        StartError::EventStore(error) => ConsoleError::unavailable(&error),
        error @ StartError::Append(_) => ConsoleError::unavailable(&error),
    };
    match requested {
        0 => error,
        1 => error.followed_by("1 of the selected ones was requested before: see the list of jobs."),
        _ => error.followed_by(&format!(
            "{requested} of the selected ones were requested before: see the list of jobs."
        )),
    }
}

#[cfg(test)]
mod tests {
    use chat_ports::event_store::{AppendError, EventStoreError};

    use super::*;

    fn planned(kind: &str, form: &str) -> Option<usize> {
        plan(kind, &Form::parse(form.as_bytes())).ok().map(|planned| planned.len())
    }

    #[test]
    fn a_form_has_an_action_for_each_selected_dead_letter() {
        let two = "dead_letter=read_model/7&dead_letter=search_index/9";
        assert_eq!(planned("dead_letters.retry", two), Some(2));
        assert_eq!(planned("dead_letters.retry", "all=true"), Some(1));
        assert_eq!(planned("dead_letters.discard", "dead_letter=read_model/x"), None);
        assert_eq!(planned("dead_letters.discard", "dead_letter=other/7"), None);
        assert_eq!(planned("dead_letters.acknowledge", ""), None);
        let repeated = "dead_letter=read_model/7&dead_letter=read_model/9&dead_letter=read_model/7";
        assert_eq!(planned("dead_letters.retry", repeated), Some(2));
        let many: Vec<String> =
            (0..=MAX_ACTIONS).map(|position| format!("dead_letter=read_model/{position}")).collect();
        assert_eq!(planned("dead_letters.retry", &many.join("&")), None);
    }

    #[test]
    fn an_error_says_how_many_jobs_were_requested_before_it() {
        let unavailable = || EventStoreError::Unavailable("the disk is full".into());
        let errors = || {
            [
                StartError::Action(ActionError::NotPossible("it is live".to_owned())),
                StartError::Action(ActionError::EventStore(unavailable())),
                StartError::TooManyJobs,
                StartError::EventStore(unavailable()),
                StartError::Append(AppendError::Conflict),
            ]
        };
        for (error, same_error) in errors().into_iter().zip(errors()) {
            let detail = start_error(error, 2).detail;
            let (reason, hint) = detail.split_once(". ").unwrap();
            assert_eq!(hint, "2 of the selected ones were requested before: see the list of jobs.");
            assert!(start_error(same_error, 0).detail.starts_with(reason), "{detail}");
        }
    }

    #[test]
    fn a_form_needs_a_projection_and_a_known_kind() {
        assert_eq!(planned("projections.rebuild", "projection=read_model"), Some(1));
        assert_eq!(planned("projections.rebuild", ""), None);
        assert_eq!(planned("projections.drop", "generation=read_model/2"), Some(1));
        assert_eq!(planned("projections.melt", "projection=read_model"), None);
    }
}
