//! The writer task: takes commands from the queue, loads stream states, and executes the commands of loaded streams in
//! batches.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chat_domain::{Position, StreamId};
use chat_ports::event_store::MAX_APPEND_BYTES;
use futures::FutureExt;
use quick_cache::unsync::Cache;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::command_request::{CommandRequest, StreamCommands};
use super::config::WriterConfig;
use super::load_state::LoadError;
use super::refused_streams::RefusedStreams;
use super::stream_state::{AggregateState, ByteWeighter, FoldDepth, StreamState};
use super::writer_health::WriterHealth;
use crate::command::{Command, CommandError};
use crate::idempotency::{AgeClock, ExistingEvent, find_existing_events};

/// The maximal number of commands that the task receives from the queue at a time.
const MAX_RECEIVED_COMMANDS: usize = 1_024;

/// How long after its arrival a command is still retried.
const CONTENTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream's state and its age.
pub(super) struct ObservedState {
    pub(super) state: StreamState,
    /// A time at which the state was current; `None` for a cached state, because another process may have appended
    /// since.
    pub(super) as_of: Option<Instant>,
}

/// The commands that are executed next; each stream occurs once.
#[derive(Default)]
struct CommandBatch {
    ready: Vec<(StreamCommands, ObservedState)>,
    entries: HashMap<StreamId, BatchEntry>,
}

/// A stream's entry in a batch.
struct BatchEntry {
    /// The stream's index in [`CommandBatch::ready`].
    index: usize,
    /// The bytes that fit into the stream's append in addition to its present commands.
    remaining_bytes: usize,
}

impl BatchEntry {
    /// Reserves space for a request. Returns whether the request fits. After a request that does not fit, no later one
    /// fits either, so that the order of commands is kept.
    fn reserve_bytes(&mut self, request: &CommandRequest) -> bool {
        let remaining = self.remaining_bytes.checked_sub(request.estimated_bytes);
        self.remaining_bytes = remaining.unwrap_or(0);
        remaining.is_some()
    }
}

impl CommandBatch {
    fn push(&mut self, commands: StreamCommands, observed: ObservedState) {
        let used_bytes = commands.requests.iter().map(|request| request.estimated_bytes).sum();
        let remaining_bytes = MAX_APPEND_BYTES.saturating_sub(used_bytes);
        self.entries.insert(commands.stream, BatchEntry { index: self.ready.len(), remaining_bytes });
        self.ready.push((commands, observed));
    }
}

/// The commands of a stream that is being loaded, and those that arrived for it since.
struct LoadingStream {
    commands: StreamCommands,
    arrived_since: Vec<CommandRequest>,
}

/// A stream's state, and for each command the result of the search for its event, if a search was needed.
type LoadedStream = (StreamState, Vec<Option<ExistingEvent>>);

/// A stream that was loaded, the time at which the load started, and the result of the load.
type LoadResult = (StreamId, Instant, Result<LoadedStream, LoadError>);

/// The state of the writer task.
pub(super) struct Writer {
    pub(super) config: WriterConfig,
    age_clock: AgeClock,
    pub(super) observed_position: Arc<AtomicU64>,
    /// The streams with an event that can't be read, or that were truncated.
    pub(super) refused_streams: Arc<RefusedStreams>,
    pub(super) health: WriterHealth,
    states: Cache<StreamId, StreamState, ByteWeighter>,
    /// The streams that are being loaded. None of them is in the current batch.
    loading: HashMap<StreamId, LoadingStream>,
    load_tasks: JoinSet<LoadResult>,
    /// Commands for the next batch: they can't be decided together with their stream's commands in the current one.
    pub(super) deferred: Vec<CommandRequest>,
}

