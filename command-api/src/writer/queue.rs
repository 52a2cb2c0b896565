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
use super::existing_event::{ExistingEvent, ExistingEventQuery, find_existing_events};
use super::load_state::{LoadError, load_after_predecessor, load_state, revalidate_cached_state};
use super::reserved_key::ReservedKey;
use super::stream_state::{AggregateState, ByteWeighter, FoldDepth, StreamState};
use crate::command::{Command, CommandError, CommandOutcome};

/// Commands that are taken into one batch at most. Those of one stream also have to fit into one append.
const MAX_BATCH_COMMANDS: usize = 1_024;

/// How long a command is tried again while other writers get in its way.
const CONTENTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A command on its way.
pub(super) struct CommandRequest {
    pub(super) command: Command,
    pub(super) metadata: Arc<str>,
    /// About how many bytes the event takes.
    pub(super) estimated_bytes: usize,
    pub(super) reserved_key: Option<ReservedKey>,
    pub(super) reply_to: oneshot::Sender<Result<CommandOutcome, CommandError>>,
    pub(super) enqueued: Instant,
    /// Held until the command is answered.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl CommandRequest {
    pub(super) fn reply(self, outcome: Result<CommandOutcome, CommandError>) {
        // A client that went away does not hear it.
        let _ = self.reply_to.send(outcome);
    }

    /// Whether nothing has to be looked for before the command is decided.
    fn can_skip_lookup(&self) -> bool {
        self.reserved_key.as_ref().is_none_or(ReservedKey::can_skip_lookup)
    }

    /// Whether the command's event may be appended to a stream that ends there.
    pub(super) fn may_append_after(&self, end: ExpectedRevision) -> bool {
        self.reserved_key.as_ref().is_none_or(|keyed| keyed.may_append_after(end))
    }

    /// From here on, the command's event is looked for before it is appended.
    pub(super) fn require_lookup(&mut self) {
        if let Some(keyed) = &mut self.reserved_key {
            keyed.require_lookup();
        }
    }

    fn existing_event_query(&self, now: Timestamp) -> Option<ExistingEventQuery> {
        let keyed = self.reserved_key.as_ref().filter(|keyed| !keyed.can_skip_lookup())?;
        Some(keyed.existing_event_query(&self.command.stream(), now))
    }

    /// The job again, where its event was not found in a stream that ends there; otherwise that is its answer.
    fn reply_if_already_executed(
        mut self,
        sighting: Option<ExistingEvent>,
        end: ExpectedRevision,
    ) -> Option<Self> {
        let Some((keyed, sighting)) = self.reserved_key.as_mut().zip(sighting) else { return Some(self) };
        match sighting {
            ExistingEvent::Absent { generation } => {
                keyed.record_absence(generation, end);
                Some(self)
            }
            ExistingEvent::Present(event) => {
                let carried = keyed.replayed_outcome(&event);
                self.reply(carried);
                None
            }
        }
    }
}

/// A range of numbers from a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberRange {
    pub(super) first: u64,
    pub(super) count: u64,
}

impl NumberRange {
    pub(super) fn last(self) -> u64 {
        self.first + self.count - 1
    }
}

/// The commands on one stream that are decided together, in order.
pub(super) struct StreamCommands {
    pub(super) stream: StreamId,
    pub(super) requests: Vec<CommandRequest>,
    /// Numbers handed out for the jobs before they had to wait; more than are needed, where some were answered since.
    pub(super) numbers: Option<NumberRange>,
    /// Whether numbers before these were waited for long enough.
    pub(super) waited_for_predecessor: bool,
    /// The state as it was remembered, where all that is to be known is whether it is still the latest.
    pub(super) cached_state: Option<StreamState>,
}

impl StreamCommands {
    fn new(stream: StreamId, requests: Vec<CommandRequest>) -> Self {
        Self { stream, requests, numbers: None, waited_for_predecessor: false, cached_state: None }
    }
}

/// A stream's state, and how recent it is.
pub(super) struct ObservedState {
    pub(super) state: StreamState,
    /// The state is at least as recent as this; `None` where it was remembered, and another process may have appended
    /// meanwhile.
    pub(super) as_of: Option<Instant>,
}

/// What is decided next, each stream once.
#[derive(Default)]
struct CommandBatch {
    ready: Vec<(StreamCommands, ObservedState)>,
    entries: HashMap<StreamId, BatchEntry>,
}

/// A stream's place in a batch.
struct BatchEntry {
    index: usize,
    /// How many bytes its append may still take.
    remaining_bytes: usize,
}

