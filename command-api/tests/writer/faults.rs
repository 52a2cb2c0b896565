//! Fault injection between a process and its log, and between a process and the idempotency store.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chat_domain::Position;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription,
};
use chat_ports::idempotency::{
    CompletedCommand, IdempotencyKeyId, IdempotencyStore, IdempotencyStoreError, IdempotencyTerms,
    KeyRequest, LeaseOwner, LogContent, RenewOutcome, ReserveOutcome,
};
use tokio::sync::{Notify, watch};

use crate::test_log::within_timeout;

/// A fault of an append.
#[derive(Clone, Debug, Default)]
pub enum AppendFault {
    #[default]
    None,
    /// The event store refuses the append.
    Refused,
    /// The append is stored, and its response is lost.
    ResponseLost,
    /// The append is stored and never returns, as if the process died after its append.
    HangsAfterStoring,
    /// The append is not stored and never returns, as if the process died before its append.
    HangsBeforeStoring,
    /// The append waits for the signal. Then it is stored, and returns.
    HeldUntil(Arc<Notify>),
    /// The append returns an unknown outcome at once, and is stored after the signal.
    Late(Arc<Notify>),
}

/// A log with injected faults.
pub struct FaultyLog {
    log: Arc<dyn EventStore>,
    /// The number of appends that were held or hang, and of reads that were held.
    held_count: watch::Sender<usize>,
    /// Returns the fault of the next append.
    next_fault: Mutex<Box<dyn FnMut() -> AppendFault + Send>>,
    /// Returns the signal for which the next read of a stream waits, if it has to wait.
    next_read_signal: Mutex<Box<dyn FnMut() -> Option<Arc<Notify>> + Send>>,
}

impl FaultyLog {
    pub fn on(log: Arc<dyn EventStore>) -> Self {
        let held_count = watch::Sender::new(0);
        let next_fault = Mutex::new(Box::new(|| AppendFault::None) as Box<_>);
        Self { log, held_count, next_fault, next_read_signal: Mutex::new(Box::new(|| None)) }
    }

    /// Holds the next read of a stream until the signal.
    pub fn hold_next_read(&self, signal: Arc<Notify>) {
        let mut signal = Some(signal);
        self.hold_each_read(move || signal.take());
    }

    /// Holds each read of a stream until the signal that `next` returns, if it returns one.
    pub fn hold_each_read(&self, next: impl FnMut() -> Option<Arc<Notify>> + Send + 'static) {
        *self.next_read_signal.lock().unwrap() = Box::new(next);
    }

    /// Waits until an append is held or hangs, or a read is held. Returns at once if this has happened before.
    pub async fn until_held(&self) {
        within_timeout(self.held_count.subscribe().wait_for(|count| *count > 0)).await.unwrap();
    }

    fn record_held(&self) {
        self.held_count.send_modify(|count| *count += 1);
    }

    /// Injects this fault into every append from now on.
    pub fn inject_always(&self, fault: AppendFault) {
        self.inject_each(move || fault.clone());
    }

    /// Injects this fault into the next append.
    pub fn inject_once(&self, fault: AppendFault) {
        let mut fault = Some(fault);
        self.inject_each(move || fault.take().unwrap_or_default());
    }

    /// Injects the fault that `next` returns into each append.
    pub fn inject_each(&self, next: impl FnMut() -> AppendFault + Send + 'static) {
        *self.next_fault.lock().unwrap() = Box::new(next);
    }
}

fn unknown_outcomes(count: usize) -> Vec<Result<AppendReceipt, AppendError>> {
    (0..count).map(|_| Err(AppendError::OutcomeUnknown("cut off".into()))).collect()
}

