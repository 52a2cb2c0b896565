//! The service behind the routes: executes commands. A command with an idempotency key is executed once.
//!
//! For a command with a key, [`CommandService::execute`] reserves the key, passes the command to the writer, and stores
//! the answer. This runs in a separate task, so that a client that disconnects leaves no key reserved. If a process
//! dies in between, or the idempotency store loses its data, the log still gets no second event: before the writer
//! appends an event, it searches for an earlier one of the same key, unless the reservation guarantees that there is
//! none.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated};
use chat_domain::metadata;
use chat_domain::{ChatNumber, Event, MessageNumber, Metadata, Position, StreamId};
use chat_ports::event_store::{EventStoreError, LogId};
use chat_ports::idempotency::{
    CompletedCommand, CreatedId, ExistingEventHint, IdempotencyKeyId, IdempotencyStore,
    IdempotencyStoreError, KeyLease, KeyRequest, LeaseOwner, LogContent, RenewOutcome, ReserveOutcome,
    StoredAnswer, fingerprint,
};
use chat_web::consistency::{ConsistencyToken, LogTag};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::command::{Command, CommandError, CommandOutcome, ExecutionKind};
use crate::idempotency::{
    ClockReading, ExistingEvent, ExistingEventQuery, FingerprintedKey, LeaseTimer, ReservedKey,
    replayed_outcome,
};
use crate::write_health::WriteHealth;
use crate::writer::WriterHandle;

/// The number of renewals in the time of a lease. The lease survives two failed renewals in a row if each fails without
/// delay.
const RENEWALS_PER_LEASE: u32 = 4;

/// Executes commands. A command with an idempotency key is executed once. Cheap to clone.
#[derive(Clone)]
pub struct CommandService {
    writer: WriterHandle,
    idempotency_store: Arc<dyn IdempotencyStore>,
    /// The write health of the idempotency store.
    key_health: Arc<WriteHealth>,
    log: LogTag,
}

/// The idempotency store was initialized, and the next call reports again that it is not.
#[derive(Debug, Error)]
#[error("the store of idempotency keys keeps losing its data")]
struct IdempotencyStoreLosesState;

/// The command's task ended without an outcome.
#[derive(Debug, Error)]
#[error("the execution of the command panicked")]
struct ExecutionPanicked;

/// The stored answer does not fit the command.
#[derive(Debug, Error)]
#[error("the answer stored for the idempotency key does not match this command")]
struct MismatchedAnswer;

impl CommandService {
    /// Creates a service that passes commands to `writer` and keeps their keys in `idempotency_store`. The writer
    /// appends to the log `log`.
    pub fn new(writer: WriterHandle, idempotency_store: Arc<dyn IdempotencyStore>, log: LogId) -> Self {
        let keys = Arc::clone(&idempotency_store);
        let probe = move || {
            let keys = Arc::clone(&keys);
            async move { probe_keys(&*keys).await }
        };
        let key_health = WriteHealth::spawn("the store of idempotency keys", probe);
        Self { writer, idempotency_store, key_health, log: log.into() }
    }

    /// Returns the consistency token of a position of the log.
    pub(crate) fn consistency_token(&self, position: Position) -> ConsistencyToken {
        ConsistencyToken::new(self.log, position)
    }

    /// The writer, for its queue and its position.
    pub fn writer(&self) -> &WriterHandle {
        &self.writer
    }

    /// Returns why the last append, the last reservation of numbers or the last reservation of a key failed; `None` if
    /// none of them failed.
    pub fn write_failure(&self) -> Option<String> {
        self.writer.write_failure().or_else(|| self.key_health.failure())
    }

    /// Initializes the idempotency store, if it is empty. Call this before the process accepts commands. If the
    /// initialization fails, the next command with a key repeats it.
    ///
    /// If the log has events when the store is initialized, the writer has to search the log for the event of each new
    /// key, until the retention time of answers has passed.
    pub async fn initialize_idempotency_store(&self) -> Result<(), CommandError> {
        let first =
            self.writer.event_store().read_all(Position::START, 1).await.map_err(event_store_error)?;
        let log = if first.is_empty() { LogContent::Empty } else { LogContent::HasEvents };
        self.idempotency_store.initialize(log).await.map_err(idempotency_store_error)
    }

