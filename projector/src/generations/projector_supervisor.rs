//! Supervises the projectors of this process: those of live generations and, for a while, of previous ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::event_store::EventStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::locations::ProjectionLocations;
use super::registry::Generations;
use crate::projector::{ProjectorHandle, RecoveryPolicy, spawn_projector};
use crate::status::{ProjectorState, ProjectorStatus};

/// The interval at which the supervisor checks whether the linger time of superseded projectors has passed.
const SUPERSEDED_POLL_INTERVAL: Duration = Duration::from_millis(100);

type StatusMap = Arc<Mutex<HashMap<ProjectionGeneration, watch::Receiver<ProjectorStatus>>>>;

/// The context that all supervised projections share.
#[derive(Clone)]
pub struct SupervisorContext {
    /// The log that the projectors follow.
    pub event_store: Arc<dyn EventStore>,
    /// The locations of the generations.
    pub locations: ProjectionLocations,
    /// The generations, as [`Generations::follow`] publishes them.
    pub generations: watch::Receiver<Generations>,
    /// Becomes true when the projectors are to stop.
    pub shutdown: watch::Receiver<bool>,
    /// The time for which the projector of a superseded generation continues. It must be longer than a query may wait
    /// for a position of this generation, and longer than other processes need to switch over. Other processes may have
    /// to build their own search index first.
    pub linger: Duration,
}

/// Supervises the projectors of this process.
///
/// For each projection, the supervisor runs the projector of the live generation. After a promotion, the projector of
/// the previous generation continues for [`SupervisorContext::linger`], because queries and other processes may still
/// use this generation. If the live generation is missing or behind, for example after a promotion while this machine
/// was off, the projector of the previous generation also runs until the live generation has caught up, and then for
/// the same linger time.
///
/// Readiness and metrics report the status of the generation in use: the live one, or the previous one until the live
/// one has caught up.
pub struct ProjectorSupervisor {
    context: SupervisorContext,
    statuses: StatusMap,
    supervised: Vec<SupervisedProjection>,
}

/// A projection whose projectors this process runs.
struct SupervisedProjection {
    projection: ProjectionName,
    /// The status of the generation in use.
    status: watch::Receiver<ProjectorStatus>,
    join: JoinHandle<()>,
}

impl ProjectorSupervisor {
    /// Creates a supervisor without projectors.
    pub fn new(context: SupervisorContext) -> Self {
        Self { context, statuses: StatusMap::default(), supervised: Vec::new() }
    }

    /// Starts the projectors of a projection on the current runtime.
    pub fn supervise(&mut self, projection: ProjectionName) {
        let mut supervisor = SupervisorTask {
            projection,
            context: self.context.clone(),
            statuses: Arc::clone(&self.statuses),
            running: BTreeMap::new(),
        };
        let live = self.context.generations.borrow().for_projection(projection).live;
        supervisor.start_projector(live);
        let (status_sender, status) = watch::channel(supervisor.status(live));
        let join = tokio::spawn(supervisor.run(live, status_sender));
        self.supervised.push(SupervisedProjection { projection, status, join });
    }

    /// Returns the statuses of the projectors of the generations in use.
    pub fn statuses_of_generations_in_use(&self) -> Vec<watch::Receiver<ProjectorStatus>> {
        self.supervised.iter().map(|supervised| supervised.status.clone()).collect()
    }

    /// Returns the statuses of the projectors, including projectors that start later.
    pub fn projector_statuses(&self) -> ProjectorStatuses {
        let projections = self.supervised.iter().map(|supervised| supervised.projection).collect();
        ProjectorStatuses { projections, statuses: Arc::clone(&self.statuses) }
    }

    /// Waits until all projectors have stopped.
    pub async fn wait_until_stopped(self) {
        for supervised in self.supervised {
            // A panic of the task was already reported, and leaves nothing to wait for.
            let _ = supervised.join.await;
        }
    }
}

/// The statuses of the projectors of this process, for readers that wait for a position.
#[derive(Clone)]
pub struct ProjectorStatuses {
    projections: Vec<ProjectionName>,
    statuses: StatusMap,
}

impl ProjectorStatuses {
    /// Returns whether this process runs projectors of the projection.
    pub fn supervises(&self, projection: ProjectionName) -> bool {
        self.projections.contains(&projection)
    }

