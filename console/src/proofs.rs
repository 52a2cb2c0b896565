//! Checkpoints of the log, its verification, and proofs of single events.

use std::io::Write as _;

use askama::Template;
use axum::extract::State;
use axum::response::IntoResponse;
use chat_domain::{Metadata, OperatorAction, Position, operator_action};
use chat_operations::audit::{AuditedEvent, EventFilter};
use chat_operations::jobs::{ActionError, CheckpointRequest, JobAction, JobId};
use chat_operations::proof::ProofError;
use chat_operations::proof::event_proof::{CheckedProof, EventProof, prove};
use chat_operations::proof::key::VerifyingKey;
use chat_operations::proof::verify::SignatureStatus;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use crate::console::Console;
use crate::event::{FieldRow, payload_fields};
use crate::event_view::StreamView;
use crate::events::find_page;
use crate::field_problem::FieldProblem;
use crate::form::{Form, FormError, Query, VerifiedForm};
use crate::jobs::JobRow;
use crate::operator_action_view::job_path;
use crate::page::{ConsoleError, Page, PageResult, Section, render, render_form};
use crate::session::Session;
use crate::text::{self, Time};

/// The longest text that [`note_text`] accepts, in bytes.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// A row of the table of checkpoints. It is made from the event that records a use of a signing key.
struct CheckpointRow {
    made_at: Time,
    /// The position of the event that records the use.
    event: Position,
    /// The position up to which the checkpoint covers the log.
    covered_up_to: Position,
    /// The number of events that the checkpoint covers.
    events: u64,
    /// The beginning of the root hash.
    root: String,
    /// The key, as `name+hash`.
    key: String,
    operator: String,
    reason: String,
    /// The address of the checkpoint's file, if a job that is still listed made the checkpoint.
    download: Option<String>,
}

#[derive(Template)]
#[template(path = "proofs.html")]
struct ProofsPage {
    page: Page,
    unfinished_jobs: Vec<JobRow>,
    checkpoints: Vec<CheckpointRow>,
    /// The number of events that no checkpoint covers. `None` without a checkpoint, or if the positions of the log can
    /// have gaps.
    uncovered: Option<u64>,
    /// The sentence that says that this server can't make a checkpoint because it has no signing key. `None` if it has
    /// one.
    no_key: Option<String>,
    /// The id and the text of the public key of this server's checkpoints.
    public_key: Option<(String, String)>,
    /// The values of the forms' fields.
    fields: ProofFields,
}

/// The fields of the page's forms. They keep their values when a form is shown again.
#[derive(Default)]
pub(crate) struct ProofFields {
    verify_checkpoint: String,
    verify_key: String,
    verify_reason: String,
    position: String,
    prove_checkpoint: String,
    proof: String,
    check_key: String,
}

impl ProofFields {
    /// The fields of the form that verifies the log.
    pub(crate) fn for_verification(form: &Form) -> Self {
        Self {
            verify_checkpoint: form.get("checkpoint").to_owned(),
            verify_key: form.get("public_key").to_owned(),
            verify_reason: form.get("reason").to_owned(),
            ..Self::default()
        }
    }

    /// The fields of the form that proves an event.
    fn for_event_proof(form: &Form) -> Self {
        let (position, checkpoint) = (form.get("position").to_owned(), form.get("checkpoint").to_owned());
        Self { position, prove_checkpoint: checkpoint, ..Self::default() }
    }

    /// The fields of the form that checks a proof.
    fn for_proof_check(form: &Form) -> Self {
        let (proof, check_key) = (form.get("proof").to_owned(), form.get("public_key").to_owned());
        Self { proof, check_key, ..Self::default() }
    }
}

