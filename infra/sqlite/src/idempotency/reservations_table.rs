//! The reservations table: one method for each call of the port.

use std::time::Duration;

use chat_domain::metadata::PayloadFingerprint;
use chat_domain::{AppToken, Position, Timestamp};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use chat_ports::event_store::LogId;
use chat_ports::idempotency::{
    Claim, CompletedCommand, CreatedId, ExistingEventHint, IdempotencyKeyId, IdempotencyTerms, KeyLease,
    KeyRequest, LeaseOwner, LogContent, RenewOutcome, ReserveOutcome, StoredAnswer,
};

/// The maximal number of expired rows that a transaction removes for each call of the port that it contains. A call
/// adds at most one row, so the number of expired rows shrinks.
const REMOVALS_PER_CALL: usize = 4;

/// The reservations table within one transaction.
pub(super) struct ReservationsTable<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) log: LogId,
    pub(super) terms: IdempotencyTerms,
    /// The time by the clock of the file.
    pub(super) now: Timestamp,
    /// The system time, which stamps events.
    pub(super) system_time: Timestamp,
}

/// A row of the table.
struct ReservationRow {
    fingerprint: PayloadFingerprint,
    owner: Vec<u8>,
    lease: KeyLease,
    leased_until: Timestamp,
    answer: Option<StoredAnswer>,
}

