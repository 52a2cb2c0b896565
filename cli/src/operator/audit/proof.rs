//! `audit keygen`, `checkpoint`, `verify`, `prove` and `verify-proof`: make a key, sign the log, check the log against
//! a signature, and prove single events.

use std::fs;
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_files::durable_fs::path_with_suffix;
use chat_operations::atomic_file::{FileAccess, NewFile};
use chat_operations::audit::LogPoint;
use chat_operations::backup::{self, Manifest};
use chat_operations::proof::checkpoint::Checkpoint;
use chat_operations::proof::event_proof::{self, EventProof};
use chat_operations::proof::key::{KeyName, SigningKey, VerifyingKey};
use chat_operations::proof::verify::{self, CheckpointError, read_note};
use chat_operations::proof::{ProofError, leaves_file, log_integrity};
use clap::Args;
use serde_json::json;

use super::super::answer::{Answer, Severity};
use super::super::backup::backup_failure;
use super::super::progress::Progress;
use super::render_proof::{self, EarlyEnd};
use crate::data_owner::{PathUse, file_failure};
use crate::failure::Failure;
use crate::operator::common_args::{CommonArgs, OperatorArgs, OutputFormat, parse_reason};
use crate::operator::context::CommandContext;

/// Arguments of `audit keygen`.
#[derive(Args)]
pub(crate) struct KeygenArgs {
    /// File for the private key, readable by its owner alone; the public key goes to FILE.pub. Neither may exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The key's name in its signatures, preferably a unique one such as example.com/chat-audit
    #[arg(long, value_name = "NAME", default_value = "chat-api-audit", value_parser = KeyName::parse)]
    name: KeyName,
    /// Format of the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: OutputFormat,
}

