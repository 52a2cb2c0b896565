//! Which generation of each projection readers see, and which others there are: a fold of what operators did.
//!
//! The stream of operators' acts ([`operation::STREAM`]) is what says so, and so every process learns of a switch in the
//! same order, read model and index together in one event.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::operator_action::{self, Generation, OperatorAction, ProjectionGeneration, ProjectionName};
use chat_domain::{Position, Revision};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead,
};
use tokio::sync::watch;
use tokio::time::sleep;

/// How often the stream is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Acts that are read at once.
const PAGE_EVENTS: usize = 256;

/// Which generations there are, as of some act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    read_model: GenerationHistory,
    search_index: GenerationHistory,
    /// The revision that the next act has.
    next_revision: Option<Revision>,
    /// Where the last act is that changed something here.
    pub changed_at: Position,
}

/// The generations of one projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationHistory {
    /// Which one readers see.
    pub live: Generation,
    /// The ones that they saw before it, the last one last. A rollback goes back to that.
    pub before: Vec<Generation>,
    /// The one that is being built.
    pub building: Option<Generation>,
    /// Those that are neither, and not removed: rolled back from, or given up.
    pub left_over: BTreeSet<Generation>,
    /// The highest number that was ever given out. None is given out twice.
    highest: Generation,
}

/// What a generation is to readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// They see it.
    Live,
    /// They saw it before the one that is live; a rollback goes back to it.
    Previous,
    /// It is being built.
    Building,
    /// They don't see it, and nothing goes back to it.
    LeftOver,
}

impl GenerationState {
    /// In snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Previous => "previous",
            Self::Building => "building",
            Self::LeftOver => "left_over",
        }
    }
}

impl Default for GenerationHistory {
    fn default() -> Self {
        Self {
            live: Generation::FIRST,
            before: Vec::new(),
            building: None,
            left_over: BTreeSet::new(),
            highest: Generation::FIRST,
        }
    }
}

impl GenerationHistory {
    /// The one to go back to.
    pub fn previous(&self) -> Option<Generation> {
        self.before.last().copied()
    }

    /// The number that the next rebuild gets.
    pub fn next_generation(&self) -> Generation {
        self.highest.next()
    }

    /// All that were not removed, in order.
    pub fn all(&self) -> Vec<(Generation, GenerationState)> {
        let mut all = vec![(self.live, GenerationState::Live)];
        let previous = self.previous();
        all.extend(self.before.iter().map(|generation| {
            let standing = if Some(*generation) == previous {
                GenerationState::Previous
            } else {
                GenerationState::LeftOver
            };
            (*generation, standing)
        }));
        all.extend(self.building.map(|generation| (generation, GenerationState::Building)));
        all.extend(self.left_over.iter().map(|generation| (*generation, GenerationState::LeftOver)));
        all.sort_unstable_by_key(|(generation, _)| *generation);
        all
    }

    fn start_build(&mut self, generation: Generation) {
        if let Some(given_up) = self.building.replace(generation).filter(|other| *other != generation) {
            self.left_over.insert(given_up);
        }
        self.left_over.remove(&generation);
        self.highest = self.highest.max(generation);
    }

    fn promote(&mut self, generation: Generation) {
        if generation == self.live {
            return;
        }
        self.remove(generation);
        self.before.push(self.live);
        self.live = generation;
        self.highest = self.highest.max(generation);
    }

    fn roll_back(&mut self, generation: Generation) {
        if generation == self.live {
            return;
        }
        self.remove(generation);
        self.left_over.insert(self.live);
        self.live = generation;
    }

    fn remove_unless_live(&mut self, generation: Generation) {
        if generation != self.live {
            self.remove(generation);
        }
    }

    fn remove(&mut self, generation: Generation) {
        self.before.retain(|other| *other != generation);
        self.left_over.remove(&generation);
        self.building = self.building.filter(|other| *other != generation);
    }
}

impl Generations {
    /// The generations of a projection.
    pub fn of(&self, projection: ProjectionName) -> &GenerationHistory {
        match projection {
            ProjectionName::ReadModel => &self.read_model,
            ProjectionName::SearchIndex => &self.search_index,
        }
    }

    /// Which ones readers see.
    pub fn live(&self) -> GenerationSet {
        GenerationSet { read_model: self.read_model.live, search_index: self.search_index.live }
    }

