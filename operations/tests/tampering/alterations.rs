//! Tests that verification finds alterations of the log. The tests make them by direct SQL, most of them at random
//! positions.

use chat_domain::Position;
use chat_operations::proof::alteration::Alteration;
use chat_operations::proof::log_integrity::{self, Fault};
use chat_ports::event_store::EventStore;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, params};

use crate::signed_log::{EVENTS, SignedLog};

/// The number of random alterations of each kind. There are twice as many flips.
const ROUNDS: usize = 50;

/// The columns of the events and streams tables in which a byte is flipped.
const COLUMNS: [&str; 9] =
    ["data", "metadata", "id", "event_type", "recorded_at", "schema_version", "revision", "stream", "name"];

fn random_generator() -> StdRng {
    let seed = rand::random();
    #[expect(clippy::print_stdout, reason = "a failed test shows the seed, which reproduces the alterations")]
    {
        println!("seed {seed}");
    }
    StdRng::seed_from_u64(seed)
}

fn position(number: u64) -> Position {
    Position::new(number)
}

/// Flips bits of one byte in a column of one event or of its stream.
fn flip(connection: &Connection, column: &str, at: u64, random: &mut StdRng) {
    let stream = connection
        .query_row("SELECT stream FROM events WHERE position = ?", [at], |row| row.get::<_, i64>(0))
        .expect("an event");
    let (table, key, row) = match column {
        "name" => ("streams", "id", stream),
        _ => ("events", "position", i64::try_from(at).expect("a position")),
    };
    let select = format!("SELECT CAST({column} AS BLOB), {column} FROM {table} WHERE {key} = ?");
    let (bytes, value): (Vec<u8>, Value) =
        connection.query_row(&select, [row], |row| Ok((row.get(0)?, row.get(1)?))).expect("a value");
    let mask = random.random_range(1..=255_u8);
    let (cast, flipped) = match value {
        Value::Integer(number) => {
            let mask = i64::from(mask) << (8 * random.random_range(0..8));
            ("?", Value::Integer(number ^ mask))
        }
        Value::Blob(_) => ("?", Value::Blob(flip_byte(bytes, mask, random))),
        _ => ("CAST(? AS TEXT)", Value::Blob(flip_byte(bytes, mask, random))),
    };
    let update = format!("UPDATE {table} SET {column} = {cast} WHERE {key} = ?");
    match connection.execute(&update, params![flipped, row]) {
        // The flipped name is that of another stream, and the names of streams are unique: flips again.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            flip(connection, column, at, random);
        }
        updated => assert_eq!(updated.expect("an alteration"), 1),
    }
}

fn flip_byte(mut bytes: Vec<u8>, mask: u8, random: &mut StdRng) -> Vec<u8> {
    let index = random.random_range(0..bytes.len());
    bytes[index] ^= mask;
    bytes
}

/// Moves the event at a position and all later events forward by one position each.
fn shift_from(connection: &Connection, at: u64) {
    connection
        .execute("UPDATE events SET position = -position - 1 WHERE position >= ?", [at])
        .expect("moved positions");
    connection
        .execute("UPDATE events SET position = -position WHERE position < 0", [])
        .expect("positive positions");
}

/// Moves all events after a position back by one position each, which closes the gap at this position.
fn close_gap(connection: &Connection, at: u64) {
    connection
        .execute("UPDATE events SET position = -position + 1 WHERE position > ?", [at])
        .expect("moved positions");
    connection
        .execute("UPDATE events SET position = -position WHERE position < 0", [])
        .expect("positive positions");
}

fn delete(connection: &Connection, at: u64) {
    assert_eq!(connection.execute("DELETE FROM events WHERE position = ?", [at]).expect("a deletion"), 1);
}

