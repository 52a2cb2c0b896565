//! Finding a stream's events: by the file's index of streams, and by the [`Tail`] that is not in it yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_domain::{Position, Revision};
use rusqlite::{Connection, OptionalExtension, Row};

use super::reader::{COLUMNS, READ_BYTES, collect, head, recorded, stream_id};
use super::tail::{Place, Tail};
use crate::event_store::{ReadFrom, RecordedEvent, Select, StreamRead};

/// Rows of the index that are looked at a time.
const PAGE: usize = 256;

/// The tail, shared by the thread that appends and those that read.
#[derive(Clone, Debug)]
pub(super) struct SharedTail(Arc<Mutex<Tail>>);

impl SharedTail {
    /// The tail as it is in the file.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        // Where the end of the log is gone, what is appended from here on must be found all the same.
        let filed = filed(connection)?.min(head(connection)?);
        let tail = Self(Arc::new(Mutex::new(Tail::after(filed))));
        tail.catch_up(connection)?;
        Ok(tail)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns of the events that other processes appended; returns the log's last position.
    pub(super) fn catch_up(&self, connection: &Connection) -> rusqlite::Result<Position> {
        let head = head(connection)?;
        let mut tail = self.lock();
        if tail.known() < head {
            let mut statement = connection.prepare_cached(
                "SELECT stream, revision, position FROM events WHERE position > ? ORDER BY position",
            )?;
            let mut rows = statement.query([tail.known().get()])?;
            while let Some(row) = rows.next()? {
                let place =
                    Place { revision: Revision::new(row.get(1)?), position: Position::new(row.get(2)?) };
                tail.add(row.get(0)?, place);
            }
        }
        Ok(head)
    }

    /// The stream's last revision.
    pub(super) fn last_revision(
        &self,
        connection: &Connection,
        stream: i64,
    ) -> rusqlite::Result<Option<Revision>> {
        if let Some(last) = self.lock().of(stream).last() {
            return Ok(Some(last.revision));
        }
        last_filed(connection, stream)
    }

    /// Where the stream's event of this revision is.
    pub(super) fn position(
        &self,
        connection: &Connection,
        stream: i64,
        revision: Revision,
    ) -> rusqlite::Result<Option<Position>> {
        let found = self.lock().of(stream).iter().find(|place| place.revision == revision).copied();
        if let Some(place) = found {
            return Ok(Some(place.position));
        }
        let mut statement = connection
            .prepare_cached("SELECT position FROM stream_positions WHERE stream = ? AND revision = ?")?;
        let position: Option<u64> =
            statement.query_row((stream, revision.get()), |row| row.get(0)).optional()?;
        Ok(position.map(Position::new))
    }

    /// Reads a stream.
    pub(super) fn read(
        &self,
        connection: &Connection,
        read: &StreamRead,
    ) -> rusqlite::Result<Vec<RecordedEvent>> {
        let Some(stream) = stream_id(connection, &read.stream)? else { return Ok(Vec::new()) };
        if read.select == Select::Except("MessageCreated") {
            return changes(connection, stream, read);
        }
        self.catch_up(connection)?;
        // In this order: what leaves the tail from here on is in the index as it is seen below.
        let tail = self.lock().of(stream).to_vec();
        let snapshot = connection.unchecked_transaction()?;
        let filed = last_filed(&snapshot, stream)?;
        let tail = tail.iter().copied().filter(|place| filed.is_none_or(|filed| place.revision > filed));
        let mut reading = Reading { connection: &snapshot, stream, read, events: Vec::new(), bytes: 0 };
        match read.from {
            ReadFrom::Forwards(from) => {
                reading.take_filed_from(from)?;
                reading.take(tail.filter(|place| place.revision >= from))?;
            }
            ReadFrom::End => {
                reading.take(tail.rev())?;
                reading.take_filed_until(LAST)?;
            }
            ReadFrom::Backwards(from) => {
                reading.take(tail.rev().filter(|place| place.revision <= from))?;
                reading.take_filed_until(from)?;
            }
        }
        let events = reading.events;
        snapshot.finish()?;
        Ok(events)
    }
}

/// No revision is further on than SQLite can count.
const LAST: Revision = Revision::new(i64::MAX as u64);

