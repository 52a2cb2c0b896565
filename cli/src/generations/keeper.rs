//! The projectors of this process: one for the live generation of each projection that it keeps.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::event_store::EventStore;
use chat_projector::generations::Generations;
use chat_projector::projection_store::ProjectionLocations;
use chat_projector::{ProjectorHandle, ProjectorState, ProjectorStatus};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::readers::at_hand;

/// How often it is looked whether a projector has lingered for long enough.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Statuses = Arc<Mutex<HashMap<ProjectionGeneration, watch::Receiver<ProjectorStatus>>>>;

/// What every keeper works with.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) places: ProjectionLocations,
    pub(crate) generations: watch::Receiver<Generations>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// How long the projector of a generation goes on after the next one has caught up with it: longer than a query may
    /// wait for a position of it, and than processes elsewhere take to switch, which may have to fold a search folder of
    /// their own first.
    pub(crate) linger: Duration,
}

/// The keepers of this process.
pub(crate) struct Keepers {
    around: Surroundings,
    statuses: Statuses,
    kept: Vec<Kept>,
}

/// A projection that this process keeps.
struct Kept {
    projection: ProjectionName,
    /// Of the generation that is in use.
    status: watch::Receiver<ProjectorStatus>,
    join: JoinHandle<()>,
}

impl Keepers {
    pub(crate) fn new(around: Surroundings) -> Self {
        Self { around, statuses: Statuses::default(), kept: Vec::new() }
    }

    /// Starts keeping a projection.
    pub(crate) fn keep(&mut self, projection: ProjectionName) {
        let mut keeper = Keeper {
            projection,
            around: self.around.clone(),
            statuses: Arc::clone(&self.statuses),
            running: BTreeMap::new(),
        };
        let live = self.around.generations.borrow().of(projection).live;
        keeper.start(live);
        let (told, status) = watch::channel(keeper.status_of(live));
        let join = tokio::spawn(keeper.run(live, told));
        self.kept.push(Kept { projection, status, join });
    }

    /// What the projectors of the generations in use are about.
    pub(crate) fn statuses(&self) -> Vec<watch::Receiver<ProjectorStatus>> {
        self.kept.iter().map(|kept| kept.status.clone()).collect()
    }

    /// Tells which projectors there are, whatever becomes of them later.
    pub(crate) fn watch(&self) -> Watched {
        let kept = self.kept.iter().map(|kept| kept.projection).collect();
        Watched { kept, statuses: Arc::clone(&self.statuses) }
    }

    /// Waits until all have ended, as they were told to.
    pub(crate) async fn finish(self) {
        for kept in self.kept {
            // One that panicked has nothing left to finish, and its panic is in the log.
            let _ = kept.join.await;
        }
    }
}

/// The projectors of this process, for those who wait for what they do.
#[derive(Clone)]
pub(crate) struct Watched {
    kept: Vec<ProjectionName>,
    statuses: Statuses,
}

impl Watched {
    /// Whether this process keeps the projection.
    pub(crate) fn keeps(&self, projection: ProjectionName) -> bool {
        self.kept.contains(&projection)
    }

    /// What the projector of a generation is about, once there is one.
    pub(crate) fn status(&self, copy: ProjectionGeneration) -> Option<watch::Receiver<ProjectorStatus>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).get(&copy).cloned()
    }
}

struct Keeper {
    projection: ProjectionName,
    around: Surroundings,
    statuses: Statuses,
    running: BTreeMap<Generation, Running>,
}

struct Running {
    handle: ProjectorHandle,
    stop: watch::Sender<bool>,
    /// Since when another generation is live and has caught up with this one.
    superseded: Option<Instant>,
}

