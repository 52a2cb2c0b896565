//! Folding the log again off to one side, and comparing that with what readers are shown.

use std::collections::HashSet;

use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_domain::{ChatNumber, Event, MessageNumber, Position};
use chat_ports::event_store::RecordedEvent;
use chat_ports::projection_contents::{Difference, EntityKind};
use chat_ports::read_model::ReadModel;
use chat_projector::RecoveryPolicy;
use chat_projector::generations::{ProjectionLocations, ReadModelLocation};
use rand::RngExt as _;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::compare::MAX_EXPLAINED;
use super::explain::{DivergingEvent, ExplainedDifference, LiveReader, explain, find_divergence};
use super::local_projectors::{LocalProjectors, Phase, Progress};
use super::scratch_build::{ScratchBuild, Subject, read_app_and_chat_streams};
use super::{Projections, ProjectionsError, cancelled, projection_error};

/// Messages of a chat that a sample looks at.
const MAX_SAMPLED_MESSAGES: usize = 500;
/// How often another chat is drawn for each that is wanted.
const DRAWS_PER_CHAT: usize = 4;

/// What was found of a projection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerificationReport {
    /// The projection.
    pub name: ProjectionName,
    /// The generation that readers see.
    pub generation: Generation,
    /// Up to where the log was folded again.
    pub position: Position,
    /// Rows or documents that were compared.
    pub compared: usize,
    /// Those that are not what follows from the log.
    pub drifted: usize,
    /// The first of them, looked into.
    pub shown: Vec<ExplainedDifference>,
}

