//! The registry of generations: a fold of operator actions that says which generations exist and which are live.
//!
//! The actions are events of one stream ([`operator_action::STREAM`]), so every process sees switch-overs in the same
//! order, and one event can switch the read model and the search index together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::operator_action::{self, OperatorAction};
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_domain::{Position, Revision};
use chat_ports::event_store::{EventStore, EventStoreError, ReadStart, RecordedEvent, StreamRead};
use tokio::sync::watch;
use tokio::time::sleep;

/// The interval at which the operators' stream is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The maximal number of events in one read.
const PAGE_EVENTS: usize = 256;

/// The generations of all projections, as of some operator action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    read_model: GenerationHistory,
    search_index: GenerationHistory,
    /// The projections that the last promotion switched, without those that were rolled back since.
    last_promoted: Vec<ProjectionName>,
    /// The projections that the last rollback switched; empty after a promotion.
    last_rolled_back: Vec<ProjectionName>,
    /// The revision of the next event in the operators' stream.
    next_revision: Option<Revision>,
    /// The position of the last action on generations.
    pub changed_at: Position,
}

/// The generations of one projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationHistory {
    /// The generation that queries are answered from.
    pub live: Generation,
    /// The generations that were live before the live one, the latest last. A rollback returns to the latest.
    /// Generations that were rolled back from, and removed ones, are not in this list.
    pub previously_live: Vec<Generation>,
    /// The generation that is being built.
    pub building: Option<Generation>,
    /// Generations that were live until a rollback returned to an earlier one, and generations whose build was
    /// abandoned, except removed ones. All of them are in the state [`GenerationState::LeftOver`], as are
    /// all but the latest of `previously_live`.
    pub left_over: BTreeSet<Generation>,
    /// The generation that was live until the last promotion; `None` if it was removed, or rolled back to.
    promoted_from: Option<Generation>,
    /// The generation that was live until the last rollback; `None` if it was removed, or one was promoted since.
    rolled_back_from: Option<Generation>,
    /// The highest number of a generation so far. Numbers are not reused.
    highest: Generation,
}

/// The state of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// Queries are answered from it.
    Live,
    /// It was live before the live one; a rollback returns to it.
    Previous,
    /// It is being built.
    Building,
    /// It is not used any more.
    LeftOver,
}

impl GenerationState {
    /// Returns the state's name in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Previous => "previous",
            Self::Building => "building",
            Self::LeftOver => "left_over",
        }
    }
}

/// A generation of each projection, which queries use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GenerationSet {
    /// The read model's generation.
    pub read_model: Generation,
    /// The search index's generation.
    pub search_index: Generation,
}

impl GenerationSet {
    /// Returns the generation of a projection.
    pub fn for_projection(self, projection: ProjectionName) -> Generation {
        match projection {
            ProjectionName::ReadModel => self.read_model,
            ProjectionName::SearchIndex => self.search_index,
        }
    }
}

impl Default for GenerationHistory {
    fn default() -> Self {
        Self {
            live: Generation::FIRST,
            previously_live: Vec::new(),
            building: None,
            left_over: BTreeSet::new(),
            promoted_from: None,
            rolled_back_from: None,
            highest: Generation::FIRST,
        }
    }
}

impl GenerationHistory {
    /// Returns the generation that a rollback returns to.
    pub fn previous(&self) -> Option<Generation> {
        self.previously_live.last().copied()
    }

    /// Returns the generation that a promotion makes live: the one that is being built, or else the one that was rolled
    /// back last, or else the newest of the left-over ones.
    pub fn next_promoted(&self) -> Option<Generation> {
        self.building.or(self.rolled_back_from).or_else(|| self.left_over.last().copied())
    }

    /// Whether a rollback undoes the last promotion: the generation that was live before it is the previous one.
    pub fn can_undo_promotion(&self) -> bool {
        self.promoted_from.is_some()
    }

    /// Whether the generation that was rolled back last can be promoted again.
    pub fn can_undo_rollback(&self) -> bool {
        self.rolled_back_from.is_some()
    }

