//! Which commands are decided next: those whose stream's state is known. The others wait while it is loaded.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chat_domain::{ExpectedRevision, Position, StreamId, Timestamp};
use chat_ports::event_store::MAX_APPEND_BYTES;
use futures::FutureExt;
use quick_cache::unsync::Cache;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::WriterConfig;
use super::keyed::Keyed;
use super::known::{ByBytes, Depth, Known, State};
use super::load::{LoadError, load, load_after_predecessor, still_latest};
use super::lookup::{Lookup, Sighting, look};
use crate::command::{Carried, Command, CommandError};

/// Commands that are taken into one batch at most. Those of one stream also have to fit into one append.
const BATCH: usize = 1_024;

/// How long a command is tried again while other writers get in its way.
const CONTENTION_PATIENCE: Duration = Duration::from_secs(5);

/// A command on its way.
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) metadata: Arc<str>,
    /// About how many bytes the event takes.
    pub(super) bytes: usize,
    pub(super) keyed: Option<Keyed>,
    pub(super) answer: oneshot::Sender<Result<Carried, CommandError>>,
    pub(super) enqueued: Instant,
    /// Held until the command is answered.
    pub(super) _room: OwnedSemaphorePermit,
}

impl Job {
    pub(super) fn answer(self, outcome: Result<Carried, CommandError>) {
        // A client that went away does not hear it.
        let _ = self.answer.send(outcome);
    }

    /// Whether nothing has to be looked for before the command is decided.
    fn is_sure(&self) -> bool {
        self.keyed.as_ref().is_none_or(Keyed::is_sure)
    }

    /// Whether the command's event may be appended to a stream that ends there.
    pub(super) fn may_append_after(&self, end: ExpectedRevision) -> bool {
        self.keyed.as_ref().is_none_or(|keyed| keyed.may_append_after(end))
    }

    /// From here on, the command's event is looked for before it is appended.
    pub(super) fn doubt(&mut self) {
        if let Some(keyed) = &mut self.keyed {
            keyed.doubt();
        }
    }

    fn lookup(&self, now: Timestamp) -> Option<Lookup> {
        let keyed = self.keyed.as_ref().filter(|keyed| !keyed.is_sure())?;
        Some(keyed.lookup(&self.command.stream(), now))
    }

    /// The job again, where its event was not found in a stream that ends there; otherwise that is its answer.
    fn unless_found(mut self, sighting: Option<Sighting>, end: ExpectedRevision) -> Option<Self> {
        let Some((keyed, sighting)) = self.keyed.as_mut().zip(sighting) else { return Some(self) };
        match sighting {
            Sighting::Absent { generation } => {
                keyed.found_absent(generation, end);
                Some(self)
            }
            Sighting::Found(event) => {
                let carried = keyed.carried_before(&event);
                self.answer(carried);
                None
            }
        }
    }
}

/// A range of numbers from a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Numbers {
    pub(super) fn last(self) -> u64 {
        self.first + self.count - 1
    }
}

/// The commands on one stream that are decided together, in order.
pub(super) struct Work {
    pub(super) stream: StreamId,
    pub(super) jobs: Vec<Job>,
    /// Numbers handed out for the jobs before they had to wait; more than are needed, where some were answered since.
    pub(super) numbers: Option<Numbers>,
    /// Whether numbers before these were waited for long enough.
    pub(super) waited: bool,
    /// The state as it was remembered, where all that is to be known is whether it is still the latest.
    pub(super) remembered: Option<Known>,
}

impl Work {
    fn new(stream: StreamId, jobs: Vec<Job>) -> Self {
        Self { stream, jobs, numbers: None, waited: false, remembered: None }
    }
}

/// A stream's state, and how recent it is.
pub(super) struct Latest {
    pub(super) known: Known,
    /// The state is at least as recent as this; `None` where it was remembered, and another process may have appended
    /// meanwhile.
    pub(super) since: Option<Instant>,
}

/// What is decided next, each stream once.
#[derive(Default)]
struct Batch {
    ready: Vec<(Work, Latest)>,
    places: HashMap<StreamId, Place>,
}

/// A stream's place in a batch.
struct Place {
    index: usize,
    /// How many bytes its append may still take.
    room: usize,
}

