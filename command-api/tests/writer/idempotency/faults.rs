//! What may go wrong between a process and its log, and between it and the store of reservations.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chat_domain::Position;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, LogId, RecordedEvent, StreamAppend,
    StreamRead, Subscription,
};
use chat_ports::idempotency::{
    CompletedCommand, IdempotencyKeyId, IdempotencyStore, IdempotencyStoreError, IdempotencyTerms,
    KeyRequest, LeaseOwner, LogContent, RenewOutcome, ReserveOutcome,
};
use tokio::sync::{Notify, watch};

use super::soon;

/// What happens to an append.
#[derive(Clone, Debug, Default)]
pub enum AppendFault {
    #[default]
    None,
    /// It does not arrive.
    Refused,
    /// It arrives, and the answer does not.
    AnswerLost,
    /// It arrives, and there is never an answer, as where the process died at that moment.
    Stored,
    /// It never arrives, as where the process died before.
    NeverSent,
    /// It is on its way until the signal, and its outcome is told then.
    HeldUntil(Arc<Notify>),
    /// It is on its way until the signal, and its outcome is told as unknown at once.
    Late(Arc<Notify>),
}

/// A real log behind faults.
pub struct FaultyLog {
    log: Arc<dyn EventStore>,
    held_up: watch::Sender<usize>,
    next: Mutex<Box<dyn FnMut() -> AppendFault + Send>>,
    next_read: Mutex<Box<dyn FnMut() -> Option<Arc<Notify>> + Send>>,
}

impl FaultyLog {
    pub fn on(log: Arc<dyn EventStore>) -> Self {
        let held_up = watch::Sender::new(0);
        let next = Mutex::new(Box::new(|| AppendFault::None) as Box<_>);
        Self { log, held_up, next, next_read: Mutex::new(Box::new(|| None)) }
    }

    /// The next read of a stream does not arrive before the signal.
    pub fn hold_next_read(&self, signal: Arc<Notify>) {
        let mut signal = Some(signal);
        self.hold_each_read(move || signal.take());
    }

    /// Each read of a stream waits for this, if anything.
    pub fn hold_each_read(&self, next: impl FnMut() -> Option<Arc<Notify>> + Send + 'static) {
        *self.next_read.lock().unwrap() = Box::new(next);
    }

    /// Waits until an append or a read is held up, or will never be answered.
    pub async fn until_held_up(&self) {
        soon(self.held_up.subscribe().wait_for(|held_up| *held_up > 0)).await.unwrap();
    }

    fn note_held_up(&self) {
        self.held_up.send_modify(|held_up| *held_up += 1);
    }

    /// From now on, every append meets this.
    pub fn always(&self, fault: AppendFault) {
        self.each(move || fault.clone());
    }

    /// The next append meets this.
    pub fn once(&self, fault: AppendFault) {
        let mut fault = Some(fault);
        self.each(move || fault.take().unwrap_or_default());
    }

    /// Each append meets what this says.
    pub fn each(&self, next: impl FnMut() -> AppendFault + Send + 'static) {
        *self.next.lock().unwrap() = Box::new(next);
    }
}

fn unknown(count: usize) -> Vec<Result<AppendReceipt, AppendError>> {
    (0..count).map(|_| Err(AppendError::OutcomeUnknown("cut off".into()))).collect()
}

#[async_trait]
impl EventStore for FaultyLog {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.log.log_id().await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let count = appends.len();
        let fault = self.next.lock().unwrap()();
        match fault {
            AppendFault::None => self.log.append(appends).await,
            AppendFault::Refused => {
                (0..count).map(|_| Err(AppendError::Unavailable("away".into()))).collect()
            }
            AppendFault::AnswerLost => {
                self.log.append(appends).await;
                unknown(count)
            }
            AppendFault::Stored => {
                self.log.append(appends).await;
                self.note_held_up();
                std::future::pending().await
            }
            AppendFault::NeverSent => {
                self.note_held_up();
                std::future::pending().await
            }
            AppendFault::HeldUntil(signal) => {
                self.note_held_up();
                signal.notified().await;
                self.log.append(appends).await
            }
            AppendFault::Late(signal) => {
                let log = Arc::clone(&self.log);
                tokio::spawn(async move {
                    signal.notified().await;
                    log.append(appends).await
                });
                unknown(count)
            }
        }
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let held = self.next_read.lock().unwrap()();
        if let Some(signal) = held {
            self.note_held_up();
            signal.notified().await;
        }
        self.log.read_stream(read).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_all(after, limit).await
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_all_backwards(before, limit).await
    }

    async fn find_event(&self, wanted: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.log.find_event(wanted).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.log.head().await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.log.subscribe(after).await
    }

    fn has_contiguous_positions(&self) -> bool {
        self.log.has_contiguous_positions()
    }
}

/// What happens to a call to the store of reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallFault {
    #[default]
    None,
    /// It does not arrive.
    Away,
    /// It arrives, and the answer does not.
    AnswerLost,
}

/// A real store of reservations behind faults.
pub struct FaultyKeys {
    keys: Arc<dyn IdempotencyStore>,
    reserved: watch::Sender<usize>,
    next: Mutex<Box<dyn FnMut() -> CallFault + Send>>,
}

impl FaultyKeys {
    pub fn on(keys: Arc<dyn IdempotencyStore>) -> Self {
        let reserved = watch::Sender::new(0);
        Self { keys, reserved, next: Mutex::new(Box::new(|| CallFault::None)) }
    }

    /// Waits until so many wishes were answered.
    pub async fn until_reserved(&self, count: usize) {
        soon(self.reserved.subscribe().wait_for(|reserved| *reserved >= count)).await.unwrap();
    }

    /// From now on, every call meets this.
    pub fn always(&self, fault: CallFault) {
        self.each(move || fault);
    }

    /// Each call meets what this says.
    pub fn each(&self, next: impl FnMut() -> CallFault + Send + 'static) {
        *self.next.lock().unwrap() = Box::new(next);
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, IdempotencyStoreError>>,
    ) -> Result<T, IdempotencyStoreError> {
        let away = || IdempotencyStoreError("away".into());
        let fault = self.next.lock().unwrap()();
        match fault {
            CallFault::None => call.await,
            CallFault::Away => Err(away()),
            CallFault::AnswerLost => call.await.and(Err(away())),
        }
    }
}

#[async_trait]
impl IdempotencyStore for FaultyKeys {
    fn terms(&self) -> IdempotencyTerms {
        self.keys.terms()
    }

    async fn initialize(&self, log: LogContent) -> Result<(), IdempotencyStoreError> {
        self.call(self.keys.initialize(log)).await
    }

    async fn reserve(&self, wish: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError> {
        let reserved = self.call(self.keys.reserve(wish)).await;
        self.reserved.send_modify(|reserved| *reserved += 1);
        reserved
    }

    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError> {
        self.call(self.keys.renew(key, owner)).await
    }

    async fn complete(&self, done: &CompletedCommand) -> Result<(), IdempotencyStoreError> {
        self.call(self.keys.complete(done)).await
    }

    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError> {
        self.call(self.keys.release(key, owner)).await
    }
}
