//! Execution of a batch: reserves numbers, decides the commands, appends the events, and replies.

use std::collections::HashSet;
use std::sync::Arc;

use chat_domain::metadata::EventId;
use chat_domain::{Event, ExpectedRevision, StreamId};
use chat_ports::clock;
use chat_ports::counters::{CounterKey, ReservationRequest};
use chat_ports::event_store::{AppendError, AppendReceipt, NewEvent, StreamAppend};
use futures::future::join_all;
use tokio::time::Instant;

use super::command_request::{CommandRequest, NumberRange, StreamCommands};
use super::stream_state::{StreamState, counter_key};
use super::writer_task::{ObservedState, Writer};
use crate::command::{CommandError, CommandOutcome, ExecutionKind, Rejection};
use crate::idempotency::ReservedKey;

/// The commands of one stream with their decisions.
struct DecidedStream {
    stream: StreamId,
    decisions: Vec<(CommandRequest, Decision)>,
    numbers: Option<NumberRange>,
    waited_for_predecessor: bool,
    /// The number of the last chat or message before these commands.
    last_number: u64,
    /// The revision that the append expects: that of the state which the decisions are based on.
    expected: ExpectedRevision,
    /// The state after the events.
    state: StreamState,
}

/// The decision on one command.
enum Decision {
    Event(Event),
    Rejected(Rejection),
}

impl Writer {
    pub(super) async fn execute_batch(&mut self, ready: Vec<(StreamCommands, ObservedState)>) {
        let command_count: usize = ready.iter().map(|(commands, _)| commands.requests.len()).sum();
        metrics::histogram!("chat_command_batch_size")
            .record(f64::from(u32::try_from(command_count).unwrap_or(u32::MAX)));
        let ready = self.reserve_numbers(ready).await;
        let mut appending = Vec::with_capacity(ready.len());
        let mut appends = Vec::with_capacity(ready.len());
        let mut rewinds = Vec::new();
        for (commands, observed) in ready {
            let Some(decided) = self.decide(commands, observed) else { continue };
            let events = self.new_events(&decided);
            if events.is_empty() {
                rewinds.extend(self.complete_without_events(decided));
                continue;
            }
            let stream = decided.stream.to_string().into();
            appends.push(StreamAppend { stream, expected_revision: decided.expected, events });
            appending.push(decided);
        }
        if !appends.is_empty() {
            let started = Instant::now();
            let outcomes = self.config.event_store.append(appends).await;
            metrics::histogram!("chat_event_log_append_seconds").record(started.elapsed());
            self.record_append_health(&outcomes);
            for (decided, outcome) in appending.into_iter().zip(outcomes) {
                rewinds.extend(self.complete_append(decided, outcome));
            }
        }
        // The counters are rewound last and concurrently, so that slow counters do not delay the replies.
        join_all(rewinds.into_iter().map(|rewind| self.rewind_counter(rewind))).await;
    }

    /// Reserves numbers for each stream that needs some, in one call. Returns the streams that can be decided now.
    ///
    /// A stream whose numbers do not follow its last number directly is loaded again instead: the load waits for the
    /// events of the numbers in between, which another writer may have reserved. After a timeout, the numbers continue
    /// from the log.
    async fn reserve_numbers(
        &mut self,
        ready: Vec<(StreamCommands, ObservedState)>,
    ) -> Vec<(StreamCommands, ObservedState)> {
        let mut reservation_requests = Vec::new();
        let mut reserving = Vec::new();
        let mut numbered = Vec::with_capacity(ready.len());
        for (mut commands, observed) in ready {
            let creation_count =
                commands.requests.iter().filter(|request| request.command.takes_number()).count() as u64;
            let next = observed.state.next_number();
            commands.numbers =
                commands.numbers.filter(|numbers| numbers.first >= next && numbers.count >= creation_count);
            if creation_count > 0 && commands.numbers.is_none() && !observed.state.is_absent_app() {
                reservation_requests.push(ReservationRequest {
                    key: counter_key(&commands.stream),
                    count: creation_count,
                    floor: next - 1,
                });
                reserving.push((commands, observed));
            } else {
                numbered.push((commands, observed));
            }
        }
        if !reservation_requests.is_empty() {
            match self.config.counters.reserve(&reservation_requests).await {
                Ok(firsts) => {
                    self.health.reservations.record_success();
                    let ranges = firsts.into_iter().zip(reservation_requests);
                    for ((mut commands, observed), (first, request)) in reserving.into_iter().zip(ranges) {
                        commands.numbers = Some(NumberRange { first, count: request.count });
                        numbered.push((commands, observed));
                    }
                }
                Err(error) => {
                    self.health.reservations.record_failure(&error);
                    let error = CommandError::CountersUnavailable(Arc::new(error));
                    for (mut commands, observed) in reserving {
                        let (creating, others): (Vec<CommandRequest>, Vec<CommandRequest>) =
                            commands.requests.drain(..).partition(|request| request.command.takes_number());
                        reply_with_error(creating, &error);
                        commands.requests = others;
                        numbered.push((commands, observed));
                    }
                }
            }
        }
        let mut in_sequence = Vec::with_capacity(numbered.len());
        for (commands, observed) in numbered {
            let is_ahead =
                commands.numbers.is_some_and(|numbers| numbers.first > observed.state.next_number());
            if is_ahead && !commands.waited_for_predecessor {
                self.start_loading(commands);
            } else {
                in_sequence.push((commands, observed));
            }
        }
        in_sequence
    }