/// Folds the whole log again, and compares everything.
pub async fn full(
    projections: &Projections,
    name: ProjectionName,
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<VerificationReport, ProjectionsError> {
    let live = live_generation(projections, name).await?;
    let place = projections.location(live);
    let (position, stored) = place.contents().await.map_err(|error| projection_error(live, &place, error))?;
    // Beside the folder of the index, where there is room for projections; wherever it is told, where there is none.
    let parent = projections.places.search_index.parent().filter(|parent| parent.is_dir());
    let folder = match parent {
        Some(parent) => tempfile::Builder::new().prefix(".verify-").tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(ProjectionsError::ScratchFolder)?;
    let aside = Projections {
        log: std::sync::Arc::clone(&projections.log),
        places: ProjectionLocations {
            read_model: ReadModelLocation::Sqlite(folder.path().join("read-model.db")),
            search_index: folder.path().join("search-index"),
        },
    };
    let copy = ProjectionGeneration { projection: name, generation: Generation::FIRST };
    let folds =
        LocalProjectors::start(&aside, &[copy], Some(position), RecoveryPolicy::Rebuild, progress, cancel)
            .await;
    let done = folds
        .wait_until(Phase::Folding, async |_, status| {
            Ok(status.position >= position || aside.has_no_events_between(status.position, position).await?)
        })
        .await;
    folds.report_progress(Phase::Comparing);
    folds.stop().await;
    done?;
    let place = aside.location(copy);
    let (_, expected) = place.contents().await.map_err(ProjectionsError::ScratchBuild)?;
    let differences = stored.differences(&expected);
    let suspect = LiveReader::open(projections, live)?;
    Ok(VerificationReport {
        name,
        generation: live.generation,
        position,
        compared: usize::try_from(stored.digest.entity_count()).unwrap_or(usize::MAX),
        drifted: differences.len(),
        shown: explain(projections, &suspect, &differences[..differences.len().min(MAX_EXPLAINED)]).await?,
    })
}

/// Folds the streams of so many random chats again, and compares what is shown of them row by row.
pub async fn sample(
    projections: &Projections,
    name: ProjectionName,
    chats: usize,
    cancel: &watch::Receiver<bool>,
) -> Result<VerificationReport, ProjectionsError> {
    let live = live_generation(projections, name).await?;
    let place = projections.location(live);
    let suspect = LiveReader::open(projections, live)?;
    let generations = projections.generations().await?;
    let rows =
        projections.places.read_model(generations.for_projection(ProjectionName::ReadModel).live).reader();
    let unreadable =
        |error: chat_ports::read_model::ReadModelError| projection_error(live, &place, error.into());
    let end = rows.position().await.map_err(unreadable)?;
    let mut verified = VerificationReport {
        name,
        generation: live.generation,
        position: end,
        compared: 0,
        drifted: 0,
        shown: Vec::new(),
    };
    let mut seen = HashSet::new();
    // Where there are few chats, the same ones come up again and again.
    for _ in 0..chats.saturating_mul(DRAWS_PER_CHAT) {
        if *cancel.borrow() {
            return Err(ProjectionsError::Interrupted);
        }
        let Some((app, chat)) = random_chat(&*rows, end).await.map_err(unreadable)? else { break };
        if seen.len() == chats {
            break;
        }
        if !seen.insert((app, chat)) {
            continue;
        }
        let look = verify_chat(projections, &suspect, app, chat, &mut verified);
        tokio::select! {
            looked = look => looked?,
            () = cancelled(cancel) => return Err(ProjectionsError::Interrupted),
        }
    }
    Ok(verified)
}

async fn live_generation(
    projections: &Projections,
    name: ProjectionName,
) -> Result<ProjectionGeneration, ProjectionsError> {
    let generations = projections.generations().await?;
    Ok(ProjectionGeneration { projection: name, generation: generations.for_projection(name).live })
}

/// A chat of an app that is found at a random place among all; without a number where the app has none.
async fn random_chat(
    rows: &dyn ReadModel,
    end: Position,
) -> Result<Option<(chat_domain::AppToken, Option<ChatNumber>)>, chat_ports::read_model::ReadModelError> {
    let from = Position::new(rand::rng().random_range(0..=end.get()));
    let mut found = rows.apps(from, 1).await?.value;
    if found.is_empty() {
        found = rows.apps(Position::START, 1).await?.value;
    }
    let Some(app) = found.pop() else { return Ok(None) };
    let number = rand::rng().random_range(0..app.chat_count.max(1)) + 1;
    let chat = ChatNumber::try_from(number).ok().filter(|_| app.chat_count > 0);
    Ok(Some((app.token, chat)))
}

async fn verify_chat(
    projections: &Projections,
    live_reader: &LiveReader,
    app: chat_domain::AppToken,
    chat: Option<ChatNumber>,
    verified: &mut VerificationReport,
) -> Result<(), ProjectionsError> {
    let events = read_app_and_chat_streams(&*projections.log, app, chat).await?;
    let mut shown_values: Vec<(Subject, Position, Option<Value>)> = Vec::new();
    for name in sample_subjects(&events, app, chat, verified.name) {
        let (position, shown) = live_reader.find(name).await?;
        shown_values.push((name, position, shown));
    }
    // Read once more: what is shown may hold events that came since.
    let events = read_app_and_chat_streams(&*projections.log, app, chat).await?;
    let log = projections.log.log_id().await?;
    let mut aside = ScratchBuild::new(&live_reader.reader, &projections.log, log, events).await?;
    for (name, position, shown) in shown_values {
        aside.advance(position).await?;
        let expected = aside.find(name).await?;
        verified.compared += 1;
        if expected == shown {
            continue;
        }
        verified.drifted += 1;
        if verified.shown.len() < MAX_EXPLAINED {
            let (shown, expected, first_event) = find_divergence(projections, live_reader, name).await?;
            verified.shown.push(explained_difference(name, shown, expected, first_event));
        }
    }
    Ok(())
}

/// What a sample looks at: the app, the chat, and some of its messages. The index knows messages only.
fn sample_subjects(
    events: &[RecordedEvent],
    app: chat_domain::AppToken,
    chat: Option<ChatNumber>,
    projection: ProjectionName,
) -> Vec<Subject> {
    let mut names = Vec::new();
    if projection == ProjectionName::ReadModel {
        names.push(Subject::App(app));
        names.extend(chat.map(|chat| Subject::Chat(app, chat)));
    }
    let Some(chat) = chat else { return names };
    let created = |event: &RecordedEvent| match event.decode() {
        Ok(Event::MessageCreated(created)) => Some(created.message_number),
        _ => None,
    };
    let mut messages: Vec<MessageNumber> = events.iter().filter_map(created).collect();
    while messages.len() > MAX_SAMPLED_MESSAGES {
        messages.swap_remove(rand::rng().random_range(0..messages.len()));
    }
    names.extend(messages.into_iter().map(|message| Subject::Message(app, chat, message)));
    names
}

fn explained_difference(
    name: Subject,
    shown: Option<Value>,
    expected: Option<Value>,
    first_event: Option<DivergingEvent>,
) -> ExplainedDifference {
    ExplainedDifference {
        kind: match name {
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
        app_token: Some(name.app().expose().to_owned()),
        chat_number: name.chat().map(ChatNumber::get),
        message_number: name.message().map(MessageNumber::get),
        shown,
        expected,
        first_event,
    }
}
