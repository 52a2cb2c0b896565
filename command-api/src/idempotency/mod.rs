//! Commands that a client may send twice: carried out once, and answered the same each time.
//!
//! [`Idempotency::handle`] reserves the command's key, passes the command to the writer, and keeps the answer. All of it
//! runs in a task of its own, so that a client that goes away leaves no key reserved. Whatever dies in between, and
//! whatever the store of reservations forgets, the log holds one event: the writer looks for it where a reservation does
//! not make sure that there is none.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated};
use chat_domain::metadata::{self, Fingerprint};
use chat_domain::{ChatNumber, Event, MessageNumber, Metadata, Position, StreamId};
use chat_ports::event_store::EventStoreError;
use chat_ports::idempotency::{
    Answer, Created, Done, Grant, KeyId, LogIs, Owner, Renewed, Reservations, ReservationsError, Reserved,
    Trace, Wish, fingerprint,
};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::command::{Carried, Command, CommandError, Recorded, When};
use crate::writer::{Began, CommandHandler, Keyed, Lease, Lookup, Sighting, carried_before, count};

/// Renewals that a lease leaves time for. Two may fail in a row, if they fail at once.
const RENEWALS_A_LEASE: u32 = 4;

/// Carries commands out, those with an idempotency key once. Cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    handler: CommandHandler,
    reservations: Arc<dyn Reservations>,
}

/// What a client's command is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    key: String,
    fingerprint: Fingerprint,
}

impl RequestKey {
    /// The client's key, and the payload that it came with.
    pub fn new(key: impl Into<String>, payload: impl AsRef<[u8]>) -> Self {
        Self { key: key.into(), fingerprint: fingerprint(payload.as_ref()) }
    }
}

/// A store that has just been told what to remember says that it remembers nothing.
#[derive(Debug, Error)]
#[error("the store of idempotency keys keeps losing its memory")]
struct KeepsForgetting;

/// The command's task has ended without an answer.
#[derive(Debug, Error)]
#[error("carrying the command out panicked")]
struct Panicked;

/// An answer was kept that is none to this command.
#[derive(Debug, Error)]
#[error("what was kept for the idempotency key is not the answer to this command")]
struct OtherAnswer;

impl Idempotency {
    /// Commands go to `handler`, and their keys to `reservations`.
    pub fn new(handler: CommandHandler, reservations: Arc<dyn Reservations>) -> Self {
        Self { handler, reservations }
    }

    /// Where commands go that may be sent twice anyway.
    pub fn handler(&self) -> &CommandHandler {
        &self.handler
    }

    /// Lets the store of reservations begin to remember. To be called before the process takes commands: a store that
    /// begins while the log is empty never has to be in doubt. Where it fails, the first command with a key does it.
    pub async fn begin(&self) -> Result<(), CommandError> {
        let first = self.handler.event_store().read_all(Position::START, 1).await.map_err(unreadable)?;
        let log = if first.is_empty() { LogIs::Empty } else { LogIs::Begun };
        self.reservations.begin(log).await.map_err(unavailable)
    }

    /// Carries a command out: when it returns `Ok`, the event is durable. A command with a key that was carried out
    /// before is not carried out again; [`Carried::when`] tells. `metadata` is recorded with the event.
    ///
    /// The command is carried out even where the future is dropped.
    pub async fn handle(
        &self,
        command: Command,
        mut metadata: Metadata,
        key: Option<RequestKey>,
    ) -> Result<Carried, CommandError> {
        let name = command.name();
        let outcome = match (self.handler.room(), key) {
            (Err(overloaded), _) => Err(overloaded),
            (Ok(room), None) => self.handler.carry_out(command, &metadata, None, room).await,
            (Ok(room), Some(RequestKey { key, fingerprint })) => {
                metadata.idempotency = Some(metadata::Idempotency { fingerprint });
                let (key, app) = match &command {
                    // A new app is on no stream yet: all clients share the keys of its creation.
                    Command::CreateApp { app, .. } => (KeyId::of(name, "", &key), Some(*app)),
                    command => (KeyId::of(name, &command.stream().to_string(), &key), None),
                };
                let wish = Wish { key, fingerprint, owner: Owner::draw(), app };
                let (answer, answered) = oneshot::channel();
                tokio::spawn(self.clone().carry_out_once(command, metadata, wish, room, answer));
                answered.await.unwrap_or_else(|_| Err(CommandError::Internal(Arc::new(Panicked))))
            }
        };
        count(name, &outcome);
        outcome
    }

    async fn carry_out_once(
        self,
        command: Command,
        metadata: Metadata,
        wish: Wish,
        room: OwnedSemaphorePermit,
        answer: oneshot::Sender<Result<Carried, CommandError>>,
    ) {
        let began = Began::now();
        let (grant, outcome) = match self.reserve(&wish).await {
            Ok(Reserved::Granted(grant)) => {
                let command = command.with_app(grant.trace.app);
                let held = (began, grant);
                (Some(grant), self.hold_and_carry_out(command, &metadata, &wish, held, room).await)
            }
            Ok(Reserved::Done(answer)) => (None, replay(command, answer)),
            Ok(Reserved::InFlight(trace)) => {
                let command = command.with_app(trace.app);
                (None, self.look(&command.stream(), &wish, trace).await)
            }
            Ok(Reserved::OtherPayload) => (None, Err(CommandError::KeyReused)),
            Ok(Reserved::NoMemory) => (None, Err(CommandError::KeysUnavailable(Arc::new(KeepsForgetting)))),
            Err(error) => (None, Err(error)),
        };
        match (&outcome, grant) {
            // The client has its answer before the store has it: until then the log tells.
            (Ok(carried), Some(_)) => {
                let created = answer_of(carried);
                let _ = answer.send(outcome);
                self.keep(&wish, created).await;
            }
            (Err(error), Some(_)) => {
                // A client that tries again at once must not meet its own reservation.
                self.give_back(&wish, error).await;
                let _ = answer.send(outcome);
            }
            (_, None) => {
                let _ = answer.send(outcome);
            }
        }
    }