#[async_trait]
impl EventStore for FaultyLog {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.log.log_id().await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.log.lineage().await
    }

    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.log.begin_incarnation(incarnation).await
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        self.log.verify_identity().await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let count = appends.len();
        let fault = self.next_fault.lock().unwrap()();
        match fault {
            AppendFault::None => self.log.append(appends).await,
            AppendFault::Refused => {
                (0..count).map(|_| Err(AppendError::Unavailable("away".into()))).collect()
            }
            AppendFault::ResponseLost => {
                self.log.append(appends).await;
                unknown_outcomes(count)
            }
            AppendFault::HangsAfterStoring => {
                self.log.append(appends).await;
                self.record_held();
                std::future::pending().await
            }
            AppendFault::HangsBeforeStoring => {
                self.record_held();
                std::future::pending().await
            }
            AppendFault::HeldUntil(signal) => {
                self.record_held();
                signal.notified().await;
                self.log.append(appends).await
            }
            AppendFault::Late(signal) => {
                let log = Arc::clone(&self.log);
                tokio::spawn(async move {
                    signal.notified().await;
                    log.append(appends).await
                });
                unknown_outcomes(count)
            }
        }
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let signal = self.next_read_signal.lock().unwrap()();
        if let Some(signal) = signal {
            self.record_held();
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

/// A fault of a call to the idempotency store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallFault {
    #[default]
    None,
    /// The store is unavailable.
    Unavailable,
    /// The call takes effect, and its response is lost.
    ResponseLost,
}

/// A real idempotency store with injected faults.
pub struct FaultyIdempotencyStore {
    store: Arc<dyn IdempotencyStore>,
    /// The number of answered reservations.
    reservation_count: watch::Sender<usize>,
    /// The number of successful renewals of leases.
    renewal_count: watch::Sender<usize>,
    /// Returns the fault of the next call.
    next_fault: Mutex<Box<dyn FnMut() -> CallFault + Send>>,
}

impl FaultyIdempotencyStore {
    pub fn on(store: Arc<dyn IdempotencyStore>) -> Self {
        let (reservation_count, renewal_count) = (watch::Sender::new(0), watch::Sender::new(0));
        let next_fault = Mutex::new(Box::new(|| CallFault::None) as Box<_>);
        Self { store, reservation_count, renewal_count, next_fault }
    }

    /// Waits until this number of reservations has been answered.
    pub async fn until_reserved(&self, count: usize) {
        within_timeout(self.reservation_count.subscribe().wait_for(|answered| *answered >= count))
            .await
            .unwrap();
    }

    /// Waits until leases have been renewed this many times.
    pub async fn until_renewed(&self, count: usize) {
        within_timeout(self.renewal_count.subscribe().wait_for(|renewed| *renewed >= count)).await.unwrap();
    }

    /// Injects this fault into every call from now on.
    pub fn inject_always(&self, fault: CallFault) {
        self.inject_each(move || fault);
    }

    /// Injects the fault that `next` returns into each call.
    pub fn inject_each(&self, next: impl FnMut() -> CallFault + Send + 'static) {
        *self.next_fault.lock().unwrap() = Box::new(next);
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, IdempotencyStoreError>>,
    ) -> Result<T, IdempotencyStoreError> {
        let unavailable = || IdempotencyStoreError("away".into());
        let fault = self.next_fault.lock().unwrap()();
        match fault {
            CallFault::None => call.await,
            CallFault::Unavailable => Err(unavailable()),
            CallFault::ResponseLost => call.await.and(Err(unavailable())),
        }
    }
}

#[async_trait]
impl IdempotencyStore for FaultyIdempotencyStore {
    fn terms(&self) -> IdempotencyTerms {
        self.store.terms()
    }

    async fn initialize(&self, log: LogContent) -> Result<(), IdempotencyStoreError> {
        self.call(self.store.initialize(log)).await
    }

    async fn reserve(&self, request: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError> {
        let outcome = self.call(self.store.reserve(request)).await;
        self.reservation_count.send_modify(|count| *count += 1);
        outcome
    }

    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError> {
        let outcome = self.call(self.store.renew(key, owner)).await;
        if matches!(outcome, Ok(RenewOutcome::Held)) {
            self.renewal_count.send_modify(|count| *count += 1);
        }
        outcome
    }

    async fn complete(&self, completed: &CompletedCommand) -> Result<(), IdempotencyStoreError> {
        self.call(self.store.complete(completed)).await
    }

    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError> {
        self.call(self.store.release(key, owner)).await
    }
}
