//! A batch: numbers, decisions, one append, answers.

use chat_domain::{Event, ExpectedRevision, StreamId};
use chat_ports::counters::{CounterKey, ReservationRequest};
use chat_ports::event_store::{AppendError, AppendReceipt, NewEvent, StreamAppend};
use futures::future::join_all;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;

use super::queue::{CommandRequest, NumberRange, ObservedState, StreamCommands, Writer};
use super::reserved_key::ReservedKey;
use super::stream_state::{StreamState, counter_key};
use crate::command::{AppendedEvent, CommandError, CommandOutcome, ExecutionKind, Rejection};

/// A stream's commands, decided.
struct DecidedStream {
    stream: StreamId,
    decisions: Vec<(CommandRequest, Decision)>,
    numbers: Option<NumberRange>,
    waited_for_predecessor: bool,
    /// The number of the last chat or message before these.
    last_number: u64,
    expected: ExpectedRevision,
    /// The state after the events.
    state: StreamState,
}

/// What was decided on one command.
enum Decision {
    Event(Event),
    Rejected(Rejection),
}

impl Writer {
    pub(super) async fn execute_batch(&mut self, ready: Vec<(StreamCommands, ObservedState)>) {
        let commands: usize = ready.iter().map(|(work, _)| work.requests.len()).sum();
        metrics::histogram!("command_batch_size")
            .record(f64::from(u32::try_from(commands).unwrap_or(u32::MAX)));
        let ready = self.reserve_numbers(ready).await;
        let mut appending = Vec::with_capacity(ready.len());
        let mut appends = Vec::with_capacity(ready.len());
        let mut rewinds = Vec::new();
        for (work, latest) in ready {
            let Some(decided) = self.decide(work, latest) else { continue };
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
            let outcomes = self.config.event_store.append(appends).await;
            for (decided, outcome) in appending.into_iter().zip(outcomes) {
                rewinds.extend(self.complete_append(decided, outcome));
            }
        }
        // After the answers, and together: counters that hang hold up nobody whose command is settled.
        join_all(rewinds.into_iter().map(|rewind| self.rewind_counter(rewind))).await;
    }

    /// Gives each stream that creates something its numbers, in one round trip. A stream whose numbers lie further on
    /// than its log waits for whoever got those before; where that was in vain, its numbers follow the log.
    async fn reserve_numbers(
        &mut self,
        ready: Vec<(StreamCommands, ObservedState)>,
    ) -> Vec<(StreamCommands, ObservedState)> {
        let mut wishes = Vec::new();
        let mut reserving = Vec::new();
        let mut numbered = Vec::with_capacity(ready.len());
        for (mut work, latest) in ready {
            let creates = work.requests.iter().filter(|job| job.command.takes_number()).count() as u64;
            let next = latest.state.next_number();
            work.numbers = work.numbers.filter(|numbers| numbers.first >= next && numbers.count >= creates);
            if creates > 0 && work.numbers.is_none() && latest.state.can_reserve_numbers() {
                wishes.push(ReservationRequest {
                    key: counter_key(&work.stream),
                    count: creates,
                    floor: next - 1,
                });
                reserving.push((work, latest));
            } else {
                numbered.push((work, latest));
            }
        }
        if !wishes.is_empty() {
            match self.config.counters.reserve(&wishes).await {
                Ok(firsts) => {
                    for ((mut work, latest), (first, wish)) in
                        reserving.into_iter().zip(firsts.into_iter().zip(wishes))
                    {
                        work.numbers = Some(NumberRange { first, count: wish.count });
                        numbered.push((work, latest));
                    }
                }
                Err(error) => {
                    let error = CommandError::CountersUnavailable(Arc::new(error));
                    for (mut work, latest) in reserving {
                        let (creating, others): (Vec<CommandRequest>, Vec<CommandRequest>) =
                            work.requests.drain(..).partition(|job| job.command.takes_number());
                        reply_with_error(creating, &error);
                        work.requests = others;
                        numbered.push((work, latest));
                    }
                }
            }
        }
        let mut in_turn = Vec::with_capacity(numbered.len());
        for (work, latest) in numbered {
            let ahead = work.numbers.is_some_and(|numbers| numbers.first > latest.state.next_number());
            if ahead && !work.waited_for_predecessor {
                self.start_loading(work);
            } else {
                in_turn.push((work, latest));
            }
        }
        in_turn
    }

