//! Appends: one call of the SQL function `chat_event_log.append` for a batch, in one round trip and one transaction.

use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};

use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Revision};
use chat_sql::row::to_sql_int;
use sqlx::postgres::{PgBindIterExt as _, PgRow};
use sqlx::{Row as _, query};
use uuid::Uuid;

use super::call_error::CallError;
use super::server::{LogServer, RetryTimer, Statement};
use chat_ports::event_store::{AppendError, AppendReceipt, LogId, StreamAppend};

/// The largest number of appends in one transaction.
const MAX_APPENDS_PER_TRANSACTION: usize = 4_096;

/// The largest size of the events in one transaction, unless a single append is larger.
const MAX_BYTES_PER_TRANSACTION: usize = 16 << 20;

/// The state of the log as a handle knows it. Each append sends it, and the server refuses the append if the log is of
/// another incarnation or lacks the event that was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownLog {
    /// The incarnation that this handle appends to.
    pub(super) incarnation: LogId,
    /// The position and id of the last event that this handle has appended or found at the head. A log that lost its
    /// end no longer has this event.
    pub(super) seen: Option<(Position, EventId)>,
}

impl KnownLog {
    /// The position and the id of an event that was seen, as statements take them: zeros for none.
    pub(super) fn seen_params(seen: Option<(Position, EventId)>) -> (i64, Uuid) {
        seen.map_or((0, Uuid::nil()), |(position, id)| (to_sql_int(position.get()), id.uuid()))
    }

    /// Records that the log has an event; keeps the one with the highest position.
    pub(super) fn record_seen(&mut self, position: Position, id: EventId) {
        if self.seen.is_none_or(|(seen, _)| position > seen) {
            self.seen = Some((position, id));
        }
    }
}

/// The row that the SQL function `append` returns.
struct AppendRow {
    /// The head before the call.
    old_head: i64,
    /// For each append, whether this call stored it. No vector for a batch without appends.
    stored_now: Option<Vec<bool>>,
    /// For each append, the position of its last event if an earlier call stored it. No vector if this call stored all
    /// appends.
    stored_earlier: Option<Vec<Option<i64>>>,
}

impl AppendRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self { old_head: row.try_get(0)?, stored_now: row.try_get(1)?, stored_earlier: row.try_get(2)? })
    }
}

type AppendResult = Result<AppendReceipt, AppendError>;

/// A transaction that stored nothing, or whose outcome is unknown.
struct FailedTransaction {
    /// The error of each append.
    error: AppendError,
    /// Whether the server did not answer or could not append now, until the end of the retries.
    is_server_away: bool,
}

impl LogServer {
    /// Appends each item to its stream, in as few transactions as the limits allow. Updates `known`.
    pub(super) async fn append(
        &self,
        appends: Vec<StreamAppend>,
        known: &Mutex<KnownLog>,
    ) -> Vec<AppendResult> {
        let mut results = Vec::with_capacity(appends.len());
        let mut rest = &appends[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            results.extend(self.append_batch(batch, known).await);
            rest = after;
        }
        results
    }

    /// Makes a durable write without an event.
    pub(super) async fn probe(&self, known: &Mutex<KnownLog>) -> Result<(), AppendError> {
        self.append_in_transaction(&[], known).await.map(drop).map_err(|failed| failed.error)
    }

    async fn append_batch(&self, batch: &[StreamAppend], known: &Mutex<KnownLog>) -> Vec<AppendResult> {
        match self.append_in_transaction(batch, known).await {
            Ok(results) => results,
            // One of the event ids is stored already. The appends are repeated one by one, so that only the append with
            // this id fails.
            Err(FailedTransaction { error: AppendError::Conflict, .. }) if batch.len() > 1 => {
                let mut results = Vec::with_capacity(batch.len());
                for append in batch {
                    match self.append_in_transaction(std::slice::from_ref(append), known).await {
                        Ok(mut appended) => {
                            results.push(appended.pop().unwrap_or(Err(AppendError::Conflict)));
                        }
                        Err(failed) if !failed.is_server_away => results.push(Err(failed.error)),
                        // Each further append would wait for the server as long as this one did.
                        Err(failed) => {
                            results.push(Err(failed.error));
                            let not_sent =
                                AppendError::Unavailable("the server went away before this append".into());
                            results.extend(error_of_each(not_sent, batch.len() - results.len()));
                            break;
                        }
                    }
                }
                results
            }
            Err(failed) => error_of_each(failed.error, batch.len()),
        }
    }

    /// Appends in one transaction, and repeats it after a retryable error: the SQL function recognizes events that an
    /// earlier attempt stored. Fails with [`AppendError::Conflict`] if an event id is already stored elsewhere.
    async fn append_in_transaction(
        &self,
        batch: &[StreamAppend],
        known: &Mutex<KnownLog>,
    ) -> Result<Vec<AppendResult>, FailedTransaction> {
        let mut retry_timer = RetryTimer::start();
        let mut may_be_stored = false;
        loop {
            let log = *known.lock().unwrap_or_else(PoisonError::into_inner);
            let failed = match self.attempt(&self.appends, call_append(log, batch)).await {
                Ok(rows) => {
                    let row = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(AppendRow::from_row);
                    // The transaction is committed. If its row can't be read, it is unknown which appends it stored.
                    return match row {
                        Ok(row) => Ok(receipts(batch, &row, known)),
                        Err(error) => Err(FailedTransaction {
                            error: AppendError::OutcomeUnknown(CallError::from(error).into()),
                            is_server_away: false,
                        }),
                    };
                }
                Err(failed) => failed,
            };
            may_be_stored |= failed.was_sent && failed.error.leaves_outcome_unknown();
            if failed.error.is_retryable() && retry_timer.wait_for_retry().await {
                continue;
            }
            let is_server_away = failed.error.is_retryable();
            let error = match failed.error {
                CallError::DuplicateId => AppendError::Conflict,
                error if may_be_stored => AppendError::OutcomeUnknown(error.into()),
                error => AppendError::Unavailable(error.into()),
            };
            return Err(FailedTransaction { error, is_server_away });
        }
    }
}

