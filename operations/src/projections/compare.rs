//! Two generations at one position of the log: whether they hold the same, and where not.

use chat_domain::Position;
use chat_domain::operation::{Copy, Generation, ProjectionName};
use chat_projector::{Policy, State};
use serde::Serialize;
use tokio::sync::watch;

use super::explain::{Explained, Suspect, explain};
use super::fold::{Fold, Folds, Phase, Progress};
use super::handover::is_kept;
use super::{Projections, ProjectionsError, failed};

/// Differences that are looked into; of the others it is told how many there are.
pub const SHOWN: usize = 20;

/// How a generation compares with the live one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The projection.
    pub name: ProjectionName,
    /// The generation that readers see.
    pub live: Generation,
    /// The other one.
    pub other: Generation,
    /// Where both were compared.
    pub position: Position,
    /// Why the live one can't be read, where it can't: then nothing was compared.
    pub unreadable: Option<String>,
    /// The digest of the live one there.
    pub live_digest: Option<String>,
    /// The digest of the other one there.
    pub other_digest: Option<String>,
    /// Rows or documents that differ.
    pub differing: usize,
    /// The first of them, looked into.
    pub shown: Vec<Explained>,
}

impl Comparison {
    /// Whether somebody should have a look: rows differ, or nothing could be compared.
    pub fn is_finding(&self) -> bool {
        self.differing > 0 || self.unreadable.is_some()
    }
}

/// Compares the generations that are built, or were live before, with the live ones.
pub async fn diff(
    projections: &Projections,
    names: &[ProjectionName],
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<Vec<Comparison>, ProjectionsError> {
    let generations = projections.generations().await?;
    let mut copies = Vec::new();
    for name in names {
        let line = generations.of(*name);
        let other = line.building.or(line.previous()).or_else(|| line.left_over.last().copied());
        copies.extend(other.map(|generation| Copy { projection: *name, generation }));
    }
    if copies.is_empty() {
        return Err(ProjectionsError::Nothing("there is no other generation to compare with".to_owned()));
    }
    let folds = Folds::start(projections, &copies, None, Policy::Leave, progress, cancel).await;
    let compared = compare_all(projections, &folds).await;
    folds.end().await;
    compared
}

/// Compares each generation that is being folded with the live one, one after the other.
pub(super) async fn compare_all(
    projections: &Projections,
    folds: &Folds<'_>,
) -> Result<Vec<Comparison>, ProjectionsError> {
    folds
        .wait(Phase::Folding, async |fold, status| match status.state {
            State::StandingBy => Err(in_use(fold.copy)),
            state => Ok(state == State::Live),
        })
        .await?;
    let generations = projections.generations().await?;
    let mut compared = Vec::new();
    for fold in &folds.all {
        let live = Copy { generation: generations.of(fold.copy.projection).live, ..fold.copy };
        compared.push(compare(projections, folds, fold, live).await?);
        fold.log.release();
    }
    Ok(compared)
}

fn in_use(copy: Copy) -> ProjectionsError {
    ProjectionsError::Busy(format!(
        "another process works on generation {} of {}; after a switch it goes on for as long as --keep-previous says",
        copy.generation.0,
        copy.projection.as_str()
    ))
}

/// Brings both to one position, and compares them there.
///
/// The live one can't be stopped. So the other one is held, the live one is read in one snapshot when it is not behind
/// that, and the other one is let go up to exactly the snapshot's position.
async fn compare(
    projections: &Projections,
    folds: &Folds<'_>,
    fold: &Fold,
    live: Copy,
) -> Result<Comparison, ProjectionsError> {
    let place = projections.place(live);
    let held = fold.log.hold();
    reached(projections, folds, fold, held).await?;
    if let Err(error) = place.position().await {
        return Ok(Comparison {
            name: live.projection,
            live: live.generation,
            other: fold.copy.generation,
            position: held,
            unreadable: Some(error.to_string()),
            live_digest: None,
            other_digest: None,
            differing: 0,
            shown: Vec::new(),
        });
    }
    if projections.position(live).await? < held && !is_kept(projections, live).await {
        catch_up(projections, folds, live, held).await?;
    }
    while !projections.nothing_between(projections.position(live).await?, held).await? {
        folds.tell(Phase::Comparing);
        folds.pause().await?;
    }
    folds.tell(Phase::Comparing);
    let (position, ours) = place.contents().await.map_err(|error| failed(live, &place, error))?;
    let position = position.max(held);
    fold.log.limit(position);
    reached(projections, folds, fold, position).await?;
    let other = projections.place(fold.copy);
    let (_, theirs) = other.contents().await.map_err(|error| failed(fold.copy, &other, error))?;
    let differences = ours.differences(&theirs);
    let suspect = Suspect::of(projections, live)?;
    let shown = explain(projections, &suspect, &differences[..differences.len().min(SHOWN)]).await?;
    Ok(Comparison {
        name: live.projection,
        live: live.generation,
        other: fold.copy.generation,
        position,
        unreadable: None,
        live_digest: Some(ours.digest.to_string()),
        other_digest: Some(theirs.digest.to_string()),
        differing: differences.len(),
        shown,
    })
}

/// Waits until a fold has everything up to a position.
async fn reached(
    projections: &Projections,
    folds: &Folds<'_>,
    fold: &Fold,
    position: Position,
) -> Result<(), ProjectionsError> {
    folds
        .wait(Phase::Comparing, async |other, status| {
            if other.copy != fold.copy {
                return Ok(true);
            }
            Ok(status.position >= position || projections.nothing_between(status.position, position).await?)
        })
        .await
}

/// Where no projector runs, the live generation stands still: it is brought up to where the other one is.
async fn catch_up(
    projections: &Projections,
    folds: &Folds<'_>,
    live: Copy,
    up_to: Position,
) -> Result<(), ProjectionsError> {
    let fold = Fold::start(projections, live, Some(up_to), Policy::Leave).await;
    let caught_up = async {
        loop {
            let status = fold.status();
            fold.has_not_ended(&status)?;
            let stored = projections.position(live).await?;
            if projections.nothing_between(stored.max(status.position), up_to).await? {
                return Ok(());
            }
            folds.tell(Phase::Comparing);
            folds.pause().await?;
        }
    };
    let caught_up: Result<(), ProjectionsError> = caught_up.await;
    fold.end().await;
    caught_up
}
