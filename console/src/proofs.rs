//! Checkpoints of the log, its verification, and proofs of single events.

use std::io::Write as _;

use askama::Template;
use axum::extract::{OriginalUri, State};
use axum::response::IntoResponse;
use chat_domain::{Event, OperatorAction, Position, operator_action};
use chat_operations::audit::{AuditedEvent, EventFilter};
use chat_operations::jobs::{ActionError, CheckpointRequest, JobAction};
use chat_operations::proof::ProofError;
use chat_operations::proof::event_proof::{CheckedProof, EventProof, prove};
use chat_operations::proof::key::VerifyingKey;
use chat_operations::proof::verify::SignatureStatus;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use crate::console::Console;
use crate::event_view::StreamView;
use crate::events::find_page;
use crate::form::{Form, SignedForm};
use crate::jobs::JobRow;
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::session::Session;
use crate::text::{self, Time};

/// The longest proof or checkpoint that a form may have, in bytes.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// A use of a signing key.
struct CheckpointRow {
    made_at: Time,
    recorded: Position,
    position: Position,
    events: u64,
    root: String,
    key: String,
    operator: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "proofs.html")]
struct ProofsPage {
    page: Page,
    running: Vec<JobRow>,
    checkpoints: Vec<CheckpointRow>,
    /// The events that no checkpoint covers.
    uncovered: Option<u64>,
    /// Why this server can't make a checkpoint.
    no_key: Option<String>,
    /// The event to prove.
    position: Option<Position>,
}

#[derive(Template)]
#[template(path = "proof_check.html")]
struct ProofCheckPage {
    page: Page,
    /// Whether the proof is valid, with what it means.
    verdict: (&'static str, &'static str, &'static str),
    proof: CheckedProof,
    stream: StreamView,
    recorded_at: Time,
    signed_at: Time,
    /// The event in this log at the same position is the same one.
    is_in_log: bool,
    body: String,
}

/// `GET /console/proofs`
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    OriginalUri(uri): OriginalUri,
) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or("").as_bytes());
    let filter = EventFilter {
        stream: Some(operator_action::STREAM.into()),
        types: vec!["SigningKeyUsed".to_owned()],
        ..EventFilter::default()
    };
    let found = find_page(&console, filter, None, None).await?;
    let checkpoints: Vec<_> = found.events.iter().filter_map(checkpoint_row).collect();
    let head = console.log().head().await.map_err(|error| ConsoleError::unavailable(&error))?;
    let last = checkpoints.iter().map(|checkpoint| checkpoint.position).max();
    let uncovered = last.filter(|_| console.log().has_contiguous_positions());
    let make = JobAction::MakeCheckpoint(CheckpointRequest::default());
    let no_key = match console.ports.jobs.dry_run(&make).await {
        Err(ActionError::NotPossible(reason)) => Some(text::sentence(&reason)),
        Ok(_) | Err(_) => None,
    };
    render(&ProofsPage {
        page: Page::new(Section::Proofs, "Proofs", &session),
        running: JobRow::running(&console, "audit.").await?,
        uncovered: uncovered.map(|last| head.get().saturating_sub(last.get())),
        checkpoints,
        no_key,
        position: form.position("position")?,
    })
}

fn checkpoint_row(event: &AuditedEvent) -> Option<CheckpointRow> {
    let payload = event.data.as_ref()?.get().as_bytes();
    let action = OperatorAction::decode(&event.event_type, event.schema_version, payload).ok()?;
    let OperatorAction::SigningKeyUsed(used) = action else { return None };
    let actor = event.parsed_metadata().map(|metadata| metadata.actor).unwrap_or_default();
    Some(CheckpointRow {
        made_at: Time(event.recorded_at),
        recorded: event.position,
        position: used.position,
        events: used.events,
        root: used.root.chars().take(12).collect(),
        key: used.key,
        operator: actor.name.unwrap_or_default(),
        reason: used.reason,
    })
}

/// `POST /console/proofs/event`: the proof that a checkpoint covers an event, as a file.
pub(crate) async fn prove_event(
    _: Session,
    State(console): State<Console>,
    SignedForm(form): SignedForm,
) -> PageResult {
    let position = form.position("position")?;
    let position = position.ok_or_else(|| ConsoleError::bad_request("Give the position of the event."))?;
    let note = note_text(form.get("checkpoint"))?;
    let mut file = tempfile::NamedTempFile::new().map_err(|error| ConsoleError::unavailable(&error))?;
    file.write_all(note.as_bytes()).map_err(|error| ConsoleError::unavailable(&error))?;
    let _permit = console.acquire_scan_permit().await?;
    let proof = prove(console.log(), position, file.path(), &mut |_| ()).await.map_err(proof_error)?;
    let name = format!("attachment; filename=\"event-{position}.tlog-proof\"");
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, proof.to_text()).into_response())
}

/// `POST /console/proofs/check`: checks a proof, which needs no log.
pub(crate) async fn check(
    session: Session,
    State(console): State<Console>,
    SignedForm(form): SignedForm,
) -> PageResult {
    let proof = EventProof::parse(&note_text(form.get("proof"))?).map_err(proof_error)?;
    let key = form.given("public_key").map(|key| VerifyingKey::parse(&key)).transpose();
    let key = key.map_err(|_| ConsoleError::bad_request("The public key is no Ed25519 public key."))?;
    let proof = proof.check(key.as_ref()).map_err(proof_error)?;
    let verdict = verdict(&proof);
    let here = console.log().event_at(proof.event.position).await;
    let here = here.map_err(|error| ConsoleError::unavailable(&error))?;
    let body = match proof.event.decode() {
        Ok(Event::MessageCreated(created)) => created.body.as_str().to_owned(),
        Ok(Event::MessageEdited(edited)) => edited.body.as_str().to_owned(),
        Ok(_) | Err(_) => String::new(),
    };
    render(&ProofCheckPage {
        page: Page::new(Section::Proofs, "Check of a proof", &session),
        verdict,
        stream: StreamView::of(&console, &proof.event.stream).await?,
        recorded_at: Time(proof.event.recorded_at),
        signed_at: Time(proof.checkpoint.time),
        is_in_log: here.is_some_and(|event| event == proof.event),
        body,
        proof,
    })
}

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

/// A signed note of a form. Browsers send line breaks as CR LF, and may leave out the last one.
fn note_text(text: &str) -> Result<String, ConsoleError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(ConsoleError::bad_request("The text is longer than 1 MiB."));
    }
    let text = text.replace("\r\n", "\n");
    Ok(text.trim_end().to_owned() + "\n")
}

fn proof_error(error: ProofError) -> ConsoleError {
    match error {
        ProofError::Malformed(reason) | ProofError::Key(reason) | ProofError::NotProvable(reason) => {
            ConsoleError::new(StatusCode::UNPROCESSABLE_ENTITY, "No proof", text::sentence(reason))
        }
        error => ConsoleError::unavailable(&error),
    }
}