    /// Decides a stream's commands in order. Returns `None` if they are not decided now: the stream is being loaded
    /// again, or the commands were answered with an error. A stream is loaded again if the lease of a key no
    /// longer allows an append, or if the state rejects a command that another writer may have made valid since.
    fn decide(&mut self, mut commands: StreamCommands, observed: ObservedState) -> Option<DecidedStream> {
        let expected = observed.state.expected_revision();
        self.defer_duplicate_keys(&mut commands);
        // The append of these commands expects the revision of this state. If another owner takes over a key after this
        // check and appends first, the append of these commands is a conflict, however late it reaches the event store.
        if !commands.requests.iter().all(|request| request.may_append_after(expected)) {
            commands.cached_state = Some(observed.state);
            self.retry(commands);
            return None;
        }
        let last_number = observed.state.next_number() - 1;
        let ObservedState { mut state, as_of } = observed;
        let mut decisions = Vec::with_capacity(commands.requests.len());
        for request in &commands.requests {
            let decision = match state.decide(request.command.clone(), state.next_number()) {
                Ok(event) => {
                    state = match state.evolve(&event) {
                        Ok(evolved) => evolved,
                        Err(error) => {
                            reply_with_error(commands.requests, &CommandError::Internal(Arc::new(error)));
                            return None;
                        }
                    };
                    Decision::Event(event)
                }
                Err(
                    Rejection::MessageNotFound | Rejection::PreconditionFailed | Rejection::NumberOutOfOrder,
                ) if as_of.is_none_or(|as_of| as_of < request.enqueued) => {
                    // The state may be out of date. It can be used again only if no decided event has changed it.
                    let unchanged =
                        decisions.iter().all(|decision| matches!(decision, Decision::Rejected(_)));
                    commands.cached_state = unchanged.then_some(state);
                    self.retry(commands);
                    return None;
                }
                Err(rejection) => Decision::Rejected(rejection),
            };
            decisions.push(decision);
        }
        Some(DecidedStream {
            stream: commands.stream,
            decisions: commands.requests.into_iter().zip(decisions).collect(),
            numbers: commands.numbers,
            waited_for_predecessor: commands.waited_for_predecessor,
            last_number,
            expected,
            state,
        })
    }

    /// Moves commands that repeat the key of an earlier command in the batch to the next batch: the earlier command's
    /// event must be found first.
    fn defer_duplicate_keys(&mut self, commands: &mut StreamCommands) {
        let mut keys = HashSet::new();
        let mut is_duplicate = |request: &mut CommandRequest| {
            request.reserved_key.as_ref().is_some_and(|key| !keys.insert(key.key()))
        };
        for mut duplicate in commands.requests.extract_if(.., |request| is_duplicate(request)) {
            duplicate.require_search();
            self.deferred.push(duplicate);
        }
    }

    fn new_events(&self, decided: &DecidedStream) -> Vec<NewEvent> {
        let recorded_at = (self.config.clock)();
        let event = |(request, decision): &(CommandRequest, Decision)| match decision {
            Decision::Event(event) => Some(NewEvent {
                id: request
                    .reserved_key
                    .as_ref()
                    .map_or_else(|| EventId::new(clock::time_ordered_uuid()), ReservedKey::event_id),
                event_type: event.event_type(),
                schema_version: event.schema_version(),
                recorded_at,
                data: event.payload(),
                metadata: Arc::clone(&request.metadata),
            }),
            Decision::Rejected(_) => None,
        };
        decided.decisions.iter().filter_map(event).collect()
    }

    /// Records whether the log takes appends. A conflict or a truncated stream does not count as a failure: it concerns
    /// one stream, and nothing was written.
    fn record_append_health(&self, outcomes: &[Result<AppendReceipt, AppendError>]) {
        if outcomes.iter().any(Result::is_ok) {
            return self.health.appends.record_success();
        }
        let mut errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        if let Some(error) =
            errors.find(|error| !matches!(error, AppendError::Conflict | AppendError::StreamTruncated(_)))
        {
            self.health.appends.record_failure(error);
        }
    }