    /// Returns the generation that the next rebuild will build.
    pub fn next_generation(&self) -> Generation {
        self.highest.next()
    }

    /// Returns all generations that were not removed, by number.
    pub fn all(&self) -> Vec<(Generation, GenerationState)> {
        let mut all = vec![(self.live, GenerationState::Live)];
        let previous = self.previous();
        all.extend(self.previously_live.iter().map(|generation| {
            let state = if Some(*generation) == previous {
                GenerationState::Previous
            } else {
                GenerationState::LeftOver
            };
            (*generation, state)
        }));
        all.extend(self.building.map(|generation| (generation, GenerationState::Building)));
        all.extend(self.left_over.iter().map(|generation| (*generation, GenerationState::LeftOver)));
        all.sort_unstable_by_key(|(generation, _)| *generation);
        all
    }

    fn start_build(&mut self, generation: Generation) {
        if let Some(abandoned) = self.building.replace(generation).filter(|other| *other != generation) {
            self.left_over.insert(abandoned);
        }
        self.left_over.remove(&generation);
        self.highest = self.highest.max(generation);
    }

    fn promote(&mut self, generation: Generation) {
        if generation == self.live {
            return;
        }
        self.clear_state(generation);
        self.previously_live.push(self.live);
        self.promoted_from = Some(self.live);
        self.rolled_back_from = None;
        self.live = generation;
        self.highest = self.highest.max(generation);
    }

    fn roll_back(&mut self, generation: Generation) {
        if generation == self.live {
            return;
        }
        // `generation` is not the latest of `previously_live` if a promotion was recorded after this rollback was
        // planned and before it was recorded. Then the generations after `generation` are left over too.
        if let Some(index) = self.previously_live.iter().position(|other| *other == generation) {
            self.left_over.extend(self.previously_live.drain(index..));
        }
        self.left_over.insert(self.live);
        self.clear_state(generation);
        self.promoted_from = None;
        self.rolled_back_from = Some(self.live);
        self.live = generation;
    }

    fn remove_unless_live(&mut self, generation: Generation) {
        if generation != self.live {
            self.clear_state(generation);
        }
    }

    /// Takes a generation that is not live out of all lists, and from what can be undone.
    fn clear_state(&mut self, generation: Generation) {
        self.previously_live.retain(|other| *other != generation);
        self.left_over.remove(&generation);
        for state in [&mut self.building, &mut self.promoted_from, &mut self.rolled_back_from] {
            state.take_if(|other| *other == generation);
        }
    }
}

impl Generations {
    /// Creates generations without a history, for a log that is missing, was replaced, or has lost events.
    pub fn with_live(live: GenerationSet) -> Self {
        let history = |live| GenerationHistory { live, highest: live, ..GenerationHistory::default() };
        let (read_model, search_index) = (history(live.read_model), history(live.search_index));
        Self { read_model, search_index, ..Self::default() }
    }

    /// Returns the generations of a projection.
    pub fn for_projection(&self, projection: ProjectionName) -> &GenerationHistory {
        match projection {
            ProjectionName::ReadModel => &self.read_model,
            ProjectionName::SearchIndex => &self.search_index,
        }
    }

    /// Returns the live generations.
    pub fn live(&self) -> GenerationSet {
        GenerationSet { read_model: self.read_model.live, search_index: self.search_index.live }
    }

    /// Returns the projections that the last promotion switched, without those that were rolled back since.
    pub fn last_promoted(&self) -> &[ProjectionName] {
        &self.last_promoted
    }

    /// Returns the projections that the last rollback switched; empty after a promotion.
    pub fn last_rolled_back(&self) -> &[ProjectionName] {
        &self.last_rolled_back
    }