/// A read of a stream in progress.
struct Reading<'a> {
    connection: &'a Connection,
    stream: i64,
    read: &'a StreamRead,
    events: Vec<RecordedEvent>,
    bytes: usize,
}

impl Reading<'_> {
    fn is_enough(&self) -> bool {
        self.events.len() >= self.read.limit || self.bytes >= READ_BYTES
    }

    /// Takes the events at these places, as far as they are wanted.
    fn take(&mut self, places: impl IntoIterator<Item = Place>) -> rusqlite::Result<()> {
        let sql =
            format!("SELECT {COLUMNS} FROM events WHERE position = ?1 AND stream = ?2 AND revision = ?3");
        let mut statement = self.connection.prepare_cached(&sql)?;
        for place in places {
            if self.is_enough() {
                break;
            }
            // An event that is not where the index has it is no event of a sound log.
            let event = statement
                .query_row((place.position.get(), self.stream, place.revision.get()), |row| {
                    recorded(row, Arc::clone(&self.read.stream))
                })?;
            let wanted = match self.read.select {
                Select::All => true,
                Select::Only(only) => event.event_type == only,
                Select::Except(except) => event.event_type != except,
            };
            if wanted {
                self.bytes += event.data.len() + event.metadata.len();
                self.events.push(event);
            }
        }
        Ok(())
    }

    fn take_filed_from(&mut self, from: Revision) -> rusqlite::Result<()> {
        let sql = "SELECT revision, position FROM stream_positions WHERE stream = ?1 AND revision >= ?2
                   ORDER BY revision LIMIT ?3";
        let mut next = Some(from.min(LAST));
        while let Some(from) = next.filter(|_| !self.is_enough()) {
            let page = self.page(sql, from)?;
            next = page.last().filter(|_| page.len() == self.page_size()).map(|last| last.revision.next());
            self.take(page)?;
        }
        Ok(())
    }

    fn take_filed_until(&mut self, from: Revision) -> rusqlite::Result<()> {
        let sql = "SELECT revision, position FROM stream_positions WHERE stream = ?1 AND revision <= ?2
                   ORDER BY revision DESC LIMIT ?3";
        let mut next = Some(from.min(LAST));
        while let Some(from) = next.filter(|_| !self.is_enough()) {
            let page = self.page(sql, from)?;
            let last = page.last().filter(|_| page.len() == self.page_size());
            next = last.and_then(|last| last.revision.get().checked_sub(1)).map(Revision::new);
            self.take(page)?;
        }
        Ok(())
    }

    fn page(&self, sql: &str, from: Revision) -> rusqlite::Result<Vec<Place>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let place = |row: &Row<'_>| {
            Ok(Place { revision: Revision::new(row.get(0)?), position: Position::new(row.get(1)?) })
        };
        statement.query_map((self.stream, from.get(), self.page_size()), place)?.collect()
    }

    fn page_size(&self) -> usize {
        PAGE.min(self.read.limit)
    }
}

/// Reads what changed in a chat beside its new messages, through the index that holds just that.
fn changes(connection: &Connection, stream: i64, read: &StreamRead) -> rusqlite::Result<Vec<RecordedEvent>> {
    let (bound, from) = match read.from {
        ReadFrom::Forwards(from) => (">= ?2 ORDER BY revision ASC", from),
        ReadFrom::Backwards(from) => ("<= ?2 ORDER BY revision DESC", from),
        ReadFrom::End => ("<= ?2 ORDER BY revision DESC", LAST),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE stream = ?1 AND event_type <> 'MessageCreated' AND revision {bound} LIMIT ?3"
    );
    collect(connection, &sql, &[&stream, &from.min(LAST).get(), &read.limit], |row| {
        recorded(row, Arc::clone(&read.stream))
    })
}

/// Every event up to here is in the index of streams.
fn filed(connection: &Connection) -> rusqlite::Result<Position> {
    let filed = connection.query_row("SELECT filed FROM filing", [], |row| row.get(0))?;
    Ok(Position::new(filed))
}

fn last_filed(connection: &Connection, stream: i64) -> rusqlite::Result<Option<Revision>> {
    let mut statement =
        connection.prepare_cached("SELECT max(revision) FROM stream_positions WHERE stream = ?")?;
    let last: Option<u64> = statement.query_row([stream], |row| row.get(0))?;
    Ok(last.map(Revision::new))
}
