//! Deciding what is to become of parked events: recorded in the log, and waited for.

use std::time::Duration;

use chat_domain::operation::{
    Copy, DeadLetterDiscarded, DeadLettersRetried, DiscardAcknowledged, ProjectionName,
};
use chat_domain::{Operation, Position, StreamId};
use chat_ports::dead_letter::{LetterList, WhichLetters};
use chat_projector::letters::advance;
use chat_projector::places::Place;
use chat_projector::projection::{Projection, ProjectionError};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Letter, LetterState, Stop};
use crate::acts::{Operator, record};
use crate::projections::{Projections, ProjectionsError, failed};

/// How often it is looked whether a projection has come to an act.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is tried whether nobody projects.
const TAKE_OVER_EVERY: Duration = Duration::from_millis(500);
/// Letters that are read at once.
const PAGE: usize = 1_000;

/// Which letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// That of the event at a position.
    Event(Position),
    /// Those of a stream; with an app's go those of its chats.
    Stream(String),
    /// All.
    All,
}

/// A stream with parked events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parked {
    /// In which projection.
    pub projection: ProjectionName,
    /// The stream.
    pub stream: String,
    /// The first event of it that is parked.
    pub position: Position,
    /// How many are.
    pub parked: u64,
}

/// What is to be done to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stream.
    pub parked: Parked,
    /// Whether to give up the first of its parked events; the others are retried either way.
    pub discard: bool,
}

/// What was done to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// In which projection.
    pub projection: ProjectionName,
    /// The stream.
    pub stream: String,
    /// The event that was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<Position>,
    /// The position of the act.
    pub act: Position,
    /// What it came to; `None` where the projection has not come to it yet.
    pub outcome: Option<Left>,
}

/// What an act left of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// How many of its events were applied.
    pub applied: u64,
    /// How many are parked.
    pub parked: u64,
    /// Where it stops.
    pub stopped: Option<Stop>,
}

/// The streams with parked events that are meant, in the order in which they have to be retried: apps before chats.
pub async fn parked_streams(
    projections: &Projections,
    names: &[ProjectionName],
    meant: &Meant,
) -> Result<Vec<Parked>, ProjectionsError> {
    let mut found = Vec::new();
    for name in names {
        let copy = projections.live(*name).await?;
        let meant = match meant {
            Meant::Event(position) => match projections.letter(copy, *position).await? {
                Some(letter) if letter.discarded.is_none() => Meant::Stream(letter.stream),
                _ => continue,
            },
            other => other.clone(),
        };
        heads(projections, copy, &meant, &mut found).await?;
    }
    let is_apps = |stream: &str| matches!(StreamId::parse(stream), Ok(StreamId::App(_)));
    found.sort_by_key(|parked| (parked.projection, !is_apps(&parked.stream), parked.position));
    Ok(found)
}

/// The first parked event of each stream that is meant.
async fn heads(
    projections: &Projections,
    copy: Copy,
    meant: &Meant,
    found: &mut Vec<Parked>,
) -> Result<(), ProjectionsError> {
    let chats_of = match meant {
        Meant::Stream(stream) => match StreamId::parse(stream) {
            Ok(StreamId::App(app)) => Some(app),
            _ => None,
        },
        _ => None,
    };
    let is_meant = |stream: &str| match meant {
        Meant::Stream(name) if name == stream => true,
        Meant::Stream(_) => {
            matches!(StreamId::parse(stream), Ok(StreamId::Chat(app, _)) if Some(app) == chats_of)
        }
        _ => true,
    };
    let only = match meant {
        Meant::Stream(stream) if chats_of.is_none() => Some(stream.clone()),
        _ => None,
    };
    let mut after = Position::START;
    loop {
        let asked = LetterList { after, limit: PAGE, which: WhichLetters::Standing, stream: only.clone() };
        let page = projections.letters(copy, asked).await?;
        let Some(last) = page.letters.last() else { return Ok(()) };
        after = last.letter.position;
        for listed in page.letters {
            if listed.letter.discarded.is_none() && is_meant(&listed.letter.stream) {
                found.push(Parked {
                    projection: copy.projection,
                    stream: listed.letter.stream,
                    position: listed.letter.position,
                    parked: 1 + listed.waiting,
                });
            }
        }
    }
}

/// The streams whose first parked event is at a position, in the projections that have parked it.
///
/// # Errors
/// [`ProjectionsError::Nothing`] where no projection has, or others of its stream wait before it.
pub async fn to_discard(
    projections: &Projections,
    names: &[ProjectionName],
    position: Position,
) -> Result<Vec<Step>, ProjectionsError> {
    let parked = parked_streams(projections, names, &Meant::Event(position)).await?;
    // With an app's stream come those of its chats.
    let mut steps = Vec::new();
    let mut before = None;
    for name in names {
        let copy = projections.live(*name).await?;
        let Some(letter) = projections.letter(copy, position).await? else { continue };
        for parked in
            parked.iter().filter(|parked| parked.projection == *name && parked.stream == letter.stream)
        {
            if parked.position == position {
                steps.push(Step { parked: parked.clone(), discard: true });
            } else {
                before = Some(parked.position);
            }
        }
    }
    match (steps.is_empty(), before) {
        (false, _) => Ok(steps),
        (true, Some(before)) => Err(ProjectionsError::Nothing(format!(
            "the event at position {position} waits behind the one at {before}, which has to be dealt with first"
        ))),
        (true, None) => Err(ProjectionsError::Nothing(format!("no event at position {position} is parked"))),
    }
}

