//! Which generations queries are answered from, and when that changes.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::read_model::ReadModel;
use chat_projector::ProjectorStatus;
use chat_projector::generations::{GenerationHistory, GenerationSet, Generations};
use chat_projector::projection_store::ProjectionLocations;
use chat_query_api::{ProjectionProgress, PromotedProjections, QueryApi};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::LOOK_EVERY;
use super::keeper::Watched;
use crate::search_folder::SearchFolder;

/// How long the new generations may take to reach what the old ones have when it is looked. If they take longer, they
/// are being built or have stopped, and it is looked again where the old ones are.
const CLOSE_BY: Duration = Duration::from_millis(500);

/// How long a generation that is no nearer is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// What queries are answered from.
#[derive(Clone)]
pub(crate) struct InUse {
    pub(crate) pair: GenerationSet,
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) search: Arc<SearchFolder>,
}

/// Keeps queries on the generations that operators have promoted.
pub(crate) struct Readers {
    places: ProjectionLocations,
    generations: watch::Receiver<Generations>,
    watched: Watched,
    in_use: watch::Sender<InUse>,
}

impl Readers {
    /// Opens what is live, or where that is not at hand yet, what was live before it.
    pub(crate) async fn open(
        places: ProjectionLocations,
        generations: watch::Receiver<Generations>,
        watched: Watched,
    ) -> Self {
        let known = generations.borrow().clone();
        // Each by itself: what is kept up of one projection says nothing of the other, and a generation before that nobody
        // keeps up any more may be days old.
        let read_model =
            at_hand(&places, ProjectionName::ReadModel, known.of(ProjectionName::ReadModel)).await;
        let search_index =
            at_hand(&places, ProjectionName::SearchIndex, known.of(ProjectionName::SearchIndex)).await;
        let pair = GenerationSet { read_model, search_index };
        let in_use = watch::Sender::new(open(&places, pair, None));
        Self { places, generations, watched, in_use }
    }

    /// What queries are answered from, now and later.
    pub(crate) fn in_use(&self) -> watch::Receiver<InUse> {
        self.in_use.subscribe()
    }

    /// How far the projections in use are.
    pub(crate) fn progress(&self) -> ProjectionProgress {
        self.progress_of(self.in_use.borrow().pair)
    }

    /// Switches queries over, again and again, for as long as the process answers any.
    pub(crate) async fn keep(mut self, api: QueryApi) {
        loop {
            let wanted = self.generations.borrow_and_update().live();
            let now = self.in_use.borrow().clone();
            if wanted == now.pair {
                if self.generations.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let next = open(&self.places, wanted, Some(&now));
            let Some(reached) = self.caught_up(&api, &now, &next).await else {
                sleep(PAUSE).await;
                continue;
            };
            let progress = self.progress_of(wanted);
            let (read_model, search) = (Arc::clone(&next.read_model), Arc::clone(&next.search));
            api.switch_over(PromotedProjections { read_model, search, progress, positions: reached });
            self.in_use.send_replace(next);
            tracing::info!(
                read_model = wanted.read_model.0,
                search_index = wanted.search_index.0,
                "queries are answered from these generations now"
            );
        }
    }

    /// Waits until the next generations have reached what the ones in use have; `None` where they are not close by.
    async fn caught_up(&self, api: &QueryApi, now: &InUse, next: &InUse) -> Option<(Position, Position)> {
        for projection in ProjectionName::ALL {
            let copy = ProjectionGeneration { projection, generation: next.pair.of(projection) };
            if self.watched.keeps(projection) && self.watched.status(copy).is_none() {
                return None;
            }
        }
        let (shown_rows, shown_documents) = api.answered_positions();
        // What can't be read any more keeps nobody from going on.
        let rows = now.read_model.position().await.unwrap_or_default().max(shown_rows);
        let documents = documents(&now.search).await.unwrap_or_default().max(shown_documents);
        let deadline = Instant::now() + CLOSE_BY;
        loop {
            let reached = (next.read_model.position().await.ok()?, self::documents(&next.search).await?);
            if reached.0 >= rows && reached.1 >= documents {
                return Some(reached);
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Where projectors of this process keep these generations, they tell.
    fn progress_of(&self, pair: GenerationSet) -> ProjectionProgress {
        let told = |projection| {
            let status =
                self.watched.status(ProjectionGeneration { projection, generation: pair.of(projection) })?;
            Some(positions(status))
        };
        ProjectionProgress {
            read_model: told(ProjectionName::ReadModel),
            search: told(ProjectionName::SearchIndex),
        }
    }
}

/// The readers of a pair. One that is in use already is taken as it is.
fn open(places: &ProjectionLocations, pair: GenerationSet, now: Option<&InUse>) -> InUse {
    let same_rows = now.filter(|now| now.pair.read_model == pair.read_model);
    let same_index = now.filter(|now| now.pair.search_index == pair.search_index);
    InUse {
        pair,
        read_model: same_rows
            .map_or_else(|| places.read_model(pair.read_model).reader(), |now| Arc::clone(&now.read_model)),
        search: same_index.map_or_else(
            || Arc::new(SearchFolder::new(places.search_index(pair.search_index))),
            |now| Arc::clone(&now.search),
        ),
    }
}

/// The generation to start with: the live one, unless it is not there yet, or behind the one before it, as where this
/// machine was off when it was promoted.
pub(super) async fn at_hand(
    places: &ProjectionLocations,
    projection: ProjectionName,
    line: &GenerationHistory,
) -> Generation {
    let Some(previous) = line.previous() else { return line.live };
    let position =
        async |generation| places.of(ProjectionGeneration { projection, generation }).position().await.ok();
    match (position(line.live).await, position(previous).await) {
        (now, Some(before)) if now < Some(before) => previous,
        _ => line.live,
    }
}

async fn documents(folder: &Arc<SearchFolder>) -> Option<Position> {
    let folder = Arc::clone(folder);
    let look = tokio::task::spawn_blocking(move || folder.index().map(|index| index.position()));
    look.await.ok()?.ok()
}

/// The positions alone out of a projector's status.
fn positions(mut status: watch::Receiver<ProjectorStatus>) -> watch::Receiver<Position> {
    let (positions, receiver) = watch::channel(status.borrow().position);
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let position = status.borrow_and_update().position;
            positions.send_if_modified(|known| std::mem::replace(known, position) != position);
        }
    });
    receiver
}