impl Keeper {
    /// Keeps what is live until the process stops.
    async fn run(mut self, live: Generation, told: watch::Sender<ProjectorStatus>) {
        let mut in_use = live;
        self.keep_up_what_readers_have(&mut in_use).await;
        let mut stopping = self.around.stopping.clone();
        loop {
            self.gauge(in_use);
            let Some(mut status) = self.running.get(&in_use).map(|running| running.handle.status.clone())
            else {
                break;
            };
            told.send_replace(status.borrow_and_update().clone());
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                changed = status.changed() => if changed.is_err() {
                    // It has ended, and nobody asked it to. Readiness says so.
                    break;
                },
                changed = self.around.generations.changed() => if changed.is_err() { break },
                () = sleep(LOOK_EVERY), if self.running.len() > 1 => {}
            }
            let live = self.around.generations.borrow().of(self.projection).live;
            self.start(live);
            if live != in_use && self.has_caught_up(live).await {
                in_use = live;
            }
            self.end_superseded(in_use).await;
        }
        for running in self.running.values() {
            running.stop.send_replace(true);
        }
        while let Some((_, running)) = self.running.pop_first() {
            let _ = running.handle.join.await;
        }
    }

    /// Where what is live is not there yet, or behind, readers are answered from the generation before: that goes on.
    async fn keep_up_what_readers_have(&mut self, in_use: &mut Generation) {
        let line = self.around.generations.borrow().of(self.projection).clone();
        let chosen = at_hand(&self.around.places, self.projection, &line).await;
        if chosen != *in_use {
            self.start(chosen);
            *in_use = chosen;
        }
    }

    fn start(&mut self, generation: Generation) {
        if let Some(running) = self.running.get_mut(&generation) {
            running.superseded = None;
            return;
        }
        let copy = ProjectionGeneration { projection: self.projection, generation };
        let (stop, stopped) = watch::channel(false);
        let handle = self.around.places.of(copy).spawn_projector(Arc::clone(&self.around.event_store), stopped);
        handle.publishes_gauges.store(self.running.is_empty(), Ordering::Relaxed);
        let status = handle.status.clone();
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).insert(copy, status);
        self.running.insert(generation, Running { handle, stop, superseded: None });
    }

    /// Whether a generation is not behind any other that is still being kept, here or by another process.
    async fn has_caught_up(&self, generation: Generation) -> bool {
        let Some(running) = self.running.get(&generation) else { return false };
        let status = running.handle.status.borrow().clone();
        let position = match status.state {
            ProjectorState::Live => Some(status.position),
            ProjectorState::StandingBy => {
                let copy = ProjectionGeneration { projection: self.projection, generation };
                self.around.places.of(copy).position().await.ok()
            }
            _ => None,
        };
        let furthest = self.running.values().map(|other| other.handle.status.borrow().position).max();
        position.is_some() && position >= furthest
    }

    /// Ends the projectors of generations that are not live any more, some time after nobody needs them.
    async fn end_superseded(&mut self, in_use: Generation) {
        let live = self.around.generations.borrow().of(self.projection).live;
        if in_use != live {
            return;
        }
        let (now, linger) = (Instant::now(), self.around.linger);
        let mut due = Vec::new();
        for (generation, running) in &mut self.running {
            if *generation != live && running.superseded.get_or_insert(now).elapsed() >= linger {
                due.push(*generation);
            }
        }
        for generation in due {
            let Some(running) = self.running.remove(&generation) else { continue };
            running.stop.send_replace(true);
            let _ = running.handle.join.await;
            let copy = ProjectionGeneration { projection: self.projection, generation };
            self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(&copy);
            let projection = self.projection.as_str();
            tracing::info!(projection, generation = generation.0, "this generation is not kept up any more");
        }
    }

    /// One generation sets the gauges: that which is in use.
    fn gauge(&self, in_use: Generation) {
        for (generation, running) in &self.running {
            running.handle.publishes_gauges.store(*generation == in_use, Ordering::Relaxed);
        }
    }

    fn status_of(&self, generation: Generation) -> ProjectorStatus {
        // It was started just now.
        let running = self.running.get(&generation);
        running.map_or_else(
            || ProjectorStatus::new(self.projection.as_str()),
            |running| running.handle.status.borrow().clone(),
        )
    }
}