    /// Executes a command: when this returns `Ok`, the event is durable. `metadata` is stored with the event. A command
    /// with a key that was executed before is not executed again, see [`CommandOutcome::execution`].
    ///
    /// The command is executed even if the future is dropped.
    pub async fn execute(
        &self,
        command: Command,
        mut metadata: Metadata,
        key: Option<FingerprintedKey>,
    ) -> Result<CommandOutcome, CommandError> {
        let name = command.name();
        let outcome = match (self.writer.try_acquire_permit(), key) {
            (Err(overloaded), _) => Err(overloaded),
            (Ok(permit), None) => self.writer.submit(command, &metadata, None, permit).await,
            (Ok(permit), Some(FingerprintedKey { key, fingerprint })) => {
                metadata.idempotency = Some(metadata::IdempotencyMetadata { fingerprint });
                let (key_id, app) = match &command {
                    // A new app has no stream yet, so all clients share one scope of keys.
                    Command::CreateApp { app, .. } => (IdempotencyKeyId::derive(name, "", &key), Some(*app)),
                    command => (IdempotencyKeyId::derive(name, &command.stream().to_string(), &key), None),
                };
                let key_request = KeyRequest { key: key_id, fingerprint, owner: LeaseOwner::random(), app };
                let (reply_to, reply) = oneshot::channel();
                tokio::spawn(self.clone().execute_once(command, metadata, key_request, permit, reply_to));
                reply.await.unwrap_or_else(|_| Err(CommandError::Internal(Arc::new(ExecutionPanicked))))
            }
        };
        metrics::counter!("chat_commands_total", "command" => name, "outcome" => outcome_label(&outcome))
            .increment(1);
        outcome
    }

    /// Reserves the key and executes the command unless it was executed before. Sends the outcome to `reply_to`. Stores
    /// the answer of an executed command, and releases the key of a command that certainly appended nothing.
    async fn execute_once(
        self,
        command: Command,
        metadata: Metadata,
        key_request: KeyRequest,
        permit: OwnedSemaphorePermit,
        reply_to: oneshot::Sender<Result<CommandOutcome, CommandError>>,
    ) {
        let reserve_sent = ClockReading::now();
        let (lease, outcome) = match self.reserve(&key_request).await {
            Ok(ReserveOutcome::Granted(lease)) => {
                let command = command.with_app_token(lease.hint.app);
                let granted = (reserve_sent, lease);
                (
                    Some(lease),
                    self.execute_with_lease(command, &metadata, &key_request, granted, permit).await,
                )
            }
            Ok(ReserveOutcome::Completed(answer)) => (None, outcome_from_answer(command, answer)),
            Ok(ReserveOutcome::InFlight(hint)) => {
                let command = command.with_app_token(hint.app);
                (None, self.find_existing_outcome(&command.stream(), &key_request, hint).await)
            }
            Ok(ReserveOutcome::PayloadMismatch) => (None, Err(CommandError::KeyReused)),
            Ok(ReserveOutcome::NotInitialized) => {
                (None, Err(CommandError::IdempotencyStoreUnavailable(Arc::new(IdempotencyStoreLosesState))))
            }
            Err(error) => (None, Err(error)),
        };
        match (&outcome, lease) {
            // The client gets the outcome first. Until the store has it too, repetitions are answered from the log.
            (Ok(executed), Some(_)) => {
                let answer = answer_from_outcome(executed);
                let _ = reply_to.send(outcome);
                self.store_answer(&key_request, answer).await;
            }
            (Err(error), Some(_)) => {
                // A client that retries at once must not find its own reservation.
                self.release_key(&key_request, error).await;
                let _ = reply_to.send(outcome);
            }
            (_, None) => {
                let _ = reply_to.send(outcome);
            }
        }
    }

    async fn reserve(&self, key_request: &KeyRequest) -> Result<ReserveOutcome, CommandError> {
        let reserved = self.try_reserve(key_request).await;
        match &reserved {
            Ok(_) => self.key_health.record_success(),
            Err(CommandError::IdempotencyStoreUnavailable(cause)) => self.key_health.record_failure(&**cause),
            Err(_) => {}
        }
        reserved
    }

