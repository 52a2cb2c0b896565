//! Tests of the projectors of a process and of the switch-over of its queries after promotions.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_domain::operator_action::{self, OperatorAction, ProjectionsPromoted};
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::event_store::EventStore;
use chat_projector::ProjectorState;
use chat_projector::generations::{
    ActiveReaders, GenerationSet, Generations, PositionSet, ProjectionLocations, ProjectorSupervisor,
    QuerySide, QuerySwitchOver, SupervisorContext,
};
use chat_sqlite::{SqliteEventStore, SqliteReadModelStorage};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::deadline::within;
use crate::log_builder::*;

/// A query side without queries, with fixed answered positions.
#[derive(Clone, Debug)]
struct StubQuerySide {
    answered: PositionSet,
    /// The number of times that the switch-over has read the answered positions.
    attempts: watch::Sender<u32>,
    /// The generations and reached positions of the last switch-over.
    last_switch_over: watch::Sender<Option<(GenerationSet, PositionSet)>>,
}

impl StubQuerySide {
    fn answered_up_to(position: Position) -> Self {
        let answered = PositionSet { read_model: position, search_index: position };
        Self { answered, attempts: watch::Sender::new(0), last_switch_over: watch::Sender::new(None) }
    }

    /// Waits for a switch-over. Returns its generations and the positions that they had reached.
    async fn wait_for_switch_over(&self) -> (GenerationSet, PositionSet) {
        let mut last_switch_over = self.last_switch_over.subscribe();
        within("switching over", last_switch_over.wait_for(Option::is_some)).await.unwrap().unwrap()
    }
}

impl QuerySide for StubQuerySide {
    fn answered_positions(&self) -> PositionSet {
        self.attempts.send_modify(|attempts| *attempts += 1);
        self.answered
    }

    fn switch_over(&self, readers: &ActiveReaders, reached: PositionSet) {
        self.last_switch_over.send_replace(Some((readers.generations, reached)));
    }
}

/// A serving process: projectors of both projections, and the switch-over.
struct Process {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    supervisor: ProjectorSupervisor,
    shutdown: watch::Sender<bool>,
}

const FIRST: GenerationSet = GenerationSet { read_model: Generation::FIRST, search_index: Generation::FIRST };
const SECOND: GenerationSet = GenerationSet { read_model: Generation(2), search_index: Generation(2) };

impl Process {
    async fn start(query_side: &StubQuerySide) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        let locations = locations(&folder);
        let generations = Generations::load(&*log).await.unwrap().follow(Arc::clone(&log));
        let (shutdown, is_shutting_down) = watch::channel(false);
        let mut supervisor = ProjectorSupervisor::new(SupervisorContext {
            event_store: Arc::clone(&log),
            locations: locations.clone(),
            generations: generations.clone(),
            shutdown: is_shutting_down,
            linger: Duration::ZERO,
        });
        for projection in ProjectionName::ALL {
            supervisor.supervise(projection);
        }
        let statuses = supervisor.projector_statuses();
        let switch_over = QuerySwitchOver::open(locations, generations, statuses, Arc::clone(&log)).await;
        assert_eq!(switch_over.active().borrow().generations, FIRST);
        tokio::spawn(switch_over.run(query_side.clone()));
        Self { folder, log, supervisor, shutdown }
    }

    /// Waits until the projectors of the first generations have folded the log up to a position.
    async fn wait_for_first_generations(&self, head: Position) {
        for mut status in self.supervisor.statuses_of_generations_in_use() {
            within("the first generation", status.wait_for(|status| status.position >= head)).await.unwrap();
        }
    }

    /// Stops the process, and returns the folder with its data.
    async fn stop(self) -> TempDir {
        self.shutdown.send_replace(true);
        within("stopping", self.supervisor.wait_until_stopped()).await;
        self.folder
    }
}

fn locations(folder: &TempDir) -> ProjectionLocations {
    ProjectionLocations {
        read_model: Arc::new(SqliteReadModelStorage::new(folder.path().join("read-model.db"))),
        search_index: folder.path().join("search-index"),
    }
}

async fn promote_second_generations(log: &Arc<dyn EventStore>) -> Position {
    let generations = ProjectionName::ALL
        .map(|projection| ProjectionGeneration { projection, generation: Generation(2) })
        .to_vec();
    let action: OperatorAction = ProjectionsPromoted { generations, reason: String::new() }.into();
    append_raw(log, operator_action::STREAM, 0, action.event_type(), action.payload()).await
}

#[tokio::test]
async fn queries_move_to_promoted_generations_and_the_projectors_of_the_old_ones_stop() {
    let query_side = StubQuerySide::answered_up_to(Position::START);
    let process = Process::start(&query_side).await;
    let head = append_chat(&process.log, 1, 50).await;
    process.wait_for_first_generations(head).await;
    promote_second_generations(&process.log).await;

    let (generations, reached) = query_side.wait_for_switch_over().await;
    assert_eq!(generations, SECOND);
    assert!(reached.read_model >= head && reached.search_index >= head, "{reached:?}");
    let statuses = process.supervisor.projector_statuses();
    for projection in ProjectionName::ALL {
        let id = ProjectionGeneration { projection, generation: Generation::FIRST };
        // A projector that has already stopped may have no status any more.
        if let Some(mut status) = statuses.status(id) {
            let stopped = status.wait_for(|status| status.state == ProjectorState::Stopped);
            within("stopping the superseded projector", stopped).await.unwrap();
        }
    }
    process.stop().await;
}

#[tokio::test]
async fn queries_stay_while_a_promoted_generation_is_behind_an_earlier_answer() {
    // Simulates an answer of the old generation at a position that the new generation has not reached.
    let answered = Position::new(40);
    let query_side = StubQuerySide::answered_up_to(answered);
    let process = Process::start(&query_side).await;
    append_chat(&process.log, 1, 10).await;
    promote_second_generations(&process.log).await;
    let mut attempts = query_side.attempts.subscribe();
    within("a second attempt", attempts.wait_for(|attempts| *attempts >= 2)).await.unwrap();
    assert_eq!(*query_side.last_switch_over.borrow(), None);

    append_chat(&process.log, 2, 50).await;
    let (generations, reached) = query_side.wait_for_switch_over().await;
    assert_eq!(generations, SECOND);
    assert!(reached.read_model >= answered && reached.search_index >= answered, "{reached:?}");
    process.stop().await;
}

#[tokio::test]
async fn a_previous_generation_with_events_that_the_log_has_lost_answers_no_queries() {
    let process = Process::start(&StubQuerySide::answered_up_to(Position::START)).await;
    let head = append_chat(&process.log, 1, 50).await;
    process.wait_for_first_generations(head).await;
    let folder = process.stop().await;

    // The log was set back: the first generations are ahead of it. The second ones are live, and not built.
    let log: Arc<dyn EventStore> =
        Arc::new(SqliteEventStore::open(&folder.path().join("restored.db")).unwrap());
    append_chat(&log, 1, 10).await;
    promote_second_generations(&log).await;
    let generations = Generations::load(&*log).await.unwrap().follow(Arc::clone(&log));
    let supervisor = ProjectorSupervisor::new(SupervisorContext {
        event_store: Arc::clone(&log),
        locations: locations(&folder),
        generations: generations.clone(),
        shutdown: watch::channel(false).1,
        linger: Duration::ZERO,
    });
    let statuses = supervisor.projector_statuses();
    let switch_over = QuerySwitchOver::open(locations(&folder), generations, statuses, log).await;
    assert_eq!(switch_over.active().borrow().generations, SECOND);
}