    /// Decides a stream's commands in order. `None` where the stream must be loaded again first: a command would be
    /// refused for something that another process may have changed since the state was remembered.
    fn decide(&mut self, mut work: StreamCommands, latest: ObservedState) -> Option<DecidedStream> {
        let expected = latest.state.expected_revision();
        self.defer_duplicate_keys(&mut work);
        // From here on the append expects this end of the stream. That, and not how fast it is, keeps out whoever takes a
        // key over after this moment.
        if !work.requests.iter().all(|job| job.may_append_after(expected)) {
            work.cached_state = Some(latest.state);
            self.retry(work);
            return None;
        }
        let last_number = latest.state.next_number() - 1;
        let ObservedState { state: mut known, as_of: since } = latest;
        let mut verdicts = Vec::with_capacity(work.requests.len());
        for job in &work.requests {
            let verdict = match known.decide(job.command.clone(), known.next_number()) {
                Ok(event) => {
                    known = match known.evolve(&event) {
                        Ok(evolved) => evolved,
                        Err(unfoldable) => {
                            reply_with_error(work.requests, &CommandError::Internal(Arc::new(unfoldable)));
                            return None;
                        }
                    };
                    Decision::Event(event)
                }
                Err(
                    Rejection::MessageNotFound | Rejection::PreconditionFailed | Rejection::NumberOutOfOrder,
                ) if since.is_none_or(|since| since < job.enqueued) => {
                    let untouched = verdicts.iter().all(|verdict| matches!(verdict, Decision::Rejected(_)));
                    work.cached_state = untouched.then_some(known);
                    self.retry(work);
                    return None;
                }
                Err(rejection) => Decision::Rejected(rejection),
            };
            verdicts.push(verdict);
        }
        Some(DecidedStream {
            stream: work.stream,
            decisions: work.requests.into_iter().zip(verdicts).collect(),
            numbers: work.numbers,
            waited_for_predecessor: work.waited_for_predecessor,
            last_number,
            expected,
            state: known,
        })
    }

    /// Takes out what comes with the key of another command before it: that one's event has to be looked for.
    fn defer_duplicate_keys(&mut self, work: &mut StreamCommands) {
        let mut keys = HashSet::new();
        let mut is_duplicate = |job: &mut CommandRequest| {
            job.reserved_key.as_ref().is_some_and(|keyed| !keys.insert(keyed.key()))
        };
        for mut duplicate in work.requests.extract_if(.., |job| is_duplicate(job)) {
            duplicate.require_lookup();
            self.deferred.push(duplicate);
        }
    }

    fn new_events(&self, decided: &DecidedStream) -> Vec<NewEvent> {
        let recorded_at = (self.config.clock)();
        let event = |(job, verdict): &(CommandRequest, Decision)| match verdict {
            Decision::Event(event) => Some(NewEvent {
                id: job
                    .reserved_key
                    .as_ref()
                    .map_or_else(|| EventId::new(Uuid::now_v7()), ReservedKey::event_id),
                event_type: event.event_type(),
                schema_version: SchemaVersion::CURRENT,
                recorded_at,
                data: event.payload(),
                metadata: Arc::clone(&job.metadata),
            }),
            Decision::Rejected(_) => None,
        };
        decided.decisions.iter().filter_map(event).collect()
    }

