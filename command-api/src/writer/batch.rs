//! A batch: numbers, decisions, one append, answers.

use chat_domain::{Event, ExpectedRevision, StreamId};
use chat_ports::counters::{CounterKey, Reservation};
use chat_ports::event_store::{AppendError, Appended, NewEvent, StreamAppend};
use futures::future::join_all;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;

use super::keyed::Keyed;
use super::known::{Known, counter};
use super::queue::{Job, Latest, Numbers, Work, Writer};
use crate::command::{Carried, CommandError, Recorded, Rejection, When};

/// A stream's commands, decided.
struct Decided {
    stream: StreamId,
    jobs: Vec<(Job, Verdict)>,
    numbers: Option<Numbers>,
    waited: bool,
    /// The number of the last chat or message before these.
    last_number: u64,
    expected: ExpectedRevision,
    /// The state after the events.
    known: Known,
}

/// What was decided on one command.
enum Verdict {
    Event(Event),
    Refused(Rejection),
}

impl Writer {
    pub(super) async fn carry_out(&mut self, ready: Vec<(Work, Latest)>) {
        let commands: usize = ready.iter().map(|(work, _)| work.jobs.len()).sum();
        metrics::histogram!("command_batch_size")
            .record(f64::from(u32::try_from(commands).unwrap_or(u32::MAX)));
        let ready = self.hand_out_numbers(ready).await;
        let mut appending = Vec::with_capacity(ready.len());
        let mut appends = Vec::with_capacity(ready.len());
        let mut rewinds = Vec::new();
        for (work, latest) in ready {
            let Some(decided) = self.decide(work, latest) else { continue };
            let events = self.new_events(&decided);
            if events.is_empty() {
                rewinds.extend(self.settle_without_events(decided));
                continue;
            }
            let stream = decided.stream.to_string().into();
            appends.push(StreamAppend { stream, expected: decided.expected, events });
            appending.push(decided);
        }
        if !appends.is_empty() {
            let outcomes = self.config.event_store.append(appends).await;
            for (decided, outcome) in appending.into_iter().zip(outcomes) {
                rewinds.extend(self.settle(decided, outcome));
            }
        }
        // After the answers, and together: counters that hang hold up nobody whose command is settled.
        join_all(rewinds.into_iter().map(|rewind| self.rewind(rewind))).await;
    }

    /// Gives each stream that creates something its numbers, in one round trip. A stream whose numbers lie further on
    /// than its log waits for whoever got those before; where that was in vain, its numbers follow the log.
    async fn hand_out_numbers(&mut self, ready: Vec<(Work, Latest)>) -> Vec<(Work, Latest)> {
        let mut wishes = Vec::new();
        let mut wishing = Vec::new();
        let mut numbered = Vec::with_capacity(ready.len());
        for (mut work, latest) in ready {
            let creates = work.jobs.iter().filter(|job| job.command.takes_number()).count() as u64;
            let next = latest.known.next_number();
            work.numbers = work.numbers.filter(|numbers| numbers.first >= next && numbers.count >= creates);
            if creates > 0 && work.numbers.is_none() && latest.known.takes_numbers() {
                wishes.push(Reservation { key: counter(&work.stream), count: creates, floor: next - 1 });
                wishing.push((work, latest));
            } else {
                numbered.push((work, latest));
            }
        }
        if !wishes.is_empty() {
            match self.config.counters.reserve(&wishes).await {
                Ok(firsts) => {
                    for ((mut work, latest), (first, wish)) in
                        wishing.into_iter().zip(firsts.into_iter().zip(wishes))
                    {
                        work.numbers = Some(Numbers { first, count: wish.count });
                        numbered.push((work, latest));
                    }
                }
                Err(error) => {
                    let error = CommandError::CountersUnavailable(Arc::new(error));
                    for (mut work, latest) in wishing {
                        let (creating, others): (Vec<Job>, Vec<Job>) =
                            work.jobs.drain(..).partition(|job| job.command.takes_number());
                        fail(creating, &error);
                        work.jobs = others;
                        numbered.push((work, latest));
                    }
                }
            }
        }
        let mut in_turn = Vec::with_capacity(numbered.len());
        for (work, latest) in numbered {
            let ahead = work.numbers.is_some_and(|numbers| numbers.first > latest.known.next_number());
            if ahead && !work.waited {
                self.load(work);
            } else {
                in_turn.push((work, latest));
            }
        }
        in_turn
    }