    async fn try_reserve(&self, key_request: &KeyRequest) -> Result<ReserveOutcome, CommandError> {
        match self.idempotency_store.reserve(key_request).await.map_err(idempotency_store_error)? {
            ReserveOutcome::NotInitialized => {
                self.initialize_idempotency_store().await?;
                self.idempotency_store.reserve(key_request).await.map_err(idempotency_store_error)
            }
            reserved => Ok(reserved),
        }
    }

    async fn execute_with_lease(
        &self,
        command: Command,
        metadata: &Metadata,
        key_request: &KeyRequest,
        (reserve_sent, lease): (ClockReading, KeyLease),
        permit: OwnedSemaphorePermit,
    ) -> Result<CommandOutcome, CommandError> {
        let terms = self.idempotency_store.terms();
        let lease_timer = LeaseTimer::new(reserve_sent, terms.lease);
        let reserved_key = ReservedKey::new(
            key_request.key,
            key_request.fingerprint,
            &lease,
            lease_timer.clone(),
            terms.retention,
        );
        tokio::select! {
            outcome = self.writer.submit(command, metadata, Some(reserved_key), permit) => outcome,
            never = self.renew_lease(key_request, &lease_timer, terms.lease / RENEWALS_PER_LEASE) => match never {},
        }
    }

    /// Renews a lease once per `interval`, until the lease is lost or the future is dropped.
    async fn renew_lease(
        &self,
        key_request: &KeyRequest,
        lease_timer: &LeaseTimer,
        interval: Duration,
    ) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(interval).await;
            let started = ClockReading::now();
            match self.idempotency_store.renew(key_request.key, key_request.owner).await {
                Ok(RenewOutcome::Held) => lease_timer.record_renewal(started),
                Ok(RenewOutcome::Lost) => {
                    lease_timer.record_loss();
                    return std::future::pending().await;
                }
                // If the lease expires meanwhile, the writer searches for the event before it appends.
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "could not renew the lease of an idempotency key"
                    );
                }
            }
        }
    }

    /// Answers a command whose key another owner has reserved, if that owner's event is in the log already.
    async fn find_existing_outcome(
        &self,
        stream: &StreamId,
        key_request: &KeyRequest,
        hint: ExistingEventHint,
    ) -> Result<CommandOutcome, CommandError> {
        let query = ExistingEventQuery {
            key: key_request.key,
            first_key_use: 0,
            stream: stream.to_string().into(),
            not_before: hint.since,
            key_retention: self.idempotency_store.terms().retention,
            now: self.writer.age_clock().now(),
        };
        match query.find_existing_event(&**self.writer.event_store()).await.map_err(event_store_error)? {
            ExistingEvent::Present(event) => replayed_outcome(&event, key_request.fingerprint),
            ExistingEvent::Absent { .. } => Err(CommandError::KeyInFlight),
        }
    }

    async fn store_answer(&self, key_request: &KeyRequest, answer: Option<StoredAnswer>) {
        let Some(answer) = answer else { return };
        let completed =
            CompletedCommand { key: key_request.key, fingerprint: key_request.fingerprint, answer };
        if let Err(error) = self.idempotency_store.complete(&completed).await {
            // The lease expires, and repetitions are answered from the log.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "could not store the answer under its idempotency key"
            );
        }
    }

    /// Releases the key if nothing was appended. If that is not certain, the key stays reserved until its lease
    /// expires, and the next owner searches for the event.
    async fn release_key(&self, key_request: &KeyRequest, error: &CommandError) {
        if !nothing_was_appended(error) {
            return;
        }
        if let Err(error) = self.idempotency_store.release(key_request.key, key_request.owner).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "could not release an idempotency key");
        }
    }
}

/// Reserves a key that no client uses, and releases it.
async fn probe_keys(store: &dyn IdempotencyStore) -> Result<(), IdempotencyStoreError> {
    let owner = LeaseOwner::random();
    let key = IdempotencyKeyId::derive("probe", "", &owner.0.to_string());
    store.reserve(&KeyRequest { key, fingerprint: fingerprint(&[]), owner, app: None }).await?;
    store.release(key, owner).await
}

/// The values of the label `outcome` of the metric `chat_commands_total`.
pub(crate) const OUTCOMES: [&str; 10] = [
    "recorded",
    "replayed",
    "rejected",
    "in_flight",
    "overloaded",
    "unavailable",
    "unknown",
    "truncated",
    "unreadable",
    "internal",
];