    /// Returns the status of the projector of a generation; `None` if this process does not run it.
    pub fn status(&self, id: ProjectionGeneration) -> Option<watch::Receiver<ProjectorStatus>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

/// The task that runs the projectors of one projection.
struct SupervisorTask {
    projection: ProjectionName,
    context: SupervisorContext,
    statuses: StatusMap,
    running: BTreeMap<Generation, RunningProjector>,
}

struct RunningProjector {
    handle: ProjectorHandle,
    stop: watch::Sender<bool>,
    /// The time since which another generation is live and has caught up with this one.
    superseded_at: Option<Instant>,
}

impl SupervisorTask {
    /// Runs the projectors until the shutdown, or until the projector of the generation in use ends.
    async fn run(mut self, live: Generation, status_sender: watch::Sender<ProjectorStatus>) {
        let mut in_use = live;
        self.start_generation_in_use(&mut in_use).await;
        let mut shutdown = self.context.shutdown.clone();
        loop {
            self.update_in_use(in_use);
            let Some(mut status) = self.running.get(&in_use).map(|projector| projector.handle.status.clone())
            else {
                break;
            };
            status_sender.send_replace(status.borrow_and_update().clone());
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break,
                changed = status.changed() => if changed.is_err() {
                    // The projector ended without a shutdown; readiness reports it.
                    break;
                },
                changed = self.context.generations.changed() => if changed.is_err() { break },
                () = sleep(SUPERSEDED_POLL_INTERVAL), if self.running.len() > 1 => {}
            }
            let live = self.context.generations.borrow().for_projection(self.projection).live;
            self.start_projector(live);
            if live != in_use && self.has_caught_up(live).await {
                in_use = live;
            }
            self.stop_superseded(in_use).await;
        }
        for running in self.running.values() {
            running.stop.send_replace(true);
        }
        while let Some((_, running)) = self.running.pop_first() {
            let _ = running.handle.join.await;
        }
    }

    /// Starts the projector of the generation that queries are answered from at the start, and sets `in_use` to that
    /// generation. It may be the one before the live one.
    async fn start_generation_in_use(&mut self, in_use: &mut Generation) {
        let history = self.context.generations.borrow().for_projection(self.projection).clone();
        let head = self.context.event_store.head().await.ok();
        let chosen = self.context.locations.initial_generation(self.projection, &history, head).await;
        if chosen != *in_use {
            self.start_projector(chosen);
            *in_use = chosen;
        }
    }

    fn start_projector(&mut self, generation: Generation) {
        if let Some(running) = self.running.get_mut(&generation) {
            running.superseded_at = None;
            return;
        }
        let id = ProjectionGeneration { projection: self.projection, generation };
        let (stop, stop_receiver) = watch::channel(false);
        let handle = spawn_projector(
            self.context.locations.store(id),
            Arc::clone(&self.context.event_store),
            RecoveryPolicy::Rebuild,
            stop_receiver,
        );
        handle.set_in_use(self.running.is_empty());
        let status = handle.status.clone();
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).insert(id, status);
        self.running.insert(generation, RunningProjector { handle, stop, superseded_at: None });
    }

    /// Returns whether a generation has reached the positions of all generations that have a projector in this process.
    /// The generation itself may be advanced by a projector of another process.
    async fn has_caught_up(&self, generation: Generation) -> bool {
        let Some(running) = self.running.get(&generation) else { return false };
        let status = running.handle.status.borrow().clone();
        let position = match status.state {
            ProjectorState::Live => Some(status.position),
            ProjectorState::StandingBy => {
                let id = ProjectionGeneration { projection: self.projection, generation };
                self.context.locations.store(id).position().await.ok()
            }
            _ => None,
        };
        let furthest = self.running.values().map(|other| other.handle.status.borrow().position).max();
        position.is_some() && position >= furthest
    }

    /// Stops the projectors of superseded generations after their linger time.
    async fn stop_superseded(&mut self, in_use: Generation) {
        let live = self.context.generations.borrow().for_projection(self.projection).live;
        if in_use != live {
            return;
        }
        let (now, linger) = (Instant::now(), self.context.linger);
        let mut due = Vec::new();
        for (generation, running) in &mut self.running {
            if *generation != live && running.superseded_at.get_or_insert(now).elapsed() >= linger {
                due.push(*generation);
            }
        }
        for generation in due {
            let Some(running) = self.running.remove(&generation) else { continue };
            running.stop.send_replace(true);
            let _ = running.handle.join.await;
            let id = ProjectionGeneration { projection: self.projection, generation };
            self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            let projection = self.projection.as_str();
            tracing::info!(
                projection,
                generation = generation.0,
                "stopped the projector of a superseded generation"
            );
        }
    }

    /// Tells each projector whether its generation is the one in use.
    fn update_in_use(&self, in_use: Generation) {
        for (generation, running) in &self.running {
            running.handle.set_in_use(*generation == in_use);
        }
    }

    fn status(&self, generation: Generation) -> ProjectorStatus {
        // The default is never used, because the projector is started before its status is read.
        let running = self.running.get(&generation);
        running.map_or_else(
            || ProjectorStatus::new(self.projection.as_str()),
            |running| running.handle.status.borrow().clone(),
        )
    }
}