impl BatchEntry {
    /// Takes a job's share of the append. Where it is too large, nothing after it is taken either: what comes first
    /// is carried out first.
    fn reserve_bytes(&mut self, job: &CommandRequest) -> bool {
        let left = self.remaining_bytes.checked_sub(job.estimated_bytes);
        self.remaining_bytes = left.unwrap_or(0);
        left.is_some()
    }
}

impl CommandBatch {
    fn push(&mut self, work: StreamCommands, latest: ObservedState) {
        let taken = work.requests.iter().map(|job| job.estimated_bytes).sum();
        let room = MAX_APPEND_BYTES.saturating_sub(taken);
        self.entries.insert(work.stream, BatchEntry { index: self.ready.len(), remaining_bytes: room });
        self.ready.push((work, latest));
    }
}

/// Commands whose stream is being loaded, and those that came for it meanwhile.
struct LoadingStream {
    commands: StreamCommands,
    arrived_since: Vec<CommandRequest>,
}

/// A stream's state, and for each of its waiting commands what was found of it, if it was looked for.
type LoadedStream = (StreamState, Vec<Option<ExistingEvent>>);

type LoadResult = (StreamId, Instant, Result<LoadedStream, LoadError>);

pub(super) struct Writer {
    pub(super) config: WriterConfig,
    pub(super) observed_position: Arc<AtomicU64>,
    states: Cache<StreamId, StreamState, ByteWeighter>,
    /// A stream is either here or in the batch at hand, never both.
    loading: HashMap<StreamId, LoadingStream>,
    load_tasks: JoinSet<LoadResult>,
    /// Commands that the batch at hand can't take although their stream is in it: for the next one.
    pub(super) deferred: Vec<CommandRequest>,
}