    /// Applies the operator action at a position. Actions that do not concern generations change nothing.
    pub fn apply(&mut self, action: &OperatorAction, at: Position) {
        let (generations, transition): (&[ProjectionGeneration], fn(&mut GenerationHistory, Generation)) =
            match action {
                OperatorAction::RebuildStarted(started) => {
                    (&started.generations, GenerationHistory::start_build)
                }
                OperatorAction::ProjectionsPromoted(promoted) => {
                    (&promoted.generations, GenerationHistory::promote)
                }
                OperatorAction::ProjectionsRolledBack(rolled_back) => {
                    (&rolled_back.generations, GenerationHistory::roll_back)
                }
                OperatorAction::ProjectionsDropped(dropped) => {
                    (&dropped.generations, GenerationHistory::remove_unless_live)
                }
                _ => return,
            };
        let live_before = self.live();
        for id in generations {
            let history = match id.projection {
                ProjectionName::ReadModel => &mut self.read_model,
                ProjectionName::SearchIndex => &mut self.search_index,
            };
            transition(history, id.generation);
        }
        self.record_switch(action, live_before);
        self.changed_at = at;
    }

    fn record_switch(&mut self, action: &OperatorAction, live_before: GenerationSet) {
        let live = self.live();
        let is_switched =
            |name: &ProjectionName| live.for_projection(*name) != live_before.for_projection(*name);
        let switched: Vec<_> = ProjectionName::ALL.into_iter().filter(is_switched).collect();
        match action {
            _ if switched.is_empty() => {}
            OperatorAction::ProjectionsRolledBack(_) => {
                self.last_promoted.retain(|name| !switched.contains(name));
                self.last_rolled_back = switched;
            }
            _ => {
                self.last_promoted = switched;
                self.last_rolled_back.clear();
            }
        }
    }

    fn apply_recorded(&mut self, event: &RecordedEvent) {
        match OperatorAction::decode(&event.event_type, event.schema_version, &event.data) {
            Ok(action) => self.apply(&action, event.position),
            // Probably written by a newer program.
            Err(error) => tracing::warn!(
                position = event.position.get(),
                event_type = event.event_type,
                error = &error as &dyn std::error::Error,
                "operator action can't be decoded; ignoring it"
            ),
        }
        self.next_revision = Some(event.revision.next());
    }

    /// Reads the rest of the operators' stream, and applies it.
    pub async fn catch_up(&mut self, event_store: &dyn EventStore) -> Result<(), EventStoreError> {
        let stream: Arc<str> = operator_action::STREAM.into();
        loop {
            let start = ReadStart::Forwards(self.next_revision.unwrap_or(Revision::FIRST));
            let read = StreamRead::all(Arc::clone(&stream), start, PAGE_EVENTS);
            let events = event_store.read_stream(read).await?;
            if events.is_empty() {
                return Ok(());
            }
            for event in &events {
                self.apply_recorded(event);
            }
        }
    }

    /// Reads the operators' stream from its start.
    pub async fn load(event_store: &dyn EventStore) -> Result<Self, EventStoreError> {
        let mut generations = Self::default();
        generations.catch_up(event_store).await?;
        Ok(generations)
    }

