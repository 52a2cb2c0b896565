//! Verification: compares a live projection with a scratch build from the log.

use std::collections::HashSet;
use std::sync::Arc;

use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_domain::{AppToken, ChatNumber, Event, MessageNumber, Position};
use chat_ports::event_store::RecordedEvent;
use chat_ports::projection_contents::{Difference, EntityKind};
use chat_ports::read_model::ReadModel;
use chat_projector::RecoveryPolicy;
use chat_projector::generations::ProjectionLocations;
use chat_sqlite::SqliteReadModelStorage;
use rand::RngExt as _;
use serde::Serialize;
use tokio::sync::watch;

use super::compare::MAX_EXPLAINED;
use super::context::Projections;
use super::error::{ProjectionsError, projection_error};
use super::explain::{Divergence, ExplainedDifference, LiveReader, explain, find_divergence};
use super::local_projectors::{LocalProjectors, Phase, Progress, interrupted};
use super::scratch_build::{ScratchBuild, read_app_and_chat_streams};
use crate::audit::Subject;
use crate::row_fields::Fields;

/// The maximal number of messages of a chat that a sample compares.
const MAX_SAMPLED_MESSAGES: usize = 500;
/// The number of random draws per requested chat. A draw may select a chat that was already compared.
const DRAWS_PER_CHAT: usize = 4;

/// The result of verifying a projection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerificationReport {
    /// The projection.
    pub projection: ProjectionName,
    /// The live generation.
    pub generation: Generation,
    /// The position of the compared content. For a sample, the position of the read model when the sample began.
    pub position: Position,
    /// The number of rows or documents that were compared, each once, also those that are missing in the live projection. A
    /// sample compares no dead letters.
    pub compared: usize,
    /// The number of rows or documents that do not follow from the log, or are missing.
    pub differing: usize,
    /// The first differences, explained.
    pub shown: Vec<ExplainedDifference>,
}

/// Returns the live generation of a projection. Fails if it has events that the log has lost.
async fn verifiable_generation(
    projections: &Projections,
    name: ProjectionName,
) -> Result<ProjectionGeneration, ProjectionsError> {
    let live = projections.live_generation(name).await?;
    let Some(mismatch) = projections.mismatch_with_log(live).await? else { return Ok(live) };
    projections.ensure_log_takes_appends()?;
    let (name, generation) = (name.as_str(), live.generation.0);
    Err(ProjectionsError::NotFound(format!("{name} {generation} can't be compared with the log: {mismatch}")))
}