    async fn reserve(&self, wish: &Wish) -> Result<Reserved, CommandError> {
        match self.reservations.reserve(wish).await.map_err(unavailable)? {
            Reserved::NoMemory => {
                self.begin().await?;
                self.reservations.reserve(wish).await.map_err(unavailable)
            }
            reserved => Ok(reserved),
        }
    }

    async fn hold_and_carry_out(
        &self,
        command: Command,
        metadata: &Metadata,
        wish: &Wish,
        (began, grant): (Began, Grant),
        room: OwnedSemaphorePermit,
    ) -> Result<Carried, CommandError> {
        let terms = self.reservations.terms();
        let lease = Lease::new(began, terms.lease);
        let keyed = Keyed::new(wish.key, wish.fingerprint, &grant, lease.clone(), terms.kept);
        tokio::select! {
            outcome = self.handler.carry_out(command, metadata, Some(keyed), room) => outcome,
            never = self.renew(wish, &lease, terms.lease / RENEWALS_A_LEASE) => match never {},
        }
    }

    /// Renews a lease for as long as it is polled.
    async fn renew(&self, wish: &Wish, lease: &Lease, pause: Duration) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(pause).await;
            let began = Began::now();
            match self.reservations.renew(wish.key, wish.owner).await {
                Ok(Renewed::Held) => lease.renewed(began),
                Ok(Renewed::Lost) => {
                    lease.lost();
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
    async fn look(&self, stream: &StreamId, wish: &Wish, trace: Trace) -> Result<Carried, CommandError> {
        let lookup = Lookup {
            key: wish.key,
            generation: 0,
            stream: stream.to_string().into(),
            since: trace.since,
            kept: self.reservations.terms().kept,
            now: self.handler.now(),
        };
        match lookup.run(&**self.handler.event_store()).await.map_err(unreadable)? {
            Sighting::Found(event) => carried_before(&event, wish.fingerprint),
            Sighting::Absent { .. } => Err(CommandError::KeyInFlight),
        }
    }

    async fn keep(&self, wish: &Wish, answer: Option<Answer>) {
        let Some(answer) = answer else { return };
        let done = Done { key: wish.key, fingerprint: wish.fingerprint, answer };
        if let Err(error) = self.reservations.complete(&done).await {
            // The lease runs out, and the log tells whoever comes next.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "an answer could not be kept under its key"
            );
        }
    }

    /// Gives the key back where nothing was appended. Where that is not certain, the key stays reserved until its lease
    /// has run out: whoever takes it over looks for the event.
    async fn give_back(&self, wish: &Wish, error: &CommandError) {
        if !nothing_was_appended(error) {
            return;
        }
        if let Err(error) = self.reservations.release(wish.key, wish.owner).await {
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
        | CommandError::KeysUnavailable(_)
        | CommandError::KeyInFlight
        | CommandError::KeyReused => true,
        // A writer that broke down may have appended before.
        CommandError::OutcomeUnknown(_) | CommandError::Internal(_) => false,
    }
}

/// What was answered to a command that was carried out before: the rest of it follows from the command.
fn replay(command: Command, answer: Answer) -> Result<Carried, CommandError> {
    let other = || CommandError::Internal(Arc::new(OtherAnswer));
    let app = *command.stream().app();
    let (app, event) = match (command, answer.created) {
        (Command::CreateApp { name, .. }, Created::App(app)) => (app, Event::from(AppCreated { name })),
        (Command::CreateChat { .. }, Created::Number(number)) => {
            let chat_number = ChatNumber::try_from(number).map_err(|_| other())?;
            (app, ChatCreated { chat_number }.into())
        }
        (Command::CreateMessage { body, .. }, Created::Number(number)) => {
            let message_number = MessageNumber::try_from(number).map_err(|_| other())?;
            (app, MessageCreated { message_number, body }.into())
        }
        _ => return Err(other()),
    };
    Ok(Carried { recorded: Recorded { event, position: answer.position }, app, when: When::Before })
}

fn answer_of(carried: &Carried) -> Option<Answer> {
    let created = match &carried.recorded.event {
        Event::AppCreated(_) => Created::App(carried.app),
        Event::ChatCreated(created) => Created::Number(created.chat_number.get()),
        Event::MessageCreated(created) => Created::Number(created.message_number.get()),
        Event::AppRenamed(_) | Event::MessageEdited(_) | Event::MessageDeleted(_) => return None,
    };
    Some(Answer { position: carried.recorded.position, created })
}

fn unavailable(error: ReservationsError) -> CommandError {
    CommandError::KeysUnavailable(Arc::new(error))
}

fn unreadable(error: EventStoreError) -> CommandError {
    if error.retryable() {
        CommandError::EventStoreUnavailable(Arc::new(error))
    } else {
        CommandError::Internal(Arc::new(error))
    }
}
