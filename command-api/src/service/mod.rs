//! Commands that a client may send twice: carried out once, and answered the same each time.
//!
//! [`CommandService::handle`] reserves the command's key, passes the command to the writer, and keeps the answer. All of it
//! runs in a task of its own, so that a client that goes away leaves no key reserved. Whatever dies in between, and
//! whatever the store of reservations forgets, the log holds one event: the writer looks for it where a reservation does
//! not make sure that there is none.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated};
use chat_domain::metadata::{self, PayloadFingerprint};
use chat_domain::{ChatNumber, Event, MessageNumber, Metadata, Position, StreamId};
use chat_ports::event_store::EventStoreError;
use chat_ports::idempotency::{
    CompletedCommand, CreatedId, IdempotencyKeyId, IdempotencyStore, IdempotencyStoreError, KeyLease,
    KeyRequest, LeaseOwner, LogContent, LookupHint, RenewOutcome, ReserveOutcome, StoredAnswer, fingerprint,
};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::command::{AppendedEvent, Command, CommandError, CommandOutcome, ExecutionKind};
use crate::writer::{
    ClockReading, ExistingEvent, ExistingEventQuery, LeaseTimer, ReservedKey, WriterHandle,
    record_command_metric, replayed_outcome,
};

/// Renewals that a lease leaves time for. Two may fail in a row, if they fail at once.
const RENEWALS_PER_LEASE: u32 = 4;

/// Carries commands out, those with an idempotency key once. Cheap to clone.
#[derive(Clone)]
pub struct CommandService {
    writer: WriterHandle,
    idempotency_store: Arc<dyn IdempotencyStore>,
}

/// What a client's command is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintedKey {
    key: String,
    fingerprint: PayloadFingerprint,
}

impl FingerprintedKey {
    /// The client's key, and the payload that it came with.
    pub fn new(key: impl Into<String>, payload: impl AsRef<[u8]>) -> Self {
        Self { key: key.into(), fingerprint: fingerprint(payload.as_ref()) }
    }
}

/// A store that has just been told what to remember says that it remembers nothing.
#[derive(Debug, Error)]
#[error("the store of idempotency keys keeps losing its memory")]
struct IdempotencyStoreLosesState;

/// The command's task has ended without an answer.
#[derive(Debug, Error)]
#[error("carrying the command out panicked")]
struct ExecutionPanicked;

/// An answer was kept that is none to this command.
#[derive(Debug, Error)]
#[error("what was kept for the idempotency key is not the answer to this command")]
struct MismatchedAnswer;

impl CommandService {
    /// Commands go to `handler`, and their keys to `reservations`.
    pub fn new(writer: WriterHandle, idempotency_store: Arc<dyn IdempotencyStore>) -> Self {
        Self { writer, idempotency_store }
    }

    /// Where commands go that may be sent twice anyway.
    pub fn writer(&self) -> &WriterHandle {
        &self.writer
    }

    /// Lets the store of reservations begin to remember. To be called before the process takes commands: a store that
    /// begins while the log is empty never has to be in doubt. Where it fails, the first command with a key does it.
    pub async fn initialize_idempotency_store(&self) -> Result<(), CommandError> {
        let first =
            self.writer.event_store().read_all(Position::START, 1).await.map_err(event_store_error)?;
        let log = if first.is_empty() { LogContent::Empty } else { LogContent::HasEvents };
        self.idempotency_store.initialize(log).await.map_err(idempotency_store_error)
    }

    /// Carries a command out: when it returns `Ok`, the event is durable. A command with a key that was carried out
    /// before is not carried out again; [`CommandOutcome::when`] tells. `metadata` is recorded with the event.
    ///
    /// The command is carried out even where the future is dropped.
    pub async fn execute(
        &self,
        command: Command,
        mut metadata: Metadata,
        key: Option<FingerprintedKey>,
    ) -> Result<CommandOutcome, CommandError> {
        let name = command.name();
        let outcome = match (self.writer.try_acquire_permit(), key) {
            (Err(overloaded), _) => Err(overloaded),
            (Ok(room), None) => self.writer.submit(command, &metadata, None, room).await,
            (Ok(room), Some(FingerprintedKey { key, fingerprint })) => {
                metadata.idempotency = Some(metadata::IdempotencyMetadata { fingerprint });
                let (key, app) = match &command {
                    // A new app is on no stream yet: all clients share the keys of its creation.
                    Command::CreateApp { app, .. } => (IdempotencyKeyId::derive(name, "", &key), Some(*app)),
                    command => (IdempotencyKeyId::derive(name, &command.stream().to_string(), &key), None),
                };
                let wish = KeyRequest { key, fingerprint, owner: LeaseOwner::random(), app };
                let (answer, answered) = oneshot::channel();
                tokio::spawn(self.clone().execute_once(command, metadata, wish, room, answer));
                answered.await.unwrap_or_else(|_| Err(CommandError::Internal(Arc::new(ExecutionPanicked))))
            }
        };
        record_command_metric(name, &outcome);
        outcome
    }