impl Writer {
    pub(super) fn new(
        config: WriterConfig,
        age_clock: AgeClock,
        observed_position: Arc<AtomicU64>,
        refused_streams: Arc<RefusedStreams>,
        health: WriterHealth,
    ) -> Self {
        const ENTRY_BYTES: u64 = 200;
        let entries = usize::try_from(config.cache_bytes / ENTRY_BYTES).unwrap_or(usize::MAX);
        let states = Cache::with_weighter(entries, config.cache_bytes, ByteWeighter);
        Self {
            config,
            age_clock,
            observed_position,
            refused_streams,
            health,
            states,
            loading: HashMap::new(),
            load_tasks: JoinSet::new(),
            deferred: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<CommandRequest>) {
        let mut inbox = Vec::with_capacity(MAX_RECEIVED_COMMANDS);
        let mut queue_is_open = true;
        while queue_is_open || !self.load_tasks.is_empty() || !self.deferred.is_empty() {
            let mut batch = CommandBatch::default();
            for request in std::mem::take(&mut self.deferred) {
                self.accept_request(request, &mut batch);
            }
            tokio::select! {
                biased;
                Some(loaded) = self.load_tasks.join_next() => self.accept_loaded(loaded, &mut batch),
                received = queue.recv_many(&mut inbox, MAX_RECEIVED_COMMANDS), if queue_is_open => {
                    queue_is_open = received > 0;
                }
                // Does not wait if the deferred commands can be executed now.
                () = std::future::ready(()), if !batch.ready.is_empty() => {}
            }
            while let Some(loaded) = self.load_tasks.try_join_next() {
                self.accept_loaded(loaded, &mut batch);
            }
            for request in inbox.drain(..) {
                self.accept_request(request, &mut batch);
            }
            if !batch.ready.is_empty() {
                self.execute_batch(batch.ready).await;
            }
        }
    }

    /// Adds a request to its stream's commands, if the stream is being loaded or is in the batch. If the request can't
    /// join the stream's commands in the batch, defers it to the next batch. If the stream is neither being loaded nor
    /// in the batch, puts the request into the batch with the stream's cached state, or starts to load the stream.
    fn accept_request(&mut self, request: CommandRequest, batch: &mut CommandBatch) {
        let stream = request.command.stream();
        if let Some(loading) = self.loading.get_mut(&stream) {
            loading.arrived_since.push(request);
            return;
        }
        if let Some(entry) = batch.entries.get_mut(&stream) {
            let (commands, observed) = &mut batch.ready[entry.index];
            // Reserved numbers suffice only for the requests that they were reserved for.
            let is_decidable = observed.state.suffices_for(&request.command) && request.can_skip_search();
            if commands.numbers.is_none() && is_decidable && entry.reserve_bytes(&request) {
                commands.requests.push(request);
            } else {
                self.deferred.push(request);
            }
            return;
        }
        let (cached, can_skip_search) = (self.take_cached_state(&request), request.can_skip_search());
        let mut commands = StreamCommands::new(stream, vec![request]);
        match cached {
            Some(observed) if can_skip_search => batch.push(commands, observed),
            cached => {
                commands.cached_state = cached.map(|observed| observed.state);
                self.start_loading(commands);
            }
        }
    }

    /// Takes a stream's state out of the cache, and returns it if it suffices for the command. [`Self::cache_state`]
    /// puts it back. The state of a new app is known without the cache.
    fn take_cached_state(&mut self, request: &CommandRequest) -> Option<ObservedState> {
        if matches!(request.command, Command::CreateApp { .. }) {
            return Some(ObservedState { state: StreamState::ABSENT_APP, as_of: Some(request.enqueued) });
        }
        let (_, state) = self.states.remove(&request.command.stream())?;
        state.suffices_for(&request.command).then_some(ObservedState { state, as_of: None })
    }

    /// Caches a state, except that of an absent app: another process may be about to create an app with this token,
    /// under an idempotency key that it took over.
    pub(super) fn cache_state(&mut self, stream: StreamId, state: StreamState) {
        if !state.is_absent_app() {
            self.states.insert(stream, state);
        }
    }

    /// Starts to load a stream's state, concurrently with the batches; its commands wait.
    pub(super) fn start_loading(&mut self, mut commands: StreamCommands) {
        let stream = commands.stream;
        let needs_full_state = commands.requests.iter().any(|request| request.command.needs_full_state());
        let depth = if needs_full_state { FoldDepth::Full } else { FoldDepth::LastNumber };
        let event_store = Arc::clone(&self.config.event_store);
        let chat_is_known = self.cached_app_has_chat(&stream);
        let numbers = commands.numbers;
        let cached_state = commands.cached_state.take();
        let now = self.age_clock.now();
        let queries: Vec<_> =
            commands.requests.iter().map(|request| request.existing_event_query(now)).collect();
        debug_assert!(!self.loading.contains_key(&stream), "the stream is already being loaded");
        self.loading.insert(stream, LoadingStream { commands, arrived_since: Vec::new() });
        self.load_tasks.spawn(async move {
            let started = Instant::now();
            let event_store = &*event_store;
            let state = async {
                if let Some(cached_state) = cached_state
                    && let Some(state) = cached_state.revalidate(event_store, stream).await?
                {
                    return Ok(state);
                }
                match numbers {
                    Some(numbers) => {
                        StreamState::load_after_predecessor(event_store, stream, depth, numbers.first).await
                    }
                    None => StreamState::load(event_store, stream, depth, chat_is_known).await,
                }
            };
            // The search comes second: an event that it does not find is not in the stream up to the loaded revision.
            let loaded = async { Ok((state.await?, find_existing_events(event_store, queries).await?)) };
            // Without `catch_unwind`, a panic would leave the stream's commands waiting forever.
            let loaded = AssertUnwindSafe(loaded).catch_unwind().await;
            (stream, started, loaded.unwrap_or(Err(LoadError::Panicked)))
        });
    }

    fn cached_app_has_chat(&self, stream: &StreamId) -> bool {
        let StreamId::Chat(app, number) = stream else { return false };
        self.states.peek(&StreamId::App(*app)).is_some_and(|state| match &state.aggregate {
            AggregateState::App(app_state) => app_state.has_chat(*number),
            AggregateState::Chat(..) => false,
        })
    }

    /// Puts the commands of a loaded stream into the batch, or replies with the error of the load.
    fn accept_loaded(&mut self, loaded: Result<LoadResult, JoinError>, batch: &mut CommandBatch) {
        // No error occurs: load tasks catch their panics and are never cancelled.
        let Ok((stream, started, loaded)) = loaded else { return };
        let Some(LoadingStream { mut commands, arrived_since }) = self.loading.remove(&stream) else {
            return;
        };
        match loaded {
            Ok((state, existing_events)) => {
                // A chat of which only the last number was read may still have edits that can't be read.
                if !matches!(state.aggregate, AggregateState::Chat(_, FoldDepth::LastNumber)) {
                    self.refused_streams.remove(&stream);
                }
                commands.waited_for_predecessor = commands.numbers.is_some();
                let (requests, end) = (std::mem::take(&mut commands.requests), state.expected_revision());
                commands.requests = requests
                    .into_iter()
                    .zip(existing_events)
                    .filter_map(|(request, existing)| request.reply_if_already_executed(existing, end))
                    .collect();
                batch.push(commands, ObservedState { state, as_of: Some(started) });
                for request in arrived_since {
                    self.accept_request(request, batch);
                }
            }
            Err(error) => {
                self.refused_streams.record(stream, &error);
                let error = CommandError::from(error);
                for request in commands.requests.into_iter().chain(arrived_since) {
                    // The app or chat may have been created after the load started.
                    if matches!(error, CommandError::Rejected(_)) && request.enqueued > started {
                        self.accept_request(request, batch);
                    } else {
                        request.reply(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Loads the stream again, in order to repeat the decision; answers requests that have been retried for too long.
    pub(super) fn retry(&mut self, mut commands: StreamCommands) {
        let (requests, expired): (Vec<CommandRequest>, Vec<CommandRequest>) =
            commands.requests.drain(..).partition(|request| request.enqueued.elapsed() < CONTENTION_TIMEOUT);
        for request in expired {
            request.reply(Err(CommandError::Overloaded));
        }
        if !requests.is_empty() {
            commands.requests = requests;
            self.start_loading(commands);
        }
    }

    pub(super) fn advance_observed_position(&self, position: Position) {
        self.observed_position.fetch_max(position.get(), Ordering::AcqRel);
    }
}