impl Place {
    /// Takes a job's share of the append. Where it is too large, nothing after it is taken either: what comes first
    /// is carried out first.
    fn take(&mut self, job: &Job) -> bool {
        let left = self.room.checked_sub(job.bytes);
        self.room = left.unwrap_or(0);
        left.is_some()
    }
}

impl Batch {
    fn push(&mut self, work: Work, latest: Latest) {
        let taken = work.jobs.iter().map(|job| job.bytes).sum();
        let room = MAX_APPEND_BYTES.saturating_sub(taken);
        self.places.insert(work.stream, Place { index: self.ready.len(), room });
        self.ready.push((work, latest));
    }
}

/// Commands whose stream is being loaded, and those that came for it meanwhile.
struct Waiting {
    work: Work,
    later: Vec<Job>,
}

/// A stream's state, and for each of its waiting commands what was found of it, if it was looked for.
type Found = (Known, Vec<Option<Sighting>>);

type Loaded = (StreamId, Instant, Result<Found, LoadError>);

pub(super) struct Writer {
    pub(super) config: WriterConfig,
    pub(super) seen: Arc<AtomicU64>,
    states: Cache<StreamId, Known, ByBytes>,
    /// A stream is either here or in the batch at hand, never both.
    waiting: HashMap<StreamId, Waiting>,
    loads: JoinSet<Loaded>,
    /// Commands that the batch at hand can't take although their stream is in it: for the next one.
    pub(super) held: Vec<Job>,
}

impl Writer {
    pub(super) fn new(config: WriterConfig, seen: Arc<AtomicU64>) -> Self {
        const ENTRY_BYTES: u64 = 200;
        let entries = usize::try_from(config.cache_bytes / ENTRY_BYTES).unwrap_or(usize::MAX);
        let states = Cache::with_weighter(entries, config.cache_bytes, ByBytes);
        Self { config, seen, states, waiting: HashMap::new(), loads: JoinSet::new(), held: Vec::new() }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        let mut inbox = Vec::with_capacity(BATCH);
        let mut open = true;
        while open || !self.loads.is_empty() || !self.held.is_empty() {
            let mut batch = Batch::default();
            for job in std::mem::take(&mut self.held) {
                self.take_job(job, &mut batch);
            }
            tokio::select! {
                biased;
                Some(loaded) = self.loads.join_next() => self.take_loaded(loaded, &mut batch),
                taken = queue.recv_many(&mut inbox, BATCH), if open => open = taken > 0,
                () = std::future::ready(()), if !batch.ready.is_empty() => {}
            }
            while let Some(loaded) = self.loads.try_join_next() {
                self.take_loaded(loaded, &mut batch);
            }
            for job in inbox.drain(..) {
                self.take_job(job, &mut batch);
            }
            if !batch.ready.is_empty() {
                self.carry_out(batch.ready).await;
            }
        }
    }

    /// Puts a new command with the others of its stream, or its stream into the batch, or lets it wait.
    fn take_job(&mut self, job: Job, batch: &mut Batch) {
        let stream = job.command.stream();
        if let Some(waiting) = self.waiting.get_mut(&stream) {
            waiting.later.push(job);
            return;
        }
        if let Some(place) = batch.places.get_mut(&stream) {
            let (work, latest) = &mut batch.ready[place.index];
            // Numbers that were handed out cover the commands that they were handed out for.
            let fits = latest.known.suffices_for(&job.command) && job.is_sure();
            if work.numbers.is_none() && fits && place.take(&job) {
                work.jobs.push(job);
            } else {
                self.held.push(job);
            }
            return;
        }
        let (recalled, sure) = (self.recall(&job), job.is_sure());
        let mut work = Work::new(stream, vec![job]);
        match recalled {
            Some(latest) if sure => batch.push(work, latest),
            recalled => {
                work.remembered = recalled.map(|latest| latest.known);
                self.load(work);
            }
        }
    }

    /// Takes a stream's state out of the cache, where it is remembered and suffices; it goes back with
    /// [`Self::remember`].
    fn recall(&mut self, job: &Job) -> Option<Latest> {
        if matches!(job.command, Command::CreateApp { .. }) {
            return Some(Latest { known: Known::NO_APP, since: Some(job.enqueued) });
        }
        let (_, known) = self.states.remove(&job.command.stream())?;
        known.suffices_for(&job.command).then_some(Latest { known, since: None })
    }