/// The value of the label `outcome` for this outcome.
fn outcome_label(outcome: &Result<CommandOutcome, CommandError>) -> &'static str {
    match outcome {
        Ok(CommandOutcome { execution: ExecutionKind::New, .. }) => "recorded",
        Ok(CommandOutcome { execution: ExecutionKind::Replayed, .. }) => "replayed",
        Err(CommandError::Rejected(_) | CommandError::KeyReused) => "rejected",
        Err(CommandError::KeyInFlight) => "in_flight",
        Err(CommandError::Overloaded) => "overloaded",
        Err(
            CommandError::EventStoreUnavailable(_)
            | CommandError::CountersUnavailable(_)
            | CommandError::IdempotencyStoreUnavailable(_),
        ) => "unavailable",
        Err(CommandError::OutcomeUnknown(_)) => "unknown",
        Err(CommandError::StreamTruncated(_)) => "truncated",
        Err(CommandError::UnreadableEvent(_)) => "unreadable",
        Err(CommandError::Internal(_)) => "internal",
    }
}

/// Whether it is certain that a failed command appended no event.
fn nothing_was_appended(error: &CommandError) -> bool {
    match error {
        CommandError::Rejected(_)
        | CommandError::Overloaded
        | CommandError::EventStoreUnavailable(_)
        | CommandError::CountersUnavailable(_)
        | CommandError::IdempotencyStoreUnavailable(_)
        | CommandError::KeyInFlight
        | CommandError::KeyReused => true,
        // A writer that stopped may have appended the event before it stopped. The event that can't be read, or that a
        // truncated stream has lost, may be this command's own.
        CommandError::OutcomeUnknown(_)
        | CommandError::Internal(_)
        | CommandError::StreamTruncated(_)
        | CommandError::UnreadableEvent(_) => false,
    }
}

/// Rebuilds the outcome of an earlier execution from the command and the stored answer.
fn outcome_from_answer(command: Command, answer: StoredAnswer) -> Result<CommandOutcome, CommandError> {
    let mismatched = || CommandError::Internal(Arc::new(MismatchedAnswer));
    let app = *command.stream().app();
    let (app, event) = match (command, answer.created) {
        (Command::CreateApp { name, .. }, CreatedId::App(app)) => (app, Event::from(AppCreated { name })),
        (Command::CreateChat { .. }, CreatedId::Number(number)) => {
            let chat_number = ChatNumber::try_from(number).map_err(|_| mismatched())?;
            (app, ChatCreated { chat_number }.into())
        }
        (Command::CreateMessage { body, sender, data, .. }, CreatedId::Number(number)) => {
            let message_number = MessageNumber::try_from(number).map_err(|_| mismatched())?;
            (app, MessageCreated { message_number, body, sender, data }.into())
        }
        _ => return Err(mismatched()),
    };
    Ok(CommandOutcome { event, position: answer.position, app, execution: ExecutionKind::Replayed })
}

/// The answer to store for later repetitions; `None` for commands that take no key.
fn answer_from_outcome(outcome: &CommandOutcome) -> Option<StoredAnswer> {
    let created = match &outcome.event {
        Event::AppCreated(_) => CreatedId::App(outcome.app),
        Event::ChatCreated(created) => CreatedId::Number(created.chat_number.get()),
        Event::MessageCreated(created) => CreatedId::Number(created.message_number.get()),
        Event::AppRenamed(_) | Event::MessageEdited(_) | Event::MessageDeleted(_) => return None,
    };
    Some(StoredAnswer { position: outcome.position, created })
}

fn idempotency_store_error(error: IdempotencyStoreError) -> CommandError {
    CommandError::IdempotencyStoreUnavailable(Arc::new(error))
}

fn event_store_error(error: EventStoreError) -> CommandError {
    match error {
        EventStoreError::StreamTruncated(stream) => CommandError::StreamTruncated(Arc::new(stream)),
        error => CommandError::EventStoreUnavailable(Arc::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use chat_ports::event_store::{TruncatedStream, TruncationCause};

    use super::*;

    #[test]
    fn a_search_in_a_truncated_stream_fails_with_stream_truncated() {
        let truncated = TruncatedStream { stream: "chat".into(), cause: TruncationCause::Deleted };
        let error = event_store_error(EventStoreError::StreamTruncated(truncated));
        assert!(matches!(error, CommandError::StreamTruncated(_)), "{error:?}");
    }
}