/// Swaps the positions of two events. The first event is moved to position -1 in between, because positions are unique.
fn swap(connection: &Connection, one: u64, other: u64) {
    let (one, other) = (one.cast_signed(), other.cast_signed());
    for (from, to) in [(one, -1), (other, one), (-1, other)] {
        connection
            .execute("UPDATE events SET position = ?2 WHERE position = ?1", [from, to])
            .expect("a move");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_an_unaltered_log_that_has_grown() {
    let signed = SignedLog::new().await;
    let copy = signed.altered_copy(|_| ());
    let verdict = signed.verify(&*copy.log).await;
    assert!(verdict.is_valid(), "{verdict:?}");
    // The event that records the signing follows the signed events.
    assert_eq!((verdict.events, signed.checkpoint.position), (EVENTS, position(EVENTS)));
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_a_flipped_byte() {
    let (signed, mut random) = (SignedLog::new().await, random_generator());
    for round in 0..2 * ROUNDS {
        let column = COLUMNS[round % COLUMNS.len()];
        let at = random.random_range(1..=EVENTS);
        let altered = signed.altered_copy(|connection| flip(connection, column, at, &mut random));
        let verdict = signed.verify(&*altered.log).await;
        assert!(!verdict.is_valid() && !verdict.unaltered, "{column} of event {at}: {verdict:?}");
        let alteration = verdict.altered.expect("an alteration");
        let is_expected = match (column, &alteration) {
            // All events of the stream are altered. Each stream has its first event among the first five of the log.
            ("name", Alteration::Changed { position, .. }) => position.get() == (at - 1) % 5 + 1,
            // The flipped stream id is that of another stream, or of none. An event without a stream is not read.
            ("stream", Alteration::Changed { position, .. } | Alteration::Removed { position }) => {
                position.get() == at
            }
            // The event is unreadable if the altered number is not a valid version or revision.
            ("schema_version" | "revision", Alteration::Unreadable { position, .. })
            | (_, Alteration::Changed { position, .. }) => position.get() == at,
            _ => false,
        };
        assert!(is_expected, "{column} of event {at}: {alteration:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_a_deleted_event() {
    let (signed, mut random) = (SignedLog::new().await, random_generator());
    for round in 0..ROUNDS {
        let at = if round % 5 == 0 { EVENTS } else { random.random_range(1..EVENTS) };
        let altered = signed.altered_copy(|connection| {
            delete(connection, at);
            // Half of the rounds also close the gap in the positions.
            if round % 2 == 1 {
                close_gap(connection, at);
            }
        });
        let verdict = signed.verify(&*altered.log).await;
        let alteration = verdict.altered.expect("an alteration");
        if at == EVENTS && round % 2 == 1 {
            // The event that records the signing has moved to this position.
            assert!(
                matches!(alteration, Alteration::Changed { position, .. } if position.get() == at),
                "{alteration:?}"
            );
        } else {
            assert_eq!(alteration, Alteration::Removed { position: position(at) }, "round {round}");
        }
        // The revisions of the event's stream have a gap, unless the event was the last one of the stream.
        let stream = format!("chat-token-{}", (at - 1) % 5);
        let has_gap = verdict
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::Revision { stream: found, .. } if *found == stream));
        assert_eq!(has_gap, at + 5 <= EVENTS, "event {at}: {:?}", verdict.faults);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_a_truncated_log() {
    let signed = SignedLog::new().await;
    for from in [1, 2, EVENTS / 2, EVENTS] {
        let altered = signed.altered_copy(|connection| {
            connection.execute("DELETE FROM events WHERE position >= ?", [from]).expect("a cut");
        });
        let verdict = signed.verify(&*altered.log).await;
        assert_eq!(verdict.altered, Some(Alteration::Removed { position: position(from) }));
        assert_eq!(verdict.events, from - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_two_swapped_events() {
    let (signed, mut random) = (SignedLog::new().await, random_generator());
    for _ in 0..ROUNDS {
        let one = random.random_range(1..EVENTS);
        let other = random.random_range(one + 1..=EVENTS);
        let altered = signed.altered_copy(|connection| swap(connection, one, other));
        let verdict = signed.verify(&*altered.log).await;
        let Some(Alteration::Moved { position: first, now: Some((_, origin)), gone_to }) = verdict.altered
        else {
            panic!("events {one} and {other}: {verdict:?}");
        };
        assert_eq!((first, origin, gone_to), (position(one), position(other), Some(position(other))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_an_inserted_event() {
    let (signed, mut random) = (SignedLog::new().await, random_generator());
    for _ in 0..ROUNDS {
        let at = random.random_range(1..=EVENTS);
        let altered = signed.altered_copy(|connection| {
            shift_from(connection, at);
            connection
                .execute(
                    "INSERT INTO events SELECT ?1, stream, 1000, randomblob(16), event_type, schema_version, \
                     recorded_at, data, metadata FROM events WHERE position = ?2",
                    [at, at + 1],
                )
                .expect("an insertion");
        });
        let verdict = signed.verify(&*altered.log).await;
        let Some(Alteration::Inserted { position: found, now }) = verdict.altered else {
            panic!("event inserted at {at}: {verdict:?}");
        };
        assert_eq!((found, now.revision.get()), (position(at), 1_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_an_event_before_the_first_position() {
    let signed = SignedLog::new().await;
    for at in [0, -1] {
        let altered = signed.altered_copy(|connection| {
            connection
                .execute(
                    "INSERT INTO events SELECT ?1, stream, 1000, randomblob(16), event_type, schema_version, \
                     recorded_at, data, metadata FROM events WHERE position = 3",
                    [at],
                )
                .expect("an insertion");
        });
        let verdict = signed.verify(&*altered.log).await;
        assert!(!verdict.is_valid(), "event at {at}: {verdict:?}");
        match verdict.altered {
            Some(Alteration::Inserted { position, .. }) => assert_eq!((at, position), (0, Position::START)),
            Some(Alteration::Unreadable { because, .. }) => {
                assert!(at == -1 && because.contains("-1"), "{because}");
            }
            other => panic!("event at {at}: {other:?}"),
        }
        let report = log_integrity::check(&*altered.log, None, &mut |_| ()).await.expect("a report");
        assert!(!report.faults.is_empty(), "event at {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_from_a_position_beyond_the_head() {
    let signed = SignedLog::new().await;
    let copy = signed.altered_copy(|_| ());
    let after = copy.log.read_all(position(u64::MAX), 10).await.expect("a read");
    let before = copy.log.read_all_backwards(Some(position(u64::MAX)), 1).await.expect("a read");
    assert_eq!((after.len(), before[0].position), (0, position(EVENTS + 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_a_moved_event() {
    let signed = SignedLog::new().await;
    let altered = signed.altered_copy(|connection| {
        connection.execute("UPDATE events SET position = 1000 WHERE position = 7", []).expect("a move");
    });
    let verdict = signed.verify(&*altered.log).await;
    let moved = Alteration::Moved { position: position(7), now: None, gone_to: Some(position(1_000)) };
    assert_eq!(verdict.altered, Some(moved));
}