    /// Takes in what an operator did at a position. Other acts change nothing here.
    pub fn apply(&mut self, operation: &OperatorAction, at: Position) {
        let (copies, change): (&[ProjectionGeneration], fn(&mut GenerationHistory, Generation)) =
            match operation {
                OperatorAction::RebuildStarted(act) => (&act.copies, GenerationHistory::start_build),
                OperatorAction::ProjectionsPromoted(act) => (&act.copies, GenerationHistory::promote),
                OperatorAction::ProjectionsRolledBack(act) => (&act.copies, GenerationHistory::roll_back),
                OperatorAction::ProjectionsDropped(act) => {
                    (&act.copies, GenerationHistory::remove_unless_live)
                }
                _ => return,
            };
        for copy in copies {
            let line = match copy.projection {
                ProjectionName::ReadModel => &mut self.read_model,
                ProjectionName::SearchIndex => &mut self.search_index,
            };
            change(line, copy.generation);
        }
        self.changed_at = at;
    }

    fn apply_recorded(&mut self, event: &RecordedEvent) {
        match OperatorAction::decode(&event.event_type, event.schema_version, &event.data) {
            Ok(operation) => self.apply(&operation, event.position),
            // A newer program's act, say. What it means for readers can't be told here.
            Err(error) => tracing::warn!(
                position = event.position.get(),
                event_type = event.event_type,
                error = &error as &dyn std::error::Error,
                "an operator's act can't be read, and is passed over"
            ),
        }
        self.next_revision = Some(event.revision.next());
    }

    /// Reads on in the operators' stream, to its end.
    pub async fn catch_up(&mut self, log: &dyn EventStore) -> Result<(), EventStoreError> {
        loop {
            let from = ReadStart::Forwards(self.next_revision.unwrap_or(Revision::FIRST));
            let stream: Arc<str> = operator_action::STREAM.into();
            let read = StreamRead { stream, start: from, filter: EventTypeFilter::All, limit: PAGE_EVENTS };
            let events = log.read_stream(read).await?;
            if events.is_empty() {
                return Ok(());
            }
            for event in &events {
                self.apply_recorded(event);
            }
        }
    }

    /// Reads them from the log.
    pub async fn load(log: &dyn EventStore) -> Result<Self, EventStoreError> {
        let mut generations = Self::default();
        generations.catch_up(log).await?;
        Ok(generations)
    }

    /// Goes on reading them as operators act. A log that is away changes nothing: what is known holds until then. Ends
    /// when nobody watches any more.
    pub fn follow(self, log: Arc<dyn EventStore>) -> watch::Receiver<Self> {
        let (known, watched) = watch::channel(self);
        tokio::spawn(async move {
            let mut generations = known.borrow().clone();
            while !known.is_closed() {
                sleep(POLL_INTERVAL).await;
                // Whoever reads the log for its own sake says what is wrong with it.
                if generations.catch_up(&*log).await.is_ok() {
                    known.send_if_modified(|known| {
                        let changed = known.changed_at != generations.changed_at;
                        known.clone_from(&generations);
                        changed
                    });
                }
            }
        });
        watched
    }
}

/// A generation of each projection: what a reader sees together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GenerationSet {
    /// Of the read model.
    pub read_model: Generation,
    /// Of the search index.
    pub search_index: Generation,
}