/// Builds the whole projection again, and compares everything in it with the live generation.
pub async fn full(
    projections: &Projections,
    name: ProjectionName,
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<VerificationReport, ProjectionsError> {
    let live = verifiable_generation(projections, name).await?;
    let store = projections.store(live);
    let (position, stored) = store.contents().await.map_err(|error| projection_error(live, &store, error))?;
    // The scratch build is stored beside the search index, because that disk has room for projections. If the
    // index's parent folder does not exist, the folder for temporary files is used.
    let parent = projections.locations.search_index.parent().filter(|parent| parent.is_dir());
    let folder = match parent {
        Some(parent) => tempfile::Builder::new().prefix(".verify-").tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(ProjectionsError::ScratchFolder)?;
    let scratch_projections = Projections {
        log: Arc::clone(&projections.log),
        locations: ProjectionLocations {
            read_model: Arc::new(SqliteReadModelStorage::new(folder.path().join("read-model.db"))),
            search_index: folder.path().join("search-index"),
        },
    };
    // The scratch build has the number of the live generation, so that progress reports name that generation.
    let projectors = LocalProjectors::start(
        &scratch_projections,
        &[live],
        Some(position),
        RecoveryPolicy::Rebuild,
        progress,
        cancel,
    )
    .await;
    let built = projectors
        .wait_until(Phase::Folding, async |_, status| {
            Ok(status.position >= position
                || scratch_projections.has_no_events_between(status.position, position).await?)
        })
        .await;
    projectors.report_progress(Phase::Comparing);
    projectors.stop().await;
    built?;
    let scratch_store = scratch_projections.store(live);
    let (_, expected) = scratch_store.contents().await.map_err(ProjectionsError::ScratchBuild)?;
    let differences = stored.differences(&expected);
    let is_missing = |(_, difference): &&(_, Difference)| *difference == Difference::OnlySecond;
    let missing = differences.iter().filter(is_missing).count();
    let live_reader = LiveReader::open(projections, live)?;
    Ok(VerificationReport {
        projection: name,
        generation: live.generation,
        position,
        compared: usize::try_from(stored.digest.entity_count()).unwrap_or(usize::MAX).saturating_add(missing),
        differing: differences.len(),
        shown: explain(projections, &live_reader, &differences[..differences.len().min(MAX_EXPLAINED)])
            .await?,
    })
}

/// Builds random chats again from their streams, and compares them with the live projection row by row.
pub async fn sample(
    projections: &Projections,
    name: ProjectionName,
    requested_chats: usize,
    cancel: &watch::Receiver<bool>,
) -> Result<VerificationReport, ProjectionsError> {
    let live = verifiable_generation(projections, name).await?;
    let live_reader = LiveReader::open(projections, live)?;
    // The chats are drawn from the read model, also to verify the search index.
    let read_model = projections.live_generation(ProjectionName::ReadModel).await?;
    let read_model_store = projections.store(read_model);
    let rows = projections.locations.read_model(read_model.generation).reader();
    let unreadable = |error: chat_ports::read_model::ReadModelError| {
        projection_error(read_model, &read_model_store, error.into())
    };
    let end = rows.position().await.map_err(unreadable)?;
    let mut report = VerificationReport {
        projection: name,
        generation: live.generation,
        position: end,
        compared: 0,
        differing: 0,
        shown: Vec::new(),
    };
    let (mut verified_apps, mut verified_chats) = (HashSet::new(), HashSet::new());
    // The number of draws is bounded, because there may be fewer chats than requested.
    for _ in 0..requested_chats.saturating_mul(DRAWS_PER_CHAT) {
        if *cancel.borrow() {
            return Err(ProjectionsError::Interrupted);
        }
        let Some((app, chat)) = random_chat(&*rows, end).await.map_err(unreadable)? else { break };
        if verified_chats.len() == requested_chats {
            break;
        }
        if !verified_chats.insert((app, chat)) {
            continue;
        }
        tokio::select! {
            result = verify_chat(projections, &live_reader, app, chat, &mut verified_apps, &mut report) => result?,
            () = interrupted(cancel) => return Err(ProjectionsError::Interrupted),
        }
    }
    Ok(report)
}

/// Draws an app, and one of its chats at random. The app is the first one that was created after a random position up
/// to `end`, or the first of all if there is none. Returns `None` if there is no app, and `None` for the chat if the
/// app has no chats.
async fn random_chat(
    rows: &dyn ReadModel,
    end: Position,
) -> Result<Option<(AppToken, Option<ChatNumber>)>, chat_ports::read_model::ReadModelError> {
    let from = Position::new(rand::rng().random_range(0..=end.get()));
    let mut apps = rows.apps(from, 1).await?.value;
    if apps.is_empty() {
        apps = rows.apps(Position::START, 1).await?.value;
    }
    let Some(app) = apps.pop() else { return Ok(None) };
    let number = rand::rng().random_range(0..app.chat_count.max(1)) + 1;
    let chat = ChatNumber::try_from(number).ok().filter(|_| app.chat_count > 0);
    Ok(Some((app.token, chat)))
}

/// Rebuilds an app, one of its chats and messages of the chat, and adds their comparison with the live content to
/// `report`. If the app is in `verified_apps`, it was compared before, and only the chat and its messages are compared.
/// Otherwise adds it to `verified_apps`.
async fn verify_chat(
    projections: &Projections,
    live_reader: &LiveReader,
    app: AppToken,
    chat: Option<ChatNumber>,
    verified_apps: &mut HashSet<AppToken>,
    report: &mut VerificationReport,
) -> Result<(), ProjectionsError> {
    let events = read_app_and_chat_streams(&*projections.log, app, chat).await?;
    let mut live_contents: Vec<(Subject, Position, Option<Fields>)> = Vec::new();
    let mut subjects = sample_subjects(&events, app, chat, report.projection);
    if !verified_apps.insert(app) {
        subjects.retain(|subject| !matches!(subject, Subject::App(_)));
    }
    for subject in subjects {
        let (position, live_content) = live_reader.find(subject).await?;
        live_contents.push((subject, position, live_content));
    }
    // The streams are read again, because the live content may include events appended since the first read.
    let events = read_app_and_chat_streams(&*projections.log, app, chat).await?;
    let log_id = projections.log.log_id().await?;
    let mut scratch = ScratchBuild::new(&live_reader.reader, &projections.log, log_id, events).await?;
    for (subject, position, live_content) in live_contents {
        scratch.advance(position).await?;
        let expected = scratch.find(subject).await?;
        // A deleted message still has a row in the read model, and no document in the search index.
        if report.projection == ProjectionName::ReadModel || expected.is_some() || live_content.is_some() {
            report.compared += 1;
        }
        if expected == live_content {
            continue;
        }
        report.differing += 1;
        if report.shown.len() < MAX_EXPLAINED {
            let divergence = find_divergence(projections, live_reader, subject).await?;
            report.shown.push(explained_difference(subject, divergence));
        }
    }
    Ok(())
}

/// Returns the subjects of a sample: the app, the chat, and at most [`MAX_SAMPLED_MESSAGES`] of its messages. The
/// search index has only messages.
fn sample_subjects(
    events: &[RecordedEvent],
    app: AppToken,
    chat: Option<ChatNumber>,
    projection: ProjectionName,
) -> Vec<Subject> {
    let mut subjects = Vec::new();
    if projection == ProjectionName::ReadModel {
        subjects.push(Subject::App(app));
        subjects.extend(chat.map(|chat| Subject::Chat(app, chat)));
    }
    let Some(chat) = chat else { return subjects };
    let created_message = |event: &RecordedEvent| match event.decode() {
        Ok(Event::MessageCreated(created)) => Some(created.message_number),
        _ => None,
    };
    let mut messages: Vec<MessageNumber> = events.iter().filter_map(created_message).collect();
    while messages.len() > MAX_SAMPLED_MESSAGES {
        messages.swap_remove(rand::rng().random_range(0..messages.len()));
    }
    subjects.extend(messages.into_iter().map(|message| Subject::Message(app, chat, message)));
    subjects
}

fn explained_difference(subject: Subject, divergence: Divergence) -> ExplainedDifference {
    let Divergence { shown, expected, first_event } = divergence;
    ExplainedDifference {
        kind: match subject {
            Subject::App(_) => EntityKind::App,
            Subject::Chat(..) => EntityKind::Chat,
            Subject::Message(..) => EntityKind::Message,
        },
        began_at: first_event.as_ref().map(|event| event.position).unwrap_or_default(),
        difference: match (&shown, &expected) {
            (Some(_), None) => Difference::OnlyFirst,
            (None, Some(_)) => Difference::OnlySecond,
            _ => Difference::Content,
        },
        app_token: Some(subject.app().expose().to_owned()),
        chat_number: subject.chat().map(ChatNumber::get),
        message_number: subject.message().map(MessageNumber::get),
        shown,
        expected,
        first_event,
    }
}