    fn complete_without_events(&mut self, decided: DecidedStream) -> Option<CounterRewind> {
        self.advance_observed_position(decided.state.position);
        let rewind = decided.rewind_to(decided.last_number);
        for (request, decision) in decided.decisions {
            if let Decision::Rejected(rejection) = decision {
                request.reply(Err(rejection.into()));
            }
        }
        self.cache_state(decided.stream, decided.state);
        rewind
    }

    fn complete_append(
        &mut self,
        decided: DecidedStream,
        outcome: Result<AppendReceipt, AppendError>,
    ) -> Option<CounterRewind> {
        let mut rewind = None;
        let error = match outcome {
            Ok(receipt) => return self.complete_stored(decided, receipt),
            Err(AppendError::Conflict) => {
                metrics::counter!("chat_command_conflicts_total").increment(1);
                let DecidedStream { stream, decisions, numbers, waited_for_predecessor, .. } = decided;
                let with_required_search = |(mut request, _): (CommandRequest, Decision)| {
                    request.require_search();
                    request
                };
                let requests = decisions.into_iter().map(with_required_search).collect();
                self.retry(StreamCommands {
                    stream,
                    requests,
                    numbers,
                    waited_for_predecessor,
                    cached_state: None,
                });
                return None;
            }
            Err(AppendError::Unavailable(cause)) => {
                // Unused numbers are returned, so that no writer waits for them.
                rewind = decided.rewind_to(decided.last_number);
                CommandError::EventStoreUnavailable(cause.into())
            }
            Err(AppendError::StreamTruncated(truncated)) => {
                rewind = decided.rewind_to(decided.last_number);
                self.refused_streams.insert_truncated(decided.stream, &truncated);
                CommandError::StreamTruncated(Arc::new(truncated))
            }
            Err(AppendError::OutcomeUnknown(cause)) => CommandError::OutcomeUnknown(cause.into()),
        };
        reply_with_error(decided.decisions.into_iter().map(|(request, _)| request), &error);
        rewind
    }

    fn complete_stored(
        &mut self,
        mut decided: DecidedStream,
        receipt: AppendReceipt,
    ) -> Option<CounterRewind> {
        decided.state.position = receipt.position;
        self.advance_observed_position(receipt.position);
        let last = decided.state.next_number() - 1;
        let counter_was_ahead =
            decided.numbers.is_some_and(|numbers| numbers.first > decided.last_number + 1);
        if counter_was_ahead {
            tracing::info!(stream = ?decided.stream, last, "a counter was ahead of the log and was corrected; numbers continue from the log");
            metrics::counter!("chat_counter_repairs_total", "found" => "ahead").increment(1);
        }
        let has_unused_numbers = decided.numbers.is_some_and(|numbers| numbers.last() > last);
        let rewind = if has_unused_numbers { decided.rewind_to(last) } else { None };
        for (request, decision) in decided.decisions {
            match decision {
                Decision::Event(event) => {
                    if let (StreamId::App(app), Event::ChatCreated(created)) = (&decided.stream, &event) {
                        self.cache_state(
                            StreamId::Chat(*app, created.chat_number),
                            StreamState::empty_chat(),
                        );
                    }
                    request.reply(Ok(CommandOutcome {
                        event,
                        position: receipt.position,
                        app: *decided.stream.app(),
                        execution: ExecutionKind::New,
                    }));
                }
                Decision::Rejected(rejection) => request.reply(Err(rejection.into())),
            }
        }
        self.cache_state(decided.stream, decided.state);
        rewind
    }

    async fn rewind_counter(&self, CounterRewind { key, from, to }: CounterRewind) {
        if let Err(error) = self.config.counters.rewind(key, from, to).await {
            // The counter stays ahead: the next writer waits for the timeout once, and then rewinds it.
            tracing::warn!(?key, error = &error as &dyn std::error::Error, "could not rewind a counter");
        }
    }
}

/// A rewind of a counter over reserved numbers that were not used.
struct CounterRewind {
    key: CounterKey,
    /// The last number that was reserved.
    from: u64,
    /// The number of the last chat or message in the log.
    to: u64,
}

impl DecidedStream {
    /// A rewind from the last number that was reserved for these commands to `last`; `None` if none was reserved.
    fn rewind_to(&self, last: u64) -> Option<CounterRewind> {
        let numbers = self.numbers?;
        Some(CounterRewind { key: counter_key(&self.stream), from: numbers.last(), to: last })
    }
}

/// Replies to all requests with an error.
fn reply_with_error(requests: impl IntoIterator<Item = CommandRequest>, error: &CommandError) {
    for request in requests {
        request.reply(Err(error.clone()));
    }
}