    async fn execute_once(
        self,
        command: Command,
        metadata: Metadata,
        key_request: KeyRequest,
        permit: OwnedSemaphorePermit,
        reply_to: oneshot::Sender<Result<CommandOutcome, CommandError>>,
    ) {
        let began = ClockReading::now();
        let (grant, outcome) = match self.reserve(&key_request).await {
            Ok(ReserveOutcome::Granted(grant)) => {
                let command = command.with_app_token(grant.hint.app);
                let held = (began, grant);
                (Some(grant), self.execute_with_lease(command, &metadata, &key_request, held, permit).await)
            }
            Ok(ReserveOutcome::Completed(answer)) => (None, outcome_from_answer(command, answer)),
            Ok(ReserveOutcome::InFlight(trace)) => {
                let command = command.with_app_token(trace.app);
                (None, self.find_existing_outcome(&command.stream(), &key_request, trace).await)
            }
            Ok(ReserveOutcome::PayloadMismatch) => (None, Err(CommandError::KeyReused)),
            Ok(ReserveOutcome::NotInitialized) => {
                (None, Err(CommandError::IdempotencyStoreUnavailable(Arc::new(IdempotencyStoreLosesState))))
            }
            Err(error) => (None, Err(error)),
        };
        match (&outcome, grant) {
            // The client has its answer before the store has it: until then the log tells.
            (Ok(carried), Some(_)) => {
                let created = answer_from_outcome(carried);
                let _ = reply_to.send(outcome);
                self.store_answer(&key_request, created).await;
            }
            (Err(error), Some(_)) => {
                // A client that tries again at once must not meet its own reservation.
                self.release_key(&key_request, error).await;
                let _ = reply_to.send(outcome);
            }
            (_, None) => {
                let _ = reply_to.send(outcome);
            }
        }
    }

    async fn reserve(&self, wish: &KeyRequest) -> Result<ReserveOutcome, CommandError> {
        match self.idempotency_store.reserve(wish).await.map_err(idempotency_store_error)? {
            ReserveOutcome::NotInitialized => {
                self.initialize_idempotency_store().await?;
                self.idempotency_store.reserve(wish).await.map_err(idempotency_store_error)
            }
            reserved => Ok(reserved),
        }
    }

    async fn execute_with_lease(
        &self,
        command: Command,
        metadata: &Metadata,
        key_request: &KeyRequest,
        (began, grant): (ClockReading, KeyLease),
        permit: OwnedSemaphorePermit,
    ) -> Result<CommandOutcome, CommandError> {
        let terms = self.idempotency_store.terms();
        let lease = LeaseTimer::new(began, terms.lease);
        let keyed = ReservedKey::new(
            key_request.key,
            key_request.fingerprint,
            &grant,
            lease.clone(),
            terms.retention,
        );
        tokio::select! {
            outcome = self.writer.submit(command, metadata, Some(keyed), permit) => outcome,
            never = self.renew_lease(key_request, &lease, terms.lease / RENEWALS_PER_LEASE) => match never {},
        }
    }