impl Writer {
    pub(super) fn new(config: WriterConfig, observed_position: Arc<AtomicU64>) -> Self {
        const ENTRY_BYTES: u64 = 200;
        let entries = usize::try_from(config.cache_bytes / ENTRY_BYTES).unwrap_or(usize::MAX);
        let states = Cache::with_weighter(entries, config.cache_bytes, ByteWeighter);
        Self {
            config,
            observed_position,
            states,
            loading: HashMap::new(),
            load_tasks: JoinSet::new(),
            deferred: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<CommandRequest>) {
        let mut inbox = Vec::with_capacity(MAX_BATCH_COMMANDS);
        let mut open = true;
        while open || !self.load_tasks.is_empty() || !self.deferred.is_empty() {
            let mut batch = CommandBatch::default();
            for job in std::mem::take(&mut self.deferred) {
                self.accept_request(job, &mut batch);
            }
            tokio::select! {
                biased;
                Some(loaded) = self.load_tasks.join_next() => self.accept_loaded(loaded, &mut batch),
                taken = queue.recv_many(&mut inbox, MAX_BATCH_COMMANDS), if open => open = taken > 0,
                () = std::future::ready(()), if !batch.ready.is_empty() => {}
            }
            while let Some(loaded) = self.load_tasks.try_join_next() {
                self.accept_loaded(loaded, &mut batch);
            }
            for job in inbox.drain(..) {
                self.accept_request(job, &mut batch);
            }
            if !batch.ready.is_empty() {
                self.execute_batch(batch.ready).await;
            }
        }
    }

    /// Puts a new command with the others of its stream, or its stream into the batch, or lets it wait.
    fn accept_request(&mut self, job: CommandRequest, batch: &mut CommandBatch) {
        let stream = job.command.stream();
        if let Some(waiting) = self.loading.get_mut(&stream) {
            waiting.arrived_since.push(job);
            return;
        }
        if let Some(place) = batch.entries.get_mut(&stream) {
            let (work, latest) = &mut batch.ready[place.index];
            // Numbers that were handed out cover the commands that they were handed out for.
            let fits = latest.state.suffices_for(&job.command) && job.can_skip_lookup();
            if work.numbers.is_none() && fits && place.reserve_bytes(&job) {
                work.requests.push(job);
            } else {
                self.deferred.push(job);
            }
            return;
        }
        let (recalled, sure) = (self.take_cached_state(&job), job.can_skip_lookup());
        let mut work = StreamCommands::new(stream, vec![job]);
        match recalled {
            Some(latest) if sure => batch.push(work, latest),
            cached => {
                work.cached_state = cached.map(|latest| latest.state);
                self.start_loading(work);
            }
        }
    }

    /// Takes a stream's state out of the cache, where it is remembered and suffices; it goes back with
    /// [`Self::cache_rows`].
    fn take_cached_state(&mut self, job: &CommandRequest) -> Option<ObservedState> {
        if matches!(job.command, Command::CreateApp { .. }) {
            return Some(ObservedState { state: StreamState::ABSENT_APP, as_of: Some(job.enqueued) });
        }
        let (_, known) = self.states.remove(&job.command.stream())?;
        known.suffices_for(&job.command).then_some(ObservedState { state: known, as_of: None })
    }

    /// That there is no app is not remembered: another process may have been given its token by the idempotency key of a
    /// creation that is still on its way.
    pub(super) fn cache_state(&mut self, stream: StreamId, known: StreamState) {
        if known.can_reserve_numbers() {
            self.states.insert(stream, known);
        }
    }

    /// Loads a stream's state beside the batches; its commands wait.
    pub(super) fn start_loading(&mut self, mut work: StreamCommands) {
        let stream = work.stream;
        let needs_full_state = work.requests.iter().any(|job| job.command.needs_full_state());
        let depth = if needs_full_state { FoldDepth::Full } else { FoldDepth::LastNumber };
        let log = Arc::clone(&self.config.event_store);
        let exists = self.cached_app_has_chat(&stream);
        // Numbers are handed out only for a stream that was found to exist.
        let numbers = work.numbers;
        let remembered = work.cached_state.take();
        let now = (self.config.clock)();
        let lookups: Vec<_> = work.requests.iter().map(|job| job.existing_event_query(now)).collect();
        let waiting = LoadingStream { commands: work, arrived_since: Vec::new() };
        debug_assert!(!self.loading.contains_key(&stream), "a stream is loaded once at a time");
        self.loading.insert(stream, waiting);
        self.load_tasks.spawn(async move {
            let since = Instant::now();
            let known = async {
                if let Some(remembered) = remembered
                    && let Some(known) = revalidate_cached_state(&*log, stream, remembered).await?
                {
                    return Ok(known);
                }
                match numbers {
                    Some(numbers) => load_after_predecessor(&*log, stream, depth, numbers.first).await,
                    None => load_state(&*log, stream, depth, exists).await,
                }
            };
            // In this order: what is not found after the end was read is not before that end.
            let found = async { Ok((known.await?, find_existing_events(&*log, lookups).await?)) };
            // A panic must not leave the stream's commands waiting for ever.
            let found = AssertUnwindSafe(found).catch_unwind().await;
            (stream, since, found.unwrap_or(Err(LoadError::Panicked)))
        });
    }

    fn cached_app_has_chat(&self, stream: &StreamId) -> bool {
        let StreamId::Chat(app, number) = stream else { return false };
        self.states.peek(&StreamId::App(*app)).is_some_and(|known| match &known.aggregate {
            AggregateState::App(app) => app.has_chat(*number),
            AggregateState::Chat(..) => false,
        })
    }

    fn accept_loaded(&mut self, loaded: Result<LoadResult, JoinError>, batch: &mut CommandBatch) {
        // Loads catch their panics and are not cancelled.
        let Ok((stream, since, loaded)) = loaded else { return };
        let Some(LoadingStream { commands: mut work, arrived_since: later }) = self.loading.remove(&stream)
        else {
            return;
        };
        match loaded {
            Ok((known, sightings)) => {
                work.waited_for_predecessor = work.numbers.is_some();
                let (jobs, end) = (std::mem::take(&mut work.requests), known.expected_revision());
                let looked_up = jobs.into_iter().zip(sightings);
                work.requests = looked_up
                    .filter_map(|(job, sighting)| job.reply_if_already_executed(sighting, end))
                    .collect();
                batch.push(work, ObservedState { state: known, as_of: Some(since) });
                for job in later {
                    self.accept_request(job, batch);
                }
            }
            Err(error) => {
                let error = CommandError::from(error);
                for job in work.requests.into_iter().chain(later) {
                    // An app or a chat may have come to be after the load that did not find it had begun.
                    if matches!(error, CommandError::Rejected(_)) && job.enqueued > since {
                        self.accept_request(job, batch);
                    } else {
                        job.reply(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Loads the stream again and decides anew, unless that has been tried for too long.
    pub(super) fn retry(&mut self, mut work: StreamCommands) {
        let (jobs, late): (Vec<CommandRequest>, Vec<CommandRequest>) =
            work.requests.drain(..).partition(|job| job.enqueued.elapsed() < CONTENTION_TIMEOUT);
        for job in late {
            job.reply(Err(CommandError::Overloaded));
        }
        if !jobs.is_empty() {
            work.requests = jobs;
            self.start_loading(work);
        }
    }

    pub(super) fn advance_observed_position(&self, position: Position) {
        self.observed_position.fetch_max(position.get(), Ordering::AcqRel);
    }
}