    fn complete_without_events(&mut self, decided: DecidedStream) -> Option<CounterRewind> {
        self.advance_observed_position(decided.state.position);
        let rewind = decided.rewind_to(decided.last_number);
        for (job, verdict) in decided.decisions {
            if let Decision::Rejected(rejection) = verdict {
                job.reply(Err(rejection.into()));
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
            Ok(appended) => return self.complete_appended(decided, appended),
            Err(AppendError::Conflict) => {
                metrics::counter!("command_conflicts_total").increment(1);
                let DecidedStream {
                    stream, decisions: jobs, numbers, waited_for_predecessor: waited, ..
                } = decided;
                let doubted = |(mut job, _): (CommandRequest, Decision)| {
                    job.require_lookup();
                    job
                };
                let jobs = jobs.into_iter().map(doubted).collect();
                self.retry(StreamCommands {
                    stream,
                    requests: jobs,
                    numbers,
                    waited_for_predecessor: waited,
                    cached_state: None,
                });
                return None;
            }
            Err(AppendError::Unavailable(cause)) => {
                // Numbers that went unused are handed out again, so that nobody waits for them.
                rewind = decided.rewind_to(decided.last_number);
                CommandError::EventStoreUnavailable(cause.into())
            }
            Err(AppendError::OutcomeUnknown(cause)) => CommandError::OutcomeUnknown(cause.into()),
        };
        reply_with_error(decided.decisions.into_iter().map(|(job, _)| job), &error);
        rewind
    }

    fn complete_appended(
        &mut self,
        mut decided: DecidedStream,
        appended: AppendReceipt,
    ) -> Option<CounterRewind> {
        decided.state.position = appended.position;
        self.advance_observed_position(appended.position);
        let last = decided.state.next_number() - 1;
        let taken_over = decided.numbers.is_some_and(|numbers| numbers.first > decided.last_number + 1);
        if taken_over {
            tracing::info!(stream = ?decided.stream, last, "a counter was ahead of the log; it follows the log again");
            metrics::counter!("counter_repairs_total").increment(1);
        }
        let unused = decided.numbers.is_some_and(|numbers| numbers.last() > last);
        let rewind = if unused { decided.rewind_to(last) } else { None };
        for (job, verdict) in decided.decisions {
            match verdict {
                Decision::Event(event) => {
                    if let (StreamId::App(app), Event::ChatCreated(created)) = (&decided.stream, &event) {
                        self.cache_state(
                            StreamId::Chat(*app, created.chat_number),
                            StreamState::empty_chat(),
                        );
                    }
                    let recorded = AppendedEvent { event, position: appended.position };
                    let app = *decided.stream.app();
                    job.reply(Ok(CommandOutcome { appended: recorded, app, execution: ExecutionKind::New }));
                }
                Decision::Rejected(rejection) => job.reply(Err(rejection.into())),
            }
        }
        self.cache_state(decided.stream, decided.state);
        rewind
    }

    async fn rewind_counter(&self, CounterRewind { key, from, to }: CounterRewind) {
        if let Err(error) = self.config.counters.rewind(key, from, to).await {
            // The counter stays ahead: the next writer waits in vain once, and sets it back then.
            tracing::warn!(?key, error = &error as &dyn std::error::Error, "a counter could not be set back");
        }
    }
}

/// A counter that is to be set back, unless it has moved on: numbers that were handed out and not used.
struct CounterRewind {
    key: CounterKey,
    from: u64,
    to: u64,
}

impl DecidedStream {
    /// Back from the last number that was handed out for these commands to `last`; `None` where none was.
    fn rewind_to(&self, last: u64) -> Option<CounterRewind> {
        let numbers = self.numbers?;
        Some(CounterRewind { key: counter_key(&self.stream), from: numbers.last(), to: last })
    }
}

/// Tells clients of a failure; the log has it from whoever answers them.
fn reply_with_error(jobs: impl IntoIterator<Item = CommandRequest>, error: &CommandError) {
    for job in jobs {
        job.reply(Err(error.clone()));
    }
}