/// Arguments of `audit checkpoint`.
#[derive(Args)]
pub(crate) struct CheckpointArgs {
    /// The private key, from `audit keygen`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File for the checkpoint; the hashes of its events go to FILE.leaves. Neither may exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// End of the checkpoint: the event at this position, or the last one recorded at this time or before [default: the
    /// last event]
    #[arg(long, value_name = "POSITION|TIME", value_parser = parse_until)]
    until: Option<LogPoint>,
    /// Reason to record
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Arguments of `audit verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Checkpoint to compare with; without a checkpoint or backup, only the log's own consistency is checked
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The public key to check the checkpoint's signature with
    #[arg(long, value_name = "FILE", requires = "checkpoint")]
    public_key: Option<PathBuf>,
    /// Compare with this backup: whether the log holds the events that were backed up
    #[arg(long, value_name = "FOLDER", conflicts_with = "checkpoint")]
    backup: Option<PathBuf>,
    /// Accept a checkpoint whose signature is not checked, which is otherwise a finding
    #[arg(long, requires = "checkpoint", conflicts_with = "public_key")]
    unsigned: bool,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Arguments of `audit prove`.
#[derive(Args)]
pub(crate) struct ProveArgs {
    /// The event's position
    #[arg(value_name = "POSITION")]
    position: u64,
    /// A checkpoint that includes the event
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// File for the proof, which contains the whole event; it must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Arguments of `audit verify-proof`.
#[derive(Args)]
pub(crate) struct VerifyProofArgs {
    /// The proof
    #[arg(value_name = "FILE")]
    proof: PathBuf,
    /// The public key to check the checkpoint's signature with
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// Format of the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: OutputFormat,
}

const SIGNATURE_NOT_CHECKED: &str =
    "the signature was not checked: --public-key names the key to check it with";

pub(super) fn keygen(arguments: &KeygenArgs) -> Result<Answer, Failure> {
    let KeygenArgs { out, name, .. } = arguments;
    let public_key = path_with_suffix(out, ".pub");
    let key = SigningKey::generate(name.clone())
        .map_err(|error| Failure::because("the key could not be generated", &error))?;
    let pem = key.to_pem();
    let verifying = key.verifying_key();
    // The private key is written last: if it exists, its public key does, too.
    write_new(&public_key, &verifying.to_file_content(), FileAccess::UmaskDefault)?;
    // Without its private key, the public key would only block the next attempt.
    write_new(out, &pem, FileAccess::OwnerOnly).inspect_err(|_| drop(fs::remove_file(&public_key)))?;
    let data = json!({ "private_key": out, "public_key": public_key, "name": name, "verifier": verifying.to_string() });
    let text =
        format!("{verifying}\n\nprivate key  {}\npublic key   {}\n", out.display(), public_key.display());
    let key_advice = "anyone who has the private key can sign an altered log: keep it away from the log's machine, \
                and the public key where it can't be exchanged";
    Ok(Answer::new(&data, text)?.with_diagnostic(Severity::Note, key_advice))
}

pub(super) async fn checkpoint(arguments: &CheckpointArgs) -> Result<Answer, Failure> {
    let CheckpointArgs { key, out, until, reason, operator, common } = arguments;
    let pem = read_file(key)?;
    let signer = SigningKey::from_pem(&pem);
    let signer =
        signer.map_err(|error| Failure::because(format!("{} can't be used", key.display()), &error))?;
    let context = CommandContext::open_unless_backup(common).await?;
    let mut progress = Progress::start("Hashing events", expected_events(&context).await);
    let mut on_progress = |events| progress.set_done(events);
    let operator = operator.operator();
    let checkpoint = verify::make_checkpoint(
        &*context.event_store,
        *until,
        &signer,
        out,
        (&operator, reason),
        &mut on_progress,
    )
    .await;
    let problem = "the checkpoint could not be made";
    let checkpoint = checkpoint.map_err(|error| match error {
        CheckpointError::Proof(error) => proof_failure(problem, &error),
        error @ (CheckpointError::LogClosed(_) | CheckpointError::OperatorAction(_)) => {
            Failure::because(problem, &error)
        }
    })?;
    drop(progress);
    let data = json!({ "checkpoint": checkpoint, "file": out, "leaves_file": leaves_file::leaves_path(out) });
    let text = render_proof::checkpoint_text(&checkpoint, out);
    let answer = Answer::new(&data, text)?;
    if !is_readable_by_others(key) {
        return Ok(answer);
    }
    let permissions_advice =
        format!("users other than the owner can read {}: restrict it with chmod 600", key.display());
    Ok(answer.with_diagnostic(Severity::Warning, permissions_advice))
}

pub(super) async fn verify(arguments: &VerifyArgs) -> Result<Answer, Failure> {
    let VerifyArgs { checkpoint, public_key, backup, unsigned, common } = arguments;
    let failed = |error| proof_failure("the log could not be verified", &error);
    let key = public_key.as_deref().map(read_public_key).transpose()?;
    if let Some(backup) = backup {
        return verify_backup(backup, common).await;
    }
    let Some(path) = checkpoint else {
        let context = CommandContext::open(common).await?;
        let mut progress = Progress::start("Reading events", expected_events(&context).await);
        let report =
            log_integrity::check(&*context.event_store, None, &mut |events| progress.set_done(events)).await;
        let report = report.map_err(failed)?;
        drop(progress);
        let answer = Answer::new(&report, render_proof::integrity_text(&report))?
            .with_finding(!report.faults.is_empty());
        let not_compared =
            "without --checkpoint, only the log's consistency was checked, and not whether it was altered";
        return Ok(answer.with_diagnostic(Severity::Note, not_compared));
    };
    let total = read_note(path).and_then(|note| Checkpoint::parse(note.text())).map_err(failed)?.events;
    let context = CommandContext::open(common).await?;
    let mut progress = Progress::start("Hashing events", Some(total));
    let verdict =
        verify::verify(&*context.event_store, path, key.as_ref(), &mut |events| progress.set_done(events))
            .await;
    let verdict = verdict.map_err(failed)?;
    drop(progress);
    let head = context.event_store.head().await.ok();
    let has_lost_events = context.problem.is_some_and(|problem| problem.is_truncated_log());
    let early_end = head
        .filter(|head| verdict.same_log && *head < verdict.checkpoint.position)
        .filter(|_| has_lost_events || context.is_backup)
        .map(|head| EarlyEnd { head, is_backup: context.is_backup });
    let is_accepted = verdict.is_valid() || (*unsigned && verdict.matches_checkpoint());
    let mut answer =
        Answer::new(&verdict, render_proof::verdict_text(&verdict, early_end))?.with_finding(!is_accepted);
    if key.is_none() {
        answer = answer.with_diagnostic(Severity::Warning, SIGNATURE_NOT_CHECKED);
    }
    Ok(answer)
}

/// Compares the log with the manifest of a backup.
async fn verify_backup(folder: &Path, common: &CommonArgs) -> Result<Answer, Failure> {
    let manifest = Manifest::read(folder)
        .map_err(|error| backup_failure("the backup's manifest can't be read", &error, PathUse::Data))?;
    let context = CommandContext::open(common).await?;
    let mut progress = Progress::start("Hashing events", Some(manifest.events));
    let mut on_progress = |events| progress.set_done(events);
    let comparison = backup::compare(folder, manifest, &*context.event_store, &mut on_progress).await;
    let comparison = comparison.map_err(|error| Failure::because("the log could not be compared", &error))?;
    drop(progress);
    let text = render_proof::backup_text(&comparison);
    Ok(Answer::new(&comparison, text)?.with_finding(!comparison.is_good()))
}

pub(super) async fn prove(arguments: &ProveArgs) -> Result<Answer, Failure> {
    let ProveArgs { position, checkpoint, out, common } = arguments;
    let failed = |error| proof_failure("the proof could not be made", &error);
    let context = CommandContext::open(common).await?;
    let mut progress = Progress::start("Hashing events", None);
    let mut on_progress = |events| progress.set_done(events);
    let proof =
        event_proof::prove(&*context.event_store, Position::new(*position), checkpoint, &mut on_progress)
            .await;
    let proof = proof.map_err(failed)?;
    drop(progress);
    let checked = proof.check(None).map_err(failed)?;
    // The proof contains the event with its text.
    write_new(out, &proof.to_text(), FileAccess::OwnerOnly)?;
    let data = json!({ "file": out, "position": position, "index": checked.index, "events": checked.checkpoint.events });
    let text = format!(
        "event {} is number {} of the {} that were signed\nproof  {}\n",
        position,
        checked.index + 1,
        checked.checkpoint.events,
        out.display()
    );
    Ok(Answer::new(&data, text)?
        .with_diagnostic(Severity::Note, "the proof contains the whole event, with its text"))
}

pub(super) fn verify_proof(arguments: &VerifyProofArgs) -> Result<Answer, Failure> {
    let VerifyProofArgs { proof, public_key, .. } = arguments;
    let failed = |error| Failure::because(format!("{} can't be checked", proof.display()), &error);
    let key = read_public_key(public_key)?;
    let checked =
        EventProof::parse(&read_file(proof)?).and_then(|proof| proof.check(Some(&key))).map_err(failed)?;
    let answer = Answer::new(&render_proof::proof_as_json(&checked), render_proof::proof_text(&checked))?;
    Ok(answer.with_finding(!render_proof::is_proved(&checked)))
}

fn parse_until(text: &str) -> Result<LogPoint, &'static str> {
    LogPoint::parse(text).ok_or("neither a position nor a time such as 2026-11-24T17:00:00Z")
}

/// Returns the number of events in the log, which is the head if positions are contiguous. `None` if they are not, or
/// if the head can't be read.
async fn expected_events(context: &CommandContext) -> Option<u64> {
    let head = context.event_store.head().await.ok()?;
    context.event_store.has_contiguous_positions().then_some(head.get())
}

fn read_public_key(path: &Path) -> Result<VerifyingKey, Failure> {
    VerifyingKey::parse(&read_file(path)?)
        .map_err(|error| Failure::because(format!("{} can't be used", path.display()), &error))
}

fn proof_failure(problem: &str, error: &ProofError) -> Failure {
    match error {
        ProofError::File { path, source } => {
            file_failure(&format!("{problem}: {}", path.display()), path, source)
        }
        error => Failure::because(problem, error),
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| file_failure(&format!("{} can't be read", path.display()), path, &error))
}

fn write_new(path: &Path, text: &str, access: FileAccess) -> Result<(), Failure> {
    use std::io::Write as _;
    let write = || {
        let mut file = NewFile::create(path, access)?;
        file.write_all(text.as_bytes())?;
        file.persist()
    };
    write().map_err(|error| file_failure(&format!("{} can't be written", path.display()), path, &error))
}

fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o044 != 0)
}