    /// Renews a lease for as long as it is polled.
    async fn renew_lease(
        &self,
        wish: &KeyRequest,
        lease: &LeaseTimer,
        pause: Duration,
    ) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(pause).await;
            let began = ClockReading::now();
            match self.idempotency_store.renew(wish.key, wish.owner).await {
                Ok(RenewOutcome::Held) => lease.record_renewal(began),
                Ok(RenewOutcome::Lost) => {
                    lease.record_loss();
                    return std::future::pending().await;
                }
                // The lease may run out meanwhile; then the writer looks for the event.
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a lease could not be renewed");
                }
            }
        }
    }

    /// The answer where somebody else's event is in the log already.
    async fn find_existing_outcome(
        &self,
        stream: &StreamId,
        wish: &KeyRequest,
        trace: LookupHint,
    ) -> Result<CommandOutcome, CommandError> {
        let lookup = ExistingEventQuery {
            key: wish.key,
            generation: 0,
            stream: stream.to_string().into(),
            not_before: trace.since,
            key_retention: self.idempotency_store.terms().retention,
            now: self.writer.now(),
        };
        match lookup.find_existing_event(&**self.writer.event_store()).await.map_err(event_store_error)? {
            ExistingEvent::Present(event) => replayed_outcome(&event, wish.fingerprint),
            ExistingEvent::Absent { .. } => Err(CommandError::KeyInFlight),
        }
    }

    async fn store_answer(&self, wish: &KeyRequest, answer: Option<StoredAnswer>) {
        let Some(answer) = answer else { return };
        let done = CompletedCommand { key: wish.key, fingerprint: wish.fingerprint, answer };
        if let Err(error) = self.idempotency_store.complete(&done).await {
            // The lease runs out, and the log tells whoever comes next.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "an answer could not be kept under its key"
            );
        }
    }

    /// Gives the key back where nothing was appended. Where that is not certain, the key stays reserved until its lease
    /// has run out: whoever takes it over looks for the event.
    async fn release_key(&self, wish: &KeyRequest, error: &CommandError) {
        if !nothing_was_appended(error) {
            return;
        }
        if let Err(error) = self.idempotency_store.release(wish.key, wish.owner).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a key could not be given back");
        }
    }
}

/// Whether it is certain that a failed command left no event.
fn nothing_was_appended(error: &CommandError) -> bool {
    match error {
        CommandError::Rejected(_)
        | CommandError::Overloaded
        | CommandError::EventStoreUnavailable(_)
        | CommandError::CountersUnavailable(_)
        | CommandError::IdempotencyStoreUnavailable(_)
        | CommandError::KeyInFlight
        | CommandError::KeyReused => true,
        // A writer that broke down may have appended before.
        CommandError::OutcomeUnknown(_) | CommandError::Internal(_) => false,
    }
}

/// What was answered to a command that was carried out before: the rest of it follows from the command.
fn outcome_from_answer(command: Command, answer: StoredAnswer) -> Result<CommandOutcome, CommandError> {
    let other = || CommandError::Internal(Arc::new(MismatchedAnswer));
    let app = *command.stream().app();
    let (app, event) = match (command, answer.created) {
        (Command::CreateApp { name, .. }, CreatedId::App(app)) => (app, Event::from(AppCreated { name })),
        (Command::CreateChat { .. }, CreatedId::Number(number)) => {
            let chat_number = ChatNumber::try_from(number).map_err(|_| other())?;
            (app, ChatCreated { chat_number }.into())
        }
        (Command::CreateMessage { body, .. }, CreatedId::Number(number)) => {
            let message_number = MessageNumber::try_from(number).map_err(|_| other())?;
            (app, MessageCreated { message_number, body }.into())
        }
        _ => return Err(other()),
    };
    Ok(CommandOutcome {
        appended: AppendedEvent { event, position: answer.position },
        app,
        execution: ExecutionKind::Replayed,
    })
}

fn answer_from_outcome(carried: &CommandOutcome) -> Option<StoredAnswer> {
    let created = match &carried.appended.event {
        Event::AppCreated(_) => CreatedId::App(carried.app),
        Event::ChatCreated(created) => CreatedId::Number(created.chat_number.get()),
        Event::MessageCreated(created) => CreatedId::Number(created.message_number.get()),
        Event::AppRenamed(_) | Event::MessageEdited(_) | Event::MessageDeleted(_) => return None,
    };
    Some(StoredAnswer { position: carried.appended.position, created })
}

fn idempotency_store_error(error: IdempotencyStoreError) -> CommandError {
    CommandError::IdempotencyStoreUnavailable(Arc::new(error))
}

fn event_store_error(error: EventStoreError) -> CommandError {
    if error.is_retryable() {
        CommandError::EventStoreUnavailable(Arc::new(error))
    } else {
        CommandError::Internal(Arc::new(error))
    }
}