/// The number of appends that share the next transaction, at least one.
fn batch_len(appends: &[StreamAppend]) -> usize {
    let mut bytes = 0;
    let fits = |append: &&StreamAppend| {
        bytes += append.events.iter().map(|event| event.data.len() + event.metadata.len()).sum::<usize>();
        bytes <= MAX_BYTES_PER_TRANSACTION
    };
    appends.iter().take(MAX_APPENDS_PER_TRANSACTION).take_while(fits).count().max(1)
}

/// Returns the error of a transaction once for each of its appends.
fn error_of_each(error: AppendError, append_count: usize) -> Vec<AppendResult> {
    let shared =
        |source: &std::sync::Arc<dyn StdError + Send + Sync>| Box::new(std::sync::Arc::clone(source));
    match error {
        AppendError::Conflict => (0..append_count).map(|_| Err(AppendError::Conflict)).collect(),
        AppendError::StreamTruncated(stream) => {
            (0..append_count).map(|_| Err(AppendError::StreamTruncated(stream.clone()))).collect()
        }
        AppendError::Unavailable(source) => {
            let source = source.into();
            (0..append_count).map(|_| Err(AppendError::Unavailable(shared(&source)))).collect()
        }
        AppendError::OutcomeUnknown(source) => {
            let source = source.into();
            (0..append_count).map(|_| Err(AppendError::OutcomeUnknown(shared(&source)))).collect()
        }
    }
}

/// The revisions of the events of an append.
fn revisions(append: &StreamAppend) -> impl Iterator<Item = i64> {
    let first = append.expected_revision.next().get();
    (first..).take(append.events.len()).map(to_sql_int)
}

/// The call of the SQL function `append` for a batch.
fn call_append(log: KnownLog, batch: &[StreamAppend]) -> Statement<'static> {
    let (seen_position, seen_id) = KnownLog::seen_params(log.seen);
    let expected = |append: &StreamAppend| match append.expected_revision {
        ExpectedRevision::NoStream => -1,
        ExpectedRevision::Exact(revision) => to_sql_int(revision.get()),
    };
    let events = || batch.iter().flat_map(|append| &append.events);
    // For each event, the number of its append in the batch, counted from 1.
    let append_numbers =
        (1_i32..).zip(batch).flat_map(|(number, append)| append.events.iter().map(move |_| number));
    query(
        "SELECT old_head, stored_now, stored_earlier
         FROM chat_event_log.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(log.incarnation.0)
    .bind(seen_position)
    .bind(seen_id)
    .bind(batch.iter().map(|append| &*append.stream).bind_iter())
    .bind(batch.iter().map(expected).bind_iter())
    .bind(append_numbers.bind_iter())
    .bind(batch.iter().flat_map(revisions).bind_iter())
    .bind(events().map(|event| event.id.uuid()).bind_iter())
    .bind(events().map(|event| event.event_type).bind_iter())
    .bind(events().map(|event| event.schema_version.0.cast_signed()).bind_iter())
    .bind(events().map(|event| event.recorded_at.millis()).bind_iter())
    .bind(events().map(|event| event.data.as_str()).bind_iter())
    .bind(events().map(|event| &*event.metadata).bind_iter())
}

/// Returns the outcome of each append, and records in `known` the last event that this call stored. The events that
/// this call stored have the positions after the old head, in order.
fn receipts(batch: &[StreamAppend], row: &AppendRow, known: &Mutex<KnownLog>) -> Vec<AppendResult> {
    let mut head = row.old_head.unsigned_abs();
    let mut last_stored = None;
    let stored_now = row.stored_now.as_deref().unwrap_or_default();
    let stored_earlier = row.stored_earlier.as_deref().unwrap_or_default();
    let mut results = Vec::with_capacity(batch.len());
    for (index, append) in batch.iter().enumerate() {
        let events = append.events.len() as u64;
        let revision = Revision::new(append.expected_revision.next().get() + events.saturating_sub(1));
        let receipt = |position| AppendReceipt { position: Position::new(position), revision };
        results.push(if stored_now.get(index) == Some(&true) {
            head += events;
            last_stored = append.events.last().map(|event| (Position::new(head), event.id));
            Ok(receipt(head))
        } else {
            let earlier_position = stored_earlier.get(index).copied().flatten();
            earlier_position.map(|position| receipt(position.unsigned_abs())).ok_or(AppendError::Conflict)
        });
    }
    if let Some((position, id)) = last_stored {
        known.lock().unwrap_or_else(PoisonError::into_inner).record_seen(position, id);
    }
    results
}