    /// Decides a stream's commands in order. `None` where the stream must be loaded again first: a command would be
    /// refused for something that another process may have changed since the state was remembered.
    fn decide(&mut self, mut work: Work, latest: Latest) -> Option<Decided> {
        let expected = latest.known.expected();
        self.hold_doubles(&mut work);
        // From here on the append expects this end of the stream. That, and not how fast it is, keeps out whoever takes a
        // key over after this moment.
        if !work.jobs.iter().all(|job| job.may_append_after(expected)) {
            work.remembered = Some(latest.known);
            self.try_again(work);
            return None;
        }
        let last_number = latest.known.next_number() - 1;
        let Latest { mut known, since } = latest;
        let mut verdicts = Vec::with_capacity(work.jobs.len());
        for job in &work.jobs {
            let verdict = match known.decide(job.command.clone(), known.next_number()) {
                Ok(event) => {
                    known = match known.evolve(&event) {
                        Ok(evolved) => evolved,
                        Err(unfoldable) => {
                            fail(work.jobs, &CommandError::Internal(Arc::new(unfoldable)));
                            return None;
                        }
                    };
                    Verdict::Event(event)
                }
                Err(
                    Rejection::MessageNotFound | Rejection::PreconditionFailed | Rejection::NumberOutOfOrder,
                ) if since.is_none_or(|since| since < job.enqueued) => {
                    let untouched = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Refused(_)));
                    work.remembered = untouched.then_some(known);
                    self.try_again(work);
                    return None;
                }
                Err(rejection) => Verdict::Refused(rejection),
            };
            verdicts.push(verdict);
        }
        Some(Decided {
            stream: work.stream,
            jobs: work.jobs.into_iter().zip(verdicts).collect(),
            numbers: work.numbers,
            waited: work.waited,
            last_number,
            expected,
            known,
        })
    }

    /// Takes out what comes with the key of another command before it: that one's event has to be looked for.
    fn hold_doubles(&mut self, work: &mut Work) {
        let mut keys = HashSet::new();
        let mut is_double = |job: &mut Job| job.keyed.as_ref().is_some_and(|keyed| !keys.insert(keyed.key()));
        for mut double in work.jobs.extract_if(.., |job| is_double(job)) {
            double.doubt();
            self.held.push(double);
        }
    }

    fn new_events(&self, decided: &Decided) -> Vec<NewEvent> {
        let recorded_at = (self.config.clock)();
        let event = |(job, verdict): &(Job, Verdict)| match verdict {
            Verdict::Event(event) => Some(NewEvent {
                id: job.keyed.as_ref().map_or_else(|| EventId::new(Uuid::now_v7()), Keyed::event_id),
                event_type: event.event_type(),
                schema_version: SchemaVersion::CURRENT,
                recorded_at,
                data: event.payload(),
                metadata: Arc::clone(&job.metadata),
            }),
            Verdict::Refused(_) => None,
        };
        decided.jobs.iter().filter_map(event).collect()
    }

    fn settle_without_events(&mut self, decided: Decided) -> Option<Rewind> {
        self.saw(decided.known.at);
        let rewind = decided.rewind_to(decided.last_number);
        for (job, verdict) in decided.jobs {
            if let Verdict::Refused(rejection) = verdict {
                job.answer(Err(rejection.into()));
            }
        }
        self.remember(decided.stream, decided.known);
        rewind
    }

    fn settle(&mut self, decided: Decided, outcome: Result<Appended, AppendError>) -> Option<Rewind> {
        let mut rewind = None;
        let error = match outcome {
            Ok(appended) => return self.settle_appended(decided, appended),
            Err(AppendError::Conflict) => {
                metrics::counter!("command_conflicts_total").increment(1);
                let Decided { stream, jobs, numbers, waited, .. } = decided;
                let doubted = |(mut job, _): (Job, Verdict)| {
                    job.doubt();
                    job
                };
                let jobs = jobs.into_iter().map(doubted).collect();
                self.try_again(Work { stream, jobs, numbers, waited, remembered: None });
                return None;
            }
            Err(AppendError::Unavailable(cause)) => {
                // Numbers that went unused are handed out again, so that nobody waits for them.
                rewind = decided.rewind_to(decided.last_number);
                CommandError::EventStoreUnavailable(cause.into())
            }
            Err(AppendError::OutcomeUnknown(cause)) => CommandError::OutcomeUnknown(cause.into()),
        };
        fail(decided.jobs.into_iter().map(|(job, _)| job), &error);
        rewind
    }

    fn settle_appended(&mut self, mut decided: Decided, appended: Appended) -> Option<Rewind> {
        decided.known.at = appended.position;
        self.saw(appended.position);
        let last = decided.known.next_number() - 1;
        let taken_over = decided.numbers.is_some_and(|numbers| numbers.first > decided.last_number + 1);
        if taken_over {
            tracing::info!(stream = ?decided.stream, last, "a counter was ahead of the log; it follows the log again");
            metrics::counter!("counter_repairs_total").increment(1);
        }
        let unused = decided.numbers.is_some_and(|numbers| numbers.last() > last);
        let rewind = if unused { decided.rewind_to(last) } else { None };
        for (job, verdict) in decided.jobs {
            match verdict {
                Verdict::Event(event) => {
                    if let (StreamId::App(app), Event::ChatCreated(created)) = (&decided.stream, &event) {
                        self.remember(StreamId::Chat(*app, created.chat_number), Known::empty_chat());
                    }
                    let recorded = Recorded { event, position: appended.position };
                    let app = *decided.stream.app();
                    job.answer(Ok(Carried { recorded, app, when: When::Now }));
                }
                Verdict::Refused(rejection) => job.answer(Err(rejection.into())),
            }
        }
        self.remember(decided.stream, decided.known);
        rewind
    }

    async fn rewind(&self, Rewind { key, from, to }: Rewind) {
        if let Err(error) = self.config.counters.rewind(key, from, to).await {
            // The counter stays ahead: the next writer waits in vain once, and sets it back then.
            tracing::warn!(?key, error = &error as &dyn std::error::Error, "a counter could not be set back");
        }
    }
}

/// A counter that is to be set back, unless it has moved on: numbers that were handed out and not used.
struct Rewind {
    key: CounterKey,
    from: u64,
    to: u64,
}

impl Decided {
    /// Back from the last number that was handed out for these commands to `last`; `None` where none was.
    fn rewind_to(&self, last: u64) -> Option<Rewind> {
        let numbers = self.numbers?;
        Some(Rewind { key: counter(&self.stream), from: numbers.last(), to: last })
    }
}

/// Tells clients of a failure; the log has it from whoever answers them.
fn fail(jobs: impl IntoIterator<Item = Job>, error: &CommandError) {
    for job in jobs {
        job.answer(Err(error.clone()));
    }
}