impl ReservationsTable<'_> {
    pub(super) fn remove_expired(&self, calls: usize) -> rusqlite::Result<()> {
        let mut remove = self.transaction.prepare_cached(
            "DELETE FROM reservations WHERE key IN (SELECT key FROM reservations WHERE expires <= ? LIMIT ?)",
        )?;
        remove.execute(params![self.now.millis(), calls.saturating_mul(REMOVALS_PER_CALL)])?;
        Ok(())
    }

    pub(super) fn initialize(&self, content: LogContent) -> rusqlite::Result<()> {
        let since = match content {
            LogContent::Empty => 0,
            LogContent::HasEvents => self.now.millis(),
        };
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO memory (log, since) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM memory)",
        )?;
        insert.execute(params![self.log.0.as_bytes(), since])?;
        Ok(())
    }

    pub(super) fn reserve(&self, request: &KeyRequest) -> rusqlite::Result<ReserveOutcome> {
        let all_keys_known_since: Option<i64> = self
            .transaction
            .prepare_cached("SELECT since FROM memory WHERE log = ?")?
            .query_row([self.log.0.as_bytes()], |row| row.get(0))
            .optional()?;
        let Some(all_keys_known_since) = all_keys_known_since.map(Timestamp::from_millis) else {
            return Ok(ReserveOutcome::NotInitialized);
        };
        match self.load_row(request.key)? {
            Some(stored) if stored.fingerprint != request.fingerprint => Ok(ReserveOutcome::PayloadMismatch),
            Some(ReservationRow { answer: Some(answer), .. }) => Ok(ReserveOutcome::Completed(answer)),
            Some(stored) if stored.owner == request.owner.0.as_bytes() => {
                self.renew(request.key, request.owner)?;
                Ok(ReserveOutcome::Granted(stored.lease))
            }
            Some(stored) if stored.leased_until > self.now => Ok(ReserveOutcome::InFlight(stored.lease.hint)),
            Some(stored) => {
                self.take_over(request)?;
                Ok(ReserveOutcome::Granted(KeyLease { claim: Claim::Doubtful, ..stored.lease }))
            }
            // The lease of a reservation that was lost may still run.
            None if time_after(all_keys_known_since, self.terms.lease) > self.now => {
                Ok(ReserveOutcome::InFlight(ExistingEventHint {
                    app: None,
                    since: time_before(self.system_time, self.terms.retention),
                }))
            }
            None => {
                let is_doubtful = time_after(all_keys_known_since, self.terms.retention) > self.now;
                // An event of this key can be no older than `max_event_age`.
                let (claim, max_event_age) = if is_doubtful {
                    (Claim::Doubtful, self.terms.retention)
                } else {
                    (Claim::First, Duration::ZERO)
                };
                let hint = ExistingEventHint {
                    app: request.app,
                    since: time_before(self.system_time, max_event_age),
                };
                self.insert(request, claim, time_before(self.now, max_event_age))?;
                Ok(ReserveOutcome::Granted(KeyLease { claim, hint }))
            }
        }
    }

    fn load_row(&self, key: IdempotencyKeyId) -> rusqlite::Result<Option<ReservationRow>> {
        self.transaction
            .prepare_cached(
                "SELECT fingerprint, app, since, leased_until, position, number, owner, doubtful FROM reservations
                 WHERE key = ? AND expires > ?",
            )?
            .query_row(params![key.0, self.now.millis()], |row| {
                let app = parse_app_token(row)?;
                let since = self.as_system_time(Timestamp::from_millis(row.get(2)?));
                let hint = ExistingEventHint { app, since };
                let position: Option<u64> = row.get(4)?;
                let number: Option<u64> = row.get(5)?;
                let created = number.map(CreatedId::Number).or(app.map(CreatedId::App));
                let answer = position
                    .zip(created)
                    .map(|(position, created)| StoredAnswer { position: Position::new(position), created });
                let claim = if row.get(7)? { Claim::Doubtful } else { Claim::First };
                Ok(ReservationRow {
                    fingerprint: PayloadFingerprint::from_bytes(row.get(0)?),
                    owner: row.get(6)?,
                    lease: KeyLease { claim, hint },
                    leased_until: Timestamp::from_millis(row.get(3)?),
                    answer,
                })
            })
            .optional()
    }

    /// Converts a time of the file's clock into the earliest system time that an event of that moment can have. The
    /// system time may have been set since, or may have differed from the file's clock from the start. The two clocks
    /// are read one after the other, in whole milliseconds, hence the tolerance.
    fn as_system_time(&self, time: Timestamp) -> Timestamp {
        const TOLERANCE_MS: i64 = 10;
        let age = self.now.millis().saturating_sub(time.millis()).saturating_add(TOLERANCE_MS);
        time.min(Timestamp::from_millis(self.system_time.millis().saturating_sub(age)))
    }

    fn insert(&self, request: &KeyRequest, claim: Claim, since: Timestamp) -> rusqlite::Result<()> {
        // Replaces an expired row of this key that is not removed yet.
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO reservations
             (key, fingerprint, owner, app, since, leased_until, doubtful, taken_over, expires)
             VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
        )?;
        insert.execute(params![
            request.key.0,
            request.fingerprint.bytes(),
            request.owner.0.as_bytes(),
            request.app.as_ref().map(AppToken::expose),
            since.millis(),
            time_after(self.now, self.terms.lease).millis(),
            claim == Claim::Doubtful,
            time_after(self.now, self.terms.retention).millis(),
        ])?;
        Ok(())
    }

    fn take_over(&self, request: &KeyRequest) -> rusqlite::Result<()> {
        let mut update = self.transaction.prepare_cached(
            "UPDATE reservations SET owner = ?, leased_until = ?, doubtful = 1, taken_over = 1, expires = ?
             WHERE key = ?",
        )?;
        update.execute(params![
            request.owner.0.as_bytes(),
            time_after(self.now, self.terms.lease).millis(),
            time_after(self.now, self.terms.retention).millis(),
            request.key.0,
        ])?;
        Ok(())
    }

    pub(super) fn renew(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> rusqlite::Result<RenewOutcome> {
        let mut renew = self.transaction.prepare_cached(
            "UPDATE reservations SET leased_until = ?, expires = ?
             WHERE key = ? AND owner = ? AND position IS NULL",
        )?;
        let renewed = renew.execute(params![
            time_after(self.now, self.terms.lease).millis(),
            time_after(self.now, self.terms.retention).millis(),
            key.0,
            owner.0.as_bytes(),
        ])?;
        Ok(if renewed > 0 { RenewOutcome::Held } else { RenewOutcome::Lost })
    }

    pub(super) fn complete(&self, command: &CompletedCommand) -> rusqlite::Result<()> {
        let (app, number) = match command.answer.created {
            CreatedId::App(app) => (Some(app), None),
            CreatedId::Number(number) => (None, Some(number)),
        };
        let mut complete = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO reservations
             (key, fingerprint, owner, app, since, leased_until, doubtful, taken_over, position, number, expires)
             VALUES (?, ?, x'', ?, 0, 0, 0, 0, ?, ?, ?)",
        )?;
        complete.execute(params![
            command.key.0,
            command.fingerprint.bytes(),
            app.as_ref().map(AppToken::expose),
            command.answer.position.get(),
            number,
            time_after(self.now, self.terms.retention).millis(),
        ])?;
        Ok(())
    }

    pub(super) fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> rusqlite::Result<()> {
        let key_and_owner = params![key.0, owner.0.as_bytes()];
        // A reservation that was taken over is kept, so that the next claim is doubtful.
        self.transaction
            .prepare_cached(
                "DELETE FROM reservations WHERE key = ? AND owner = ? AND position IS NULL AND NOT taken_over",
            )?
            .execute(key_and_owner)?;
        self.transaction
            .prepare_cached(
                "UPDATE reservations SET leased_until = 0 WHERE key = ? AND owner = ? AND position IS NULL",
            )?
            .execute(key_and_owner)?;
        Ok(())
    }
}

/// Reads column 1 of the query of `load_row`.
fn parse_app_token(row: &Row<'_>) -> rusqlite::Result<Option<AppToken>> {
    let text: Option<String> = row.get(1)?;
    let token = text.map(|text| AppToken::parse(&text)).transpose();
    token.map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, error.into()))
}

fn time_after(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_add(millis(by)))
}

pub(super) fn time_before(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_sub(millis(by)))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