    /// Polls the operators' stream on a task of its own, and publishes changes until all receivers are dropped. While
    /// the event store is unavailable, nothing changes.
    pub fn follow(self, event_store: Arc<dyn EventStore>) -> watch::Receiver<Self> {
        let (sender, receiver) = watch::channel(self);
        tokio::spawn(async move {
            let mut generations = sender.borrow().clone();
            while !sender.is_closed() {
                sleep(POLL_INTERVAL).await;
                // Errors are not logged: projectors log them while they follow the same event store.
                if generations.catch_up(&*event_store).await.is_ok() {
                    sender.send_if_modified(|published| {
                        let is_changed = published.changed_at != generations.changed_at;
                        published.clone_from(&generations);
                        is_changed
                    });
                }
            }
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::operator_action::{
        ProjectionsDropped, ProjectionsPromoted, ProjectionsRolledBack, RebuildStarted,
    };

    use super::*;

    const READ_MODEL: ProjectionName = ProjectionName::ReadModel;
    const SEARCH_INDEX: ProjectionName = ProjectionName::SearchIndex;

    fn ids(generations: &[(ProjectionName, u32)]) -> Vec<ProjectionGeneration> {
        generations
            .iter()
            .map(|(projection, number)| ProjectionGeneration {
                projection: *projection,
                generation: Generation(*number),
            })
            .collect()
    }

    fn started(generations: &[(ProjectionName, u32)]) -> OperatorAction {
        RebuildStarted { generations: ids(generations), reason: String::new() }.into()
    }

    fn promoted(generations: &[(ProjectionName, u32)]) -> OperatorAction {
        ProjectionsPromoted { generations: ids(generations), reason: String::new() }.into()
    }

    fn rolled_back(generations: &[(ProjectionName, u32)]) -> OperatorAction {
        ProjectionsRolledBack { generations: ids(generations), reason: String::new() }.into()
    }

    fn dropped(generations: &[(ProjectionName, u32)]) -> OperatorAction {
        ProjectionsDropped { generations: ids(generations), reason: String::new() }.into()
    }

    fn generations_after(actions: &[OperatorAction]) -> Generations {
        let mut generations = Generations::default();
        for (action, position) in actions.iter().zip(1..) {
            generations.apply(action, Position::new(position));
        }
        generations
    }

    fn generation_set(read_model: u32, search_index: u32) -> GenerationSet {
        GenerationSet { read_model: Generation(read_model), search_index: Generation(search_index) }
    }

    #[test]
    fn the_first_generation_is_live_before_any_rebuild() {
        let generations = generations_after(&[]);
        assert_eq!(generations.live(), generation_set(1, 1));
        assert_eq!(generations.for_projection(READ_MODEL).all(), [(Generation(1), GenerationState::Live)]);
        assert_eq!(generations.for_projection(READ_MODEL).next_generation(), Generation(2));
    }

    #[test]
    fn a_promotion_switches_all_its_projections_at_once_and_keeps_the_previous_generations() {
        let generations = generations_after(&[
            started(&[(READ_MODEL, 2), (SEARCH_INDEX, 2)]),
            promoted(&[(READ_MODEL, 2), (SEARCH_INDEX, 2)]),
        ]);
        assert_eq!(generations.live(), generation_set(2, 2));
        for name in ProjectionName::ALL {
            assert_eq!(generations.for_projection(name).previous(), Some(Generation(1)));
            assert_eq!(generations.for_projection(name).building, None);
        }
    }

    #[test]
    fn a_projection_that_is_rebuilt_alone_is_promoted_alone() {
        let generations = generations_after(&[started(&[(SEARCH_INDEX, 2)]), promoted(&[(SEARCH_INDEX, 2)])]);
        assert_eq!(generations.live(), generation_set(1, 2));
    }

    #[test]
    fn after_a_rollback_the_previous_generation_is_live_and_the_newer_one_left_over() {
        let there_and_back =
            [started(&[(READ_MODEL, 2)]), promoted(&[(READ_MODEL, 2)]), rolled_back(&[(READ_MODEL, 1)])];
        let history = generations_after(&there_and_back).for_projection(READ_MODEL).clone();
        assert_eq!(
            history.all(),
            [(Generation(1), GenerationState::Live), (Generation(2), GenerationState::LeftOver)]
        );
        assert_eq!(history.previous(), None);
        assert_eq!(history.next_generation(), Generation(3), "numbers are not reused");
    }

    #[test]
    fn a_rollback_past_several_promotions_leaves_over_all_later_generations() {
        let actions = [
            started(&[(READ_MODEL, 2)]),
            promoted(&[(READ_MODEL, 2)]),
            started(&[(READ_MODEL, 3)]),
            promoted(&[(READ_MODEL, 3)]),
            rolled_back(&[(READ_MODEL, 1)]),
        ];
        let history = generations_after(&actions).for_projection(READ_MODEL).clone();
        assert_eq!((history.live, history.previous()), (Generation(1), None));
        assert_eq!(history.left_over, BTreeSet::from([Generation(2), Generation(3)]));
    }

    #[test]
    fn a_left_over_generation_can_be_promoted_again() {
        let actions = [
            started(&[(READ_MODEL, 2)]),
            promoted(&[(READ_MODEL, 2)]),
            rolled_back(&[(READ_MODEL, 1)]),
            promoted(&[(READ_MODEL, 2)]),
        ];
        let history = generations_after(&actions).for_projection(READ_MODEL).clone();
        assert_eq!(
            history.all(),
            [(Generation(1), GenerationState::Previous), (Generation(2), GenerationState::Live)]
        );
    }

    #[test]
    fn an_unfinished_build_is_left_over_when_another_rebuild_starts() {
        let history = generations_after(&[started(&[(READ_MODEL, 2)]), started(&[(READ_MODEL, 3)])])
            .for_projection(READ_MODEL)
            .clone();
        assert_eq!(history.building, Some(Generation(3)));
        assert_eq!(history.left_over, BTreeSet::from([Generation(2)]));
        let resumed = generations_after(&[started(&[(READ_MODEL, 2)]), started(&[(READ_MODEL, 2)])])
            .for_projection(READ_MODEL)
            .clone();
        assert_eq!((resumed.building, resumed.left_over.len()), (Some(Generation(2)), 0));
    }

    #[test]
    fn the_registry_knows_which_projections_the_last_switch_over_changed() {
        let mut actions = vec![
            started(&[(READ_MODEL, 2), (SEARCH_INDEX, 2)]),
            promoted(&[(READ_MODEL, 2), (SEARCH_INDEX, 2)]),
            started(&[(READ_MODEL, 3)]),
            promoted(&[(READ_MODEL, 3)]),
        ];
        assert_eq!(generations_after(&actions).last_promoted(), [READ_MODEL]);
        actions.push(rolled_back(&[(READ_MODEL, 2)]));
        let after_rollback = generations_after(&actions);
        assert_eq!(after_rollback.last_promoted(), []);
        assert_eq!(after_rollback.last_rolled_back(), [READ_MODEL]);
        actions.push(promoted(&[(SEARCH_INDEX, 1)]));
        let after_promotion = generations_after(&actions);
        assert_eq!(after_promotion.last_promoted(), [SEARCH_INDEX]);
        assert_eq!(after_promotion.last_rolled_back(), []);
    }

    #[test]
    fn a_promotion_undoes_the_last_of_several_rollbacks() {
        let mut actions = vec![
            started(&[(READ_MODEL, 2)]),
            promoted(&[(READ_MODEL, 2)]),
            started(&[(READ_MODEL, 3)]),
            promoted(&[(READ_MODEL, 3)]),
            rolled_back(&[(READ_MODEL, 2)]),
            rolled_back(&[(READ_MODEL, 1)]),
        ];
        let history = |actions: &[_]| generations_after(actions).for_projection(READ_MODEL).clone();
        assert_eq!(history(&actions).next_promoted(), Some(Generation(2)));
        assert!(history(&actions).can_undo_rollback());
        actions.push(dropped(&[(READ_MODEL, 2)]));
        assert!(!history(&actions).can_undo_rollback());
        assert_eq!(history(&actions).next_promoted(), Some(Generation(3)));
    }

    #[test]
    fn a_promotion_can_be_undone_until_the_generation_before_it_is_dropped() {
        let mut actions = vec![
            started(&[(READ_MODEL, 2)]),
            promoted(&[(READ_MODEL, 2)]),
            started(&[(READ_MODEL, 3)]),
            promoted(&[(READ_MODEL, 3)]),
        ];
        let history = |actions: &[_]| generations_after(actions).for_projection(READ_MODEL).clone();
        assert!(history(&actions).can_undo_promotion());
        actions.push(dropped(&[(READ_MODEL, 2)]));
        assert!(!history(&actions).can_undo_promotion());
        assert_eq!(history(&actions).previous(), Some(Generation(1)));
    }

    #[test]
    fn a_drop_removes_generations_that_are_not_live() {
        let actions = [
            started(&[(READ_MODEL, 2)]),
            promoted(&[(READ_MODEL, 2)]),
            dropped(&[(READ_MODEL, 1)]),
            dropped(&[(READ_MODEL, 2)]),
        ];
        let history = generations_after(&actions).for_projection(READ_MODEL).clone();
        assert_eq!(history.all(), [(Generation(2), GenerationState::Live)]);
        assert_eq!(history.next_generation(), Generation(3));
    }
}