/// Discarded events that nobody has acknowledged: that at a position, or all.
pub async fn to_acknowledge(
    projections: &Projections,
    names: &[ProjectionName],
    position: Option<Position>,
) -> Result<Vec<Letter>, ProjectionsError> {
    let mut found = Vec::new();
    for name in names {
        let copy = projections.live(*name).await?;
        let mut after =
            position.map_or(Position::START, |position| Position::new(position.get().saturating_sub(1)));
        loop {
            let asked = LetterList { after, limit: PAGE, which: WhichLetters::Standing, stream: None };
            let page = projections.letters(copy, asked).await?;
            let Some(last) = page.letters.last() else { break };
            after = last.letter.position;
            let letters = page.letters.into_iter().map(|listed| Letter::of(*name, listed));
            found.extend(letters.filter(|letter| {
                letter.state == LetterState::Discarded
                    && position.is_none_or(|position| letter.position == position)
            }));
            if position.is_some_and(|position| after >= position) {
                break;
            }
        }
    }
    Ok(found)
}

/// Records the steps, and waits until the projections have come to them, for so long at most.
pub async fn take(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    steps: Vec<Step>,
    patience: Duration,
) -> Result<Vec<Done>, ProjectionsError> {
    let mut taken = Vec::with_capacity(steps.len());
    for step in steps {
        let Parked { projection, stream, position, .. } = step.parked.clone();
        let reason = reason.to_owned();
        let operation: Operation = if step.discard {
            DeadLetterDiscarded { projection, position, reason }.into()
        } else {
            DeadLettersRetried { projection, stream, reason }.into()
        };
        let act = record(&*projections.log, operator, &operation).await?.position;
        taken.push((step, act));
    }
    let deadline = Instant::now() + patience;
    let mut done = Vec::with_capacity(taken.len());
    for (Step { parked, discard }, act) in taken {
        let copy = projections.live(parked.projection).await?;
        let carried_out = come_to(projections, copy, act, deadline).await?;
        // Another operator's act may have come first, and this one have found nothing to give up.
        let discarded = discard
            && (!carried_out
                || projections
                    .letter(copy, parked.position)
                    .await?
                    .and_then(|letter| letter.discarded)
                    .is_some_and(|discarded| discarded.by == act));
        let outcome =
            if carried_out { Some(left(projections, copy, &parked, discarded).await?) } else { None };
        done.push(Done {
            projection: parked.projection,
            stream: parked.stream,
            discarded: discarded.then_some(parked.position),
            act,
            outcome,
        });
    }
    Ok(done)
}

/// Records that somebody has taken note of discarded events, and waits until the projections have come to it, for so long
/// at most; whether they have.
pub async fn acknowledge(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    letters: &[Letter],
    patience: Duration,
) -> Result<bool, ProjectionsError> {
    let mut acts = Vec::with_capacity(letters.len());
    for letter in letters {
        let operation: Operation = DiscardAcknowledged {
            projection: letter.projection,
            position: letter.position,
            reason: reason.to_owned(),
        }
        .into();
        acts.push((letter.projection, record(&*projections.log, operator, &operation).await?.position));
    }
    let deadline = Instant::now() + patience;
    let mut all = true;
    for (projection, act) in acts {
        let copy = projections.live(projection).await?;
        all &= come_to(projections, copy, act, deadline).await?;
    }
    Ok(all)
}

/// What is parked of a stream now.
async fn left(
    projections: &Projections,
    copy: Copy,
    before: &Parked,
    discarded: bool,
) -> Result<Left, ProjectionsError> {
    let mut now = Vec::new();
    heads(projections, copy, &Meant::Stream(before.stream.clone()), &mut now).await?;
    let now = now.into_iter().find(|now| now.stream == before.stream);
    let parked = now.as_ref().map_or(0, |now| now.parked);
    let stopped = match now {
        Some(now) => projections.letter(copy, now.position).await?,
        None => None,
    };
    Ok(Left {
        applied: before.parked.saturating_sub(parked + u64::from(discarded)),
        parked,
        stopped: stopped.map(|letter| Stop {
            position: letter.position,
            event_type: letter.event_type,
            reason: letter.reason,
        }),
    })
}

/// Waits until a projection has come to an act. Where no projector has it open, it is folded up to there by this process.
async fn come_to(
    projections: &Projections,
    copy: Copy,
    act: Position,
    deadline: Instant,
) -> Result<bool, ProjectionsError> {
    let place = projections.place(copy);
    let mut try_at = Instant::now();
    loop {
        if projections.position(copy).await? >= act {
            return Ok(true);
        }
        if Instant::now() >= try_at {
            match fold_up_to(projections, &place, act).await {
                Ok(()) => return Ok(true),
                Err(ProjectionError::InUse) => {}
                Err(source) => return Err(failed(copy, &place, source)),
            }
            try_at = Instant::now() + TAKE_OVER_EVERY;
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn fold_up_to(projections: &Projections, place: &Place, act: Position) -> Result<(), ProjectionError> {
    let mut projection: Box<dyn Projection> = place.open().await?;
    let log = projections.log.log_id().await?;
    loop {
        let from = projection.checkpoint().position;
        if from >= act {
            return Ok(());
        }
        let mut events = projections.log.read_all(from, PAGE).await?;
        events.retain(|event| event.position <= act);
        let up_to = events.last().map_or(act, |event| event.position);
        advance(&mut *projection, &*projections.log, log, events, up_to).await?;
    }
}