impl GenerationSet {
    /// The generation of one of the two.
    pub fn of(self, projection: ProjectionName) -> Generation {
        match projection {
            ProjectionName::ReadModel => self.read_model,
            ProjectionName::SearchIndex => self.search_index,
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::operator_action::{
        ProjectionsDropped, ProjectionsPromoted, ProjectionsRolledBack, RebuildStarted,
    };

    use super::*;

    const ROWS: ProjectionName = ProjectionName::ReadModel;
    const INDEX: ProjectionName = ProjectionName::SearchIndex;

    fn copies(of: &[(ProjectionName, u32)]) -> Vec<ProjectionGeneration> {
        let copy = |(projection, number): &(_, _)| ProjectionGeneration {
            projection: *projection,
            generation: number_of(*number),
        };
        of.iter().map(copy).collect()
    }

    fn number_of(number: u32) -> Generation {
        Generation(number)
    }

    fn started(of: &[(ProjectionName, u32)]) -> OperatorAction {
        RebuildStarted { copies: copies(of), reason: String::new() }.into()
    }

    fn promoted(of: &[(ProjectionName, u32)]) -> OperatorAction {
        ProjectionsPromoted { copies: copies(of), reason: String::new() }.into()
    }

    fn rolled_back(of: &[(ProjectionName, u32)]) -> OperatorAction {
        ProjectionsRolledBack { copies: copies(of), reason: String::new() }.into()
    }

    fn dropped(of: &[(ProjectionName, u32)]) -> OperatorAction {
        ProjectionsDropped { copies: copies(of), reason: String::new() }.into()
    }

    fn generations_after(acts: &[OperatorAction]) -> Generations {
        let mut generations = Generations::default();
        for (act, position) in acts.iter().zip(1..) {
            generations.apply(act, Position::new(position));
        }
        generations
    }

    fn generation_set(read_model: u32, search_index: u32) -> GenerationSet {
        GenerationSet { read_model: Generation(read_model), search_index: Generation(search_index) }
    }

    #[test]
    fn before_any_rebuild_the_first_generation_is_live() {
        let generations = generations_after(&[]);
        assert_eq!(generations.live(), generation_set(1, 1));
        assert_eq!(generations.of(ROWS).all(), [(Generation(1), GenerationState::Live)]);
        assert_eq!(generations.of(ROWS).next_generation(), Generation(2));
    }

    #[test]
    fn a_promotion_moves_all_that_it_names_at_once_and_keeps_what_was_before() {
        let generations =
            generations_after(&[started(&[(ROWS, 2), (INDEX, 2)]), promoted(&[(ROWS, 2), (INDEX, 2)])]);
        assert_eq!(generations.live(), generation_set(2, 2));
        for name in ProjectionName::ALL {
            assert_eq!(generations.of(name).previous(), Some(Generation(1)));
            assert_eq!(generations.of(name).building, None);
        }
    }

    #[test]
    fn a_projection_that_is_rebuilt_alone_moves_alone() {
        let generations = generations_after(&[started(&[(INDEX, 2)]), promoted(&[(INDEX, 2)])]);
        assert_eq!(generations.live(), generation_set(1, 2));
    }

    #[test]
    fn a_rollback_goes_back_and_leaves_the_newer_one_over() {
        let there_and_back = [started(&[(ROWS, 2)]), promoted(&[(ROWS, 2)]), rolled_back(&[(ROWS, 1)])];
        let line = generations_after(&there_and_back).of(ROWS).clone();
        assert_eq!(
            line.all(),
            [(Generation(1), GenerationState::Live), (Generation(2), GenerationState::LeftOver)]
        );
        assert_eq!(line.previous(), None);
        assert_eq!(line.next_generation(), Generation(3), "no number is given out twice");
    }

    #[test]
    fn what_is_left_over_can_be_promoted_again() {
        let acts = [
            started(&[(ROWS, 2)]),
            promoted(&[(ROWS, 2)]),
            rolled_back(&[(ROWS, 1)]),
            promoted(&[(ROWS, 2)]),
        ];
        let line = generations_after(&acts).of(ROWS).clone();
        assert_eq!(
            line.all(),
            [(Generation(1), GenerationState::Previous), (Generation(2), GenerationState::Live)]
        );
    }

    #[test]
    fn a_second_rebuild_leaves_the_first_one_over() {
        let line = generations_after(&[started(&[(ROWS, 2)]), started(&[(ROWS, 3)])]).of(ROWS).clone();
        assert_eq!(line.building, Some(Generation(3)));
        assert_eq!(line.left_over, BTreeSet::from([Generation(2)]));
        let resumed = generations_after(&[started(&[(ROWS, 2)]), started(&[(ROWS, 2)])]).of(ROWS).clone();
        assert_eq!((resumed.building, resumed.left_over.len()), (Some(Generation(2)), 0));
    }

    #[test]
    fn what_was_dropped_is_gone_and_what_is_live_is_not() {
        let acts =
            [started(&[(ROWS, 2)]), promoted(&[(ROWS, 2)]), dropped(&[(ROWS, 1)]), dropped(&[(ROWS, 2)])];
        let line = generations_after(&acts).of(ROWS).clone();
        assert_eq!(line.all(), [(Generation(2), GenerationState::Live)]);
        assert_eq!(line.next_generation(), Generation(3));
    }
}
