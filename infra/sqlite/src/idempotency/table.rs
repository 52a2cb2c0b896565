//! The rows: what each call of the port reads and writes.

use std::time::Duration;

use chat_domain::metadata::Fingerprint;
use chat_domain::{AppToken, Position, Timestamp};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use chat_ports::event_store::LogId;
use chat_ports::idempotency::{
    Answer, Claim, Created, Done, Grant, KeyId, LogIs, Owner, Renewed, Reserved, Terms, Trace, Wish,
};

/// Expired rows that a transaction removes for each call that it serves: more than come in, so that they get fewer.
const REMOVALS_A_CALL: usize = 4;

/// The reservations as one transaction sees them.
pub(super) struct Table<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) log: LogId,
    pub(super) terms: Terms,
    pub(super) now: Timestamp,
}

/// A row.
struct Stored {
    fingerprint: Fingerprint,
    owner: Vec<u8>,
    grant: Grant,
    leased_until: Timestamp,
    answer: Option<Answer>,
}

impl Table<'_> {
    pub(super) fn remove_expired(&self, calls: usize) -> rusqlite::Result<()> {
        let mut remove = self.transaction.prepare_cached(
            "DELETE FROM reservations WHERE key IN (SELECT key FROM reservations WHERE expires <= ? LIMIT ?)",
        )?;
        remove.execute(params![self.now.millis(), calls.saturating_mul(REMOVALS_A_CALL)])?;
        Ok(())
    }

    pub(super) fn begin(&self, log: LogIs) -> rusqlite::Result<()> {
        let since = match log {
            LogIs::Empty => 0,
            LogIs::Begun => self.now.millis(),
        };
        let mut begin = self.transaction.prepare_cached(
            "INSERT INTO memory (log, since) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM memory)",
        )?;
        begin.execute(params![self.log.0.as_bytes(), since])?;
        Ok(())
    }

    pub(super) fn reserve(&self, wish: &Wish) -> rusqlite::Result<Reserved> {
        let memory: Option<i64> = self
            .transaction
            .prepare_cached("SELECT since FROM memory WHERE log = ?")?
            .query_row([self.log.0.as_bytes()], |row| row.get(0))
            .optional()?;
        let Some(memory) = memory.map(Timestamp::from_millis) else { return Ok(Reserved::NoMemory) };
        match self.stored(wish.key)? {
            Some(stored) if stored.fingerprint != wish.fingerprint => Ok(Reserved::OtherPayload),
            Some(Stored { answer: Some(answer), .. }) => Ok(Reserved::Done(answer)),
            Some(stored) if stored.owner == wish.owner.0.as_bytes() => {
                self.renew(wish.key, wish.owner)?;
                Ok(Reserved::Granted(stored.grant))
            }
            Some(stored) if stored.leased_until > self.now => Ok(Reserved::InFlight(stored.grant.trace)),
            Some(stored) => {
                self.take_over(wish)?;
                Ok(Reserved::Granted(Grant { claim: Claim::Doubtful, ..stored.grant }))
            }
            None if later(memory, self.terms.lease) > self.now => {
                Ok(Reserved::InFlight(Trace { app: None, since: earlier(self.now, self.terms.kept) }))
            }
            None => {
                let doubtful = later(memory, self.terms.kept) > self.now;
                let (claim, since) = if doubtful {
                    (Claim::Doubtful, earlier(self.now, self.terms.kept))
                } else {
                    (Claim::First, self.now)
                };
                let grant = Grant { claim, trace: Trace { app: wish.app, since } };
                self.insert(wish, &grant)?;
                Ok(Reserved::Granted(grant))
            }
        }
    }

    fn stored(&self, key: KeyId) -> rusqlite::Result<Option<Stored>> {
        self.transaction
            .prepare_cached(
                "SELECT fingerprint, app, since, leased_until, position, number, owner, doubtful FROM reservations
                 WHERE key = ? AND expires > ?",
            )?
            .query_row(params![key.0, self.now.millis()], |row| {
                let app = app(row)?;
                let trace = Trace { app, since: Timestamp::from_millis(row.get(2)?) };
                let position: Option<u64> = row.get(4)?;
                let number: Option<u64> = row.get(5)?;
                let created = number.map(Created::Number).or(app.map(Created::App));
                let answer = position
                    .zip(created)
                    .map(|(position, created)| Answer { position: Position::new(position), created });
                let claim = if row.get(7)? { Claim::Doubtful } else { Claim::First };
                Ok(Stored {
                    fingerprint: Fingerprint::new(row.get(0)?),
                    owner: row.get(6)?,
                    grant: Grant { claim, trace },
                    leased_until: Timestamp::from_millis(row.get(3)?),
                    answer,
                })
            })
            .optional()
    }

    fn insert(&self, wish: &Wish, grant: &Grant) -> rusqlite::Result<()> {
        // A row that has expired and was not removed yet makes room.
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO reservations
             (key, fingerprint, owner, app, since, leased_until, doubtful, taken_over, expires)
             VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
        )?;
        insert.execute(params![
            wish.key.0,
            wish.fingerprint.bytes(),
            wish.owner.0.as_bytes(),
            grant.trace.app.as_ref().map(AppToken::expose),
            grant.trace.since.millis(),
            later(self.now, self.terms.lease).millis(),
            grant.claim == Claim::Doubtful,
            later(self.now, self.terms.kept).millis(),
        ])?;
        Ok(())
    }

    fn take_over(&self, wish: &Wish) -> rusqlite::Result<()> {
        let mut take = self.transaction.prepare_cached(
            "UPDATE reservations SET owner = ?, leased_until = ?, doubtful = 1, taken_over = 1, expires = ?
             WHERE key = ?",
        )?;
        take.execute(params![
            wish.owner.0.as_bytes(),
            later(self.now, self.terms.lease).millis(),
            later(self.now, self.terms.kept).millis(),
            wish.key.0,
        ])?;
        Ok(())
    }

    pub(super) fn renew(&self, key: KeyId, owner: Owner) -> rusqlite::Result<Renewed> {
        let mut renew = self.transaction.prepare_cached(
            "UPDATE reservations SET leased_until = ?, expires = ?
             WHERE key = ? AND owner = ? AND position IS NULL",
        )?;
        let renewed = renew.execute(params![
            later(self.now, self.terms.lease).millis(),
            later(self.now, self.terms.kept).millis(),
            key.0,
            owner.0.as_bytes(),
        ])?;
        Ok(if renewed > 0 { Renewed::Held } else { Renewed::Lost })
    }

    pub(super) fn complete(&self, done: &Done) -> rusqlite::Result<()> {
        let (app, number) = match done.answer.created {
            Created::App(app) => (Some(app), None),
            Created::Number(number) => (None, Some(number)),
        };
        let mut complete = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO reservations
             (key, fingerprint, owner, app, since, leased_until, doubtful, taken_over, position, number, expires)
             VALUES (?, ?, x'', ?, 0, 0, 0, 0, ?, ?, ?)",
        )?;
        complete.execute(params![
            done.key.0,
            done.fingerprint.bytes(),
            app.as_ref().map(AppToken::expose),
            done.answer.position.get(),
            number,
            later(self.now, self.terms.kept).millis(),
        ])?;
        Ok(())
    }

    pub(super) fn release(&self, key: KeyId, owner: Owner) -> rusqlite::Result<()> {
        let whose = params![key.0, owner.0.as_bytes()];
        self.transaction
            .prepare_cached(
                "DELETE FROM reservations WHERE key = ? AND owner = ? AND position IS NULL AND NOT taken_over",
            )?
            .execute(whose)?;
        self.transaction
            .prepare_cached(
                "UPDATE reservations SET leased_until = 0 WHERE key = ? AND owner = ? AND position IS NULL",
            )?
            .execute(whose)?;
        Ok(())
    }
}

fn app(row: &Row<'_>) -> rusqlite::Result<Option<AppToken>> {
    let text: Option<String> = row.get(1)?;
    let token = text.map(|text| AppToken::parse(&text)).transpose();
    token.map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, error.into()))
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_add(millis(by)))
}

pub(super) fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_sub(millis(by)))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
