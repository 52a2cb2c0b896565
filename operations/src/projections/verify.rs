//! Folding the log again off to one side, and comparing that with what readers are shown.

use std::collections::HashSet;

use chat_domain::operation::{Copy, Generation, ProjectionName};
use chat_domain::{ChatNumber, Event, MessageNumber, Position};
use chat_ports::contents::{Difference, Kind};
use chat_ports::event_store::RecordedEvent;
use chat_ports::read_model::ReadModel;
use chat_projector::Policy;
use chat_projector::places::{ProjectionPlaces, Rows};
use rand::RngExt as _;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::aside::{Aside, Name, streams};
use super::compare::SHOWN;
use super::explain::{Explained, FirstEvent, Suspect, explain, trace};
use super::fold::{Folds, Phase, Progress};
use super::{Projections, ProjectionsError, asked_to_stop, failed};

/// Messages of a chat that a sample looks at.
const MESSAGES: usize = 500;
/// How often another chat is drawn for each that is wanted.
const TRIES: usize = 4;

/// What was found of a projection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
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
    pub shown: Vec<Explained>,
}

/// Folds the whole log again, and compares everything.
pub async fn full(
    projections: &Projections,
    name: ProjectionName,
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<Verified, ProjectionsError> {
    let live = live(projections, name).await?;
    let place = projections.place(live);
    let (position, stored) = place.contents().await.map_err(|error| failed(live, &place, error))?;
    // Beside the folder of the index, where there is room for projections; wherever it is told, where there is none.
    let parent = projections.places.search_index.parent().filter(|parent| parent.is_dir());
    let folder = match parent {
        Some(parent) => tempfile::Builder::new().prefix(".verify-").tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(ProjectionsError::NoRoom)?;
    let aside = Projections {
        log: std::sync::Arc::clone(&projections.log),
        places: ProjectionPlaces {
            read_model: Rows::Sqlite(folder.path().join("read-model.db")),
            search_index: folder.path().join("search-index"),
        },
    };
    let copy = Copy { projection: name, generation: Generation::FIRST };
    let folds = Folds::start(&aside, &[copy], Some(position), Policy::Mend, progress, cancel).await;
    let done = folds
        .wait(Phase::Folding, async |_, status| {
            Ok(status.position >= position || aside.nothing_between(status.position, position).await?)
        })
        .await;
    folds.tell(Phase::Comparing);
    folds.end().await;
    done?;
    let place = aside.place(copy);
    let (_, expected) = place.contents().await.map_err(ProjectionsError::Aside)?;
    let differences = stored.differences(&expected);
    let suspect = Suspect::of(projections, live)?;
    Ok(Verified {
        name,
        generation: live.generation,
        position,
        compared: usize::try_from(stored.digest.parts()).unwrap_or(usize::MAX),
        drifted: differences.len(),
        shown: explain(projections, &suspect, &differences[..differences.len().min(SHOWN)]).await?,
    })
}

/// Folds the streams of so many random chats again, and compares what is shown of them row by row.
pub async fn sample(
    projections: &Projections,
    name: ProjectionName,
    chats: usize,
    cancel: &watch::Receiver<bool>,
) -> Result<Verified, ProjectionsError> {
    let live = live(projections, name).await?;
    let place = projections.place(live);
    let suspect = Suspect::of(projections, live)?;
    let generations = projections.generations().await?;
    let rows = projections.places.read_model(generations.of(ProjectionName::ReadModel).live).reader();
    let unreadable = |error: chat_ports::read_model::ReadModelError| failed(live, &place, error.into());
    let end = rows.position().await.map_err(unreadable)?;
    let mut verified = Verified {
        name,
        generation: live.generation,
        position: end,
        compared: 0,
        drifted: 0,
        shown: Vec::new(),
    };
    let mut seen = HashSet::new();
    // Where there are few chats, the same ones come up again and again.
    for _ in 0..chats.saturating_mul(TRIES) {
        if *cancel.borrow() {
            return Err(ProjectionsError::Interrupted);
        }
        let Some((app, chat)) = any_chat(&*rows, end).await.map_err(unreadable)? else { break };
        if seen.len() == chats {
            break;
        }
        if !seen.insert((app, chat)) {
            continue;
        }
        let look = check_chat(projections, &suspect, app, chat, &mut verified);
        tokio::select! {
            looked = look => looked?,
            () = asked_to_stop(cancel) => return Err(ProjectionsError::Interrupted),
        }
    }
    Ok(verified)
}

async fn live(projections: &Projections, name: ProjectionName) -> Result<Copy, ProjectionsError> {
    let generations = projections.generations().await?;
    Ok(Copy { projection: name, generation: generations.of(name).live })
}

/// A chat of an app that is found at a random place among all; without a number where the app has none.
async fn any_chat(
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

async fn check_chat(
    projections: &Projections,
    suspect: &Suspect,
    app: chat_domain::AppToken,
    chat: Option<ChatNumber>,
    verified: &mut Verified,
) -> Result<(), ProjectionsError> {
    let events = streams(&*projections.log, app, chat).await?;
    let mut looked_up: Vec<(Name, Position, Option<Value>)> = Vec::new();
    for name in names(&events, app, chat, verified.name) {
        let (position, shown) = suspect.find(name).await?;
        looked_up.push((name, position, shown));
    }
    // Read once more: what is shown may hold events that came since.
    let events = streams(&*projections.log, app, chat).await?;
    let log = projections.log.log_id().await?;
    let mut aside = Aside::new(&suspect.shelf, &projections.log, log, events).await?;
    for (name, position, shown) in looked_up {
        aside.advance(position).await?;
        let expected = aside.find(name).await?;
        verified.compared += 1;
        if expected == shown {
            continue;
        }
        verified.drifted += 1;
        if verified.shown.len() < SHOWN {
            let (shown, expected, first_event) = trace(projections, suspect, name).await?;
            verified.shown.push(explained(name, shown, expected, first_event));
        }
    }
    Ok(())
}

/// What a sample looks at: the app, the chat, and some of its messages. The index knows messages only.
fn names(
    events: &[RecordedEvent],
    app: chat_domain::AppToken,
    chat: Option<ChatNumber>,
    projection: ProjectionName,
) -> Vec<Name> {
    let mut names = Vec::new();
    if projection == ProjectionName::ReadModel {
        names.push(Name::App(app));
        names.extend(chat.map(|chat| Name::Chat(app, chat)));
    }
    let Some(chat) = chat else { return names };
    let created = |event: &RecordedEvent| match event.decode() {
        Ok(Event::MessageCreated(created)) => Some(created.message_number),
        _ => None,
    };
    let mut messages: Vec<MessageNumber> = events.iter().filter_map(created).collect();
    while messages.len() > MESSAGES {
        messages.swap_remove(rand::rng().random_range(0..messages.len()));
    }
    names.extend(messages.into_iter().map(|message| Name::Message(app, chat, message)));
    names
}

fn explained(
    name: Name,
    shown: Option<Value>,
    expected: Option<Value>,
    first_event: Option<FirstEvent>,
) -> Explained {
    Explained {
        kind: match name {
            Name::App(_) => Kind::App,
            Name::Chat(..) => Kind::Chat,
            Name::Message(..) => Kind::Message,
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