#[derive(Template)]
#[template(path = "proof_check.html")]
struct ProofCheckPage {
    page: Page,
    /// The result: the CSS class of its notice, a headline and an explanation.
    verdict: (&'static str, &'static str, &'static str),
    proof: CheckedProof,
    stream: StreamView,
    recorded_at: Time,
    signed_at: Time,
    /// Whether this log has the same event at the same position.
    is_in_log: bool,
    actor: String,
    payload: Vec<FieldRow>,
    raw_payload: String,
    raw_metadata: String,
    /// The key that the signature was checked with.
    key: Option<String>,
}

/// `GET /console/proofs`
pub(crate) async fn show(session: Session, State(console): State<Console>, Query(form): Query) -> PageResult {
    proofs_page(&session, &console, ProofFields::for_event_proof(&form), None).await
}

/// Renders the page. `fields` are the values of its forms. If a form is shown again because one of its fields has a
/// problem, `problem` is that problem.
pub(crate) async fn proofs_page(
    session: &Session,
    console: &Console,
    fields: ProofFields,
    problem: Option<FieldProblem>,
) -> PageResult {
    let filter = EventFilter {
        stream: Some(operator_action::STREAM.into()),
        types: vec!["SigningKeyUsed".to_owned()],
        ..EventFilter::default()
    };
    let found = find_page(console, filter, None, None).await?;
    let mut checkpoints = Vec::with_capacity(found.events.len());
    for event in &found.events {
        checkpoints.extend(checkpoint_row(console, event).await?);
    }
    let head = console.log().head().await.map_err(|error| ConsoleError::unavailable(&error))?;
    let last_covered = checkpoints.iter().map(|checkpoint| checkpoint.covered_up_to).max();
    let last_covered = last_covered.filter(|_| console.log().has_contiguous_positions());
    let make = JobAction::MakeCheckpoint(CheckpointRequest::default());
    let no_key = match console.ports.jobs.dry_run(&make).await {
        Err(ActionError::NotPossible(reason)) => Some(text::sentence(&reason)),
        Ok(_) | Err(_) => None,
    };
    let public_key = console.ports.jobs.verifying_key().map(|key| {
        let id = key.name().map(|name| key.id(name).to_string()).unwrap_or_default();
        (id, key.to_string())
    });
    let page = ProofsPage {
        page: Page::new(Section::Proofs, "Proofs", session).with_problem(problem.clone()),
        unfinished_jobs: JobRow::load_unfinished(console, "audit.").await?,
        uncovered: last_covered.map(|last| head.get().saturating_sub(last.get())),
        checkpoints,
        no_key,
        public_key,
        fields,
    };
    render_form(&page, problem.as_ref())
}

async fn checkpoint_row(
    console: &Console,
    event: &AuditedEvent,
) -> Result<Option<CheckpointRow>, ConsoleError> {
    let payload = event.data.as_ref().map_or("", |data| data.get());
    let action = OperatorAction::decode(&event.event_type, event.schema_version, payload.as_bytes());
    let Ok(OperatorAction::SigningKeyUsed(used)) = action else { return Ok(None) };
    let metadata = event.parsed_metadata().unwrap_or_default();
    let actor = metadata.actor;
    // The correlation id of a job's events is the id of the job.
    let download = match JobId::parse(&metadata.correlation_id) {
        Some(id) => {
            let job = console.ports.jobs.get(id).await.map_err(|error| ConsoleError::unavailable(&error))?;
            let has_note = job.and_then(|job| job.report).is_some_and(|report| report["note"].is_string());
            has_note.then(|| format!("{}/checkpoint", job_path(&id.to_string())))
        }
        None => None,
    };
    Ok(Some(CheckpointRow {
        made_at: Time(event.recorded_at),
        event: event.position,
        covered_up_to: used.position,
        events: used.events,
        root: used.root.chars().take(12).collect(),
        key: used.key,
        operator: actor.name.unwrap_or_default(),
        reason: used.reason,
        download,
    }))
}

/// `POST /console/proofs/event`: the proof that a checkpoint covers an event, as a file.
pub(crate) async fn prove_event(
    session: Session,
    State(console): State<Console>,
    VerifiedForm(form): VerifiedForm,
) -> PageResult {
    match proof_of_event(&console, &form).await {
        Ok((position, proof)) => {
            let name = format!("attachment; filename=\"event-{position}.tlog-proof\"");
            let headers =
                [(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)];
            Ok((headers, proof.to_text()).into_response())
        }
        Err(FormError::Field(problem)) => {
            proofs_page(&session, &console, ProofFields::for_event_proof(&form), Some(problem)).await
        }
        Err(FormError::Page(error)) => Err(error),
    }
}

async fn proof_of_event(console: &Console, form: &Form) -> Result<(Position, EventProof), FormError> {
    let problem = FieldProblem::new("position", "Give the position of the event.");
    let position = form.position("position").ok().flatten().ok_or(FormError::Field(problem))?;
    let note = note_text("prove-checkpoint", form.get("checkpoint"))?;
    let unavailable = |error: std::io::Error| ConsoleError::unavailable(&error);
    let mut file = tempfile::NamedTempFile::new().map_err(unavailable)?;
    file.write_all(note.as_bytes()).map_err(unavailable)?;
    let _permit = console.acquire_scan_permit().await?;
    let proof = prove(console.log(), position, file.path(), &mut |_| ()).await;
    Ok((position, proof.map_err(|error| proof_error("prove-checkpoint", error))?))
}

/// `POST /console/proofs/check`: checks a proof. The result depends on the proof and the key only. The page also says
/// whether this log has the event.
pub(crate) async fn check(
    session: Session,
    State(console): State<Console>,
    VerifiedForm(form): VerifiedForm,
) -> PageResult {
    let (proof, key) = match checked_proof(&form) {
        Ok(checked) => checked,
        Err(FormError::Field(problem)) => {
            return proofs_page(&session, &console, ProofFields::for_proof_check(&form), Some(problem)).await;
        }
        Err(FormError::Page(error)) => return Err(error),
    };
    let verdict = verdict(&proof);
    let logged = console.log().event_at(proof.event.position).await;
    let logged = logged.map_err(|error| ConsoleError::unavailable(&error))?;
    let data = String::from_utf8_lossy(&proof.event.data).into_owned();
    let metadata = serde_json::from_slice::<Metadata>(&proof.event.metadata).ok();
    render(&ProofCheckPage {
        page: Page::new(Section::Proofs, "Check of a proof", &session),
        verdict,
        stream: StreamView::load(&console, &proof.event.stream).await?,
        recorded_at: Time(proof.event.recorded_at),
        signed_at: Time(proof.checkpoint.time),
        is_in_log: logged.is_some_and(|event| event == proof.event),
        actor: metadata.map(|metadata| text::actor(&metadata.actor)).unwrap_or_default(),
        payload: payload_fields(serde_json::from_str(&data).ok()),
        raw_payload: data,
        raw_metadata: String::from_utf8_lossy(&proof.event.metadata).into_owned(),
        key: key.map(|key| key.to_string()),
        proof,
    })
}

/// The checked proof of a form, and the key that it was checked with.
fn checked_proof(form: &Form) -> Result<(CheckedProof, Option<VerifyingKey>), FormError> {
    let failed = |error| proof_error("proof", error);
    let proof = EventProof::parse(&note_text("proof", form.get("proof"))?).map_err(failed)?;
    let key = form.given("public_key").map(|key| VerifyingKey::parse(&key)).transpose();
    let problem = "This is no Ed25519 public key. Paste the first line of the file .pub.";
    let key = key.map_err(|_| FormError::Field(FieldProblem::new("check-key", problem)))?;
    Ok((proof.check(key.as_ref()).map_err(failed)?, key))
}

/// The CSS class of the result's notice, its headline and its explanation.
fn verdict(proof: &CheckedProof) -> (&'static str, &'static str, &'static str) {
    match (proof.included, proof.signature) {
        (false, _) => (
            "error",
            "The proof is not valid",
            "The hashes do not lead from the event to the root of the checkpoint.",
        ),
        (true, SignatureStatus::Good) => (
            "ok",
            "The proof is valid",
            "The event was in the log, byte for byte, when the checkpoint was signed.",
        ),
        (true, SignatureStatus::Wrong | SignatureStatus::ByAnotherKey) => {
            ("error", "The checkpoint can’t be trusted", "Its signature is not by this key.")
        }
        (true, SignatureStatus::NotChecked) => {
            let detail =
                "The event is covered by the checkpoint. Anyone could have made both: give the public key.";
            ("warn", "The signature was not checked", detail)
        }
    }
}

/// Returns a field's text as a signed note: with LF line breaks, and one at the end. Browsers send CR LF, and may leave
/// out the last line break.
fn note_text(field: &'static str, text: &str) -> Result<String, FormError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(FormError::Field(FieldProblem::new(field, "The text is longer than 1 MiB.")));
    }
    let text = text.replace("\r\n", "\n");
    Ok(text.trim_end().to_owned() + "\n")
}

/// Turns a malformed text, an unusable key and an event that can't be proved into a problem of `field`, and any other
/// error into an error page.
fn proof_error(field: &'static str, error: ProofError) -> FormError {
    match error {
        ProofError::Malformed(reason) | ProofError::Key(reason) | ProofError::NotProvable(reason) => {
            FormError::Field(FieldProblem::new(field, text::sentence(reason)))
        }
        error => FormError::Page(ConsoleError::unavailable(&error)),
    }
}