    /// That there is no app is not remembered: another process may have been given its token by the idempotency key of a
    /// creation that is still on its way.
    pub(super) fn remember(&mut self, stream: StreamId, known: Known) {
        if known.takes_numbers() {
            self.states.insert(stream, known);
        }
    }

    /// Loads a stream's state beside the batches; its commands wait.
    pub(super) fn load(&mut self, mut work: Work) {
        let stream = work.stream;
        let needs_changes = work.jobs.iter().any(|job| job.command.needs_changes());
        let depth = if needs_changes { Depth::Full } else { Depth::Tail };
        let log = Arc::clone(&self.config.event_store);
        let exists = self.known_to_exist(&stream);
        // Numbers are handed out only for a stream that was found to exist.
        let numbers = work.numbers;
        let remembered = work.remembered.take();
        let now = (self.config.clock)();
        let lookups: Vec<_> = work.jobs.iter().map(|job| job.lookup(now)).collect();
        let waiting = Waiting { work, later: Vec::new() };
        debug_assert!(!self.waiting.contains_key(&stream), "a stream is loaded once at a time");
        self.waiting.insert(stream, waiting);
        self.loads.spawn(async move {
            let since = Instant::now();
            let known = async {
                if let Some(remembered) = remembered
                    && let Some(known) = still_latest(&*log, stream, remembered).await?
                {
                    return Ok(known);
                }
                match numbers {
                    Some(numbers) => load_after_predecessor(&*log, stream, depth, numbers.first).await,
                    None => load(&*log, stream, depth, exists).await,
                }
            };
            // In this order: what is not found after the end was read is not before that end.
            let found = async { Ok((known.await?, look(&*log, lookups).await?)) };
            // A panic must not leave the stream's commands waiting for ever.
            let found = AssertUnwindSafe(found).catch_unwind().await;
            (stream, since, found.unwrap_or(Err(LoadError::Panicked)))
        });
    }

    fn known_to_exist(&self, stream: &StreamId) -> bool {
        let StreamId::Chat(app, number) = stream else { return false };
        self.states.peek(&StreamId::App(*app)).is_some_and(|known| match &known.state {
            State::App(app) => app.has_chat(*number),
            State::Chat(..) => false,
        })
    }

    fn take_loaded(&mut self, loaded: Result<Loaded, JoinError>, batch: &mut Batch) {
        // Loads catch their panics and are not cancelled.
        let Ok((stream, since, loaded)) = loaded else { return };
        let Some(Waiting { mut work, later }) = self.waiting.remove(&stream) else { return };
        match loaded {
            Ok((known, sightings)) => {
                work.waited = work.numbers.is_some();
                let (jobs, end) = (std::mem::take(&mut work.jobs), known.expected());
                let looked_for = jobs.into_iter().zip(sightings);
                work.jobs =
                    looked_for.filter_map(|(job, sighting)| job.unless_found(sighting, end)).collect();
                batch.push(work, Latest { known, since: Some(since) });
                for job in later {
                    self.take_job(job, batch);
                }
            }
            Err(error) => {
                let error = CommandError::from(error);
                for job in work.jobs.into_iter().chain(later) {
                    // An app or a chat may have come to be after the load that did not find it had begun.
                    if matches!(error, CommandError::Rejected(_)) && job.enqueued > since {
                        self.take_job(job, batch);
                    } else {
                        job.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Loads the stream again and decides anew, unless that has been tried for too long.
    pub(super) fn try_again(&mut self, mut work: Work) {
        let (jobs, late): (Vec<Job>, Vec<Job>) =
            work.jobs.drain(..).partition(|job| job.enqueued.elapsed() < CONTENTION_PATIENCE);
        for job in late {
            job.answer(Err(CommandError::Overloaded));
        }
        if !jobs.is_empty() {
            work.jobs = jobs;
            self.load(work);
        }
    }

    pub(super) fn saw(&self, position: Position) {
        self.seen.fetch_max(position.get(), Ordering::AcqRel);
    }
}
