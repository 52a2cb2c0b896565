//! Alterations by direct SQL, many of them drawn at random.

use chat_domain::Position;
use chat_operations::proof::alteration::Alteration;
use chat_operations::proof::log_integrity::{self, Fault};
use chat_ports::event_store::EventStore;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use crate::log::{EVENTS, Signed};

/// Random alterations of each kind.
const EACH: usize = 50;

/// The columns of an event's row, and of its stream's, whose bytes are flipped.
const COLUMNS: [&str; 9] =
    ["data", "metadata", "id", "event_type", "recorded_at", "schema_version", "revision", "stream", "name"];

fn draw() -> StdRng {
    let seed = rand::random();
    #[expect(
        clippy::print_stdout,
        reason = "a failure shows it, and with it the alterations can be drawn again"
    )]
    {
        println!("seed {seed}");
    }
    StdRng::seed_from_u64(seed)
}

fn position(number: u64) -> Position {
    Position::new(number)
}

/// Flips bits of one byte in a column of one event.
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
        Value::Blob(_) => ("?", Value::Blob(flip_one(bytes, mask, random))),
        _ => ("CAST(? AS TEXT)", Value::Blob(flip_one(bytes, mask, random))),
    };
    let update = format!("UPDATE {table} SET {column} = {cast} WHERE {key} = ?");
    connection.execute(&update, params![flipped, row]).expect("an alteration");
}

fn flip_one(mut bytes: Vec<u8>, mask: u8, random: &mut StdRng) -> Vec<u8> {
    let place = random.random_range(0..bytes.len());
    bytes[place] ^= mask;
    bytes
}

/// Makes room at a position: what stands there and later moves back by one.
fn make_room(connection: &Connection, at: u64) {
    connection
        .execute("UPDATE events SET position = -position - 1 WHERE position >= ?", [at])
        .expect("out of the way");
    connection.execute("UPDATE events SET position = -position WHERE position < 0", []).expect("and back");
}

/// Lets what stands after a position move up by one.
fn close_up(connection: &Connection, at: u64) {
    connection
        .execute("UPDATE events SET position = -position + 1 WHERE position > ?", [at])
        .expect("out of the way");
    connection.execute("UPDATE events SET position = -position WHERE position < 0", []).expect("and back");
}

fn delete(connection: &Connection, at: u64) {
    assert_eq!(connection.execute("DELETE FROM events WHERE position = ?", [at]).expect("a deletion"), 1);
}

fn swap(connection: &Connection, one: u64, other: u64) {
    for (from, to) in [(one, -1), (other, one.cast_signed()), (u64::MAX, other.cast_signed())] {
        let from = if from == u64::MAX { -1 } else { from.cast_signed() };
        connection
            .execute("UPDATE events SET position = ?2 WHERE position = ?1", [from, to])
            .expect("a move");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unaltered_log_is_found_so_and_may_grow() {
    let signed = Signed::new().await;
    let copy = signed.altered(|_| ());
    let verdict = signed.verify(&*copy.log).await;
    assert!(verdict.is_valid(), "{verdict:?}");
    // The act of signing stands behind what was signed.
    assert_eq!((verdict.events, signed.checkpoint.position), (EVENTS, position(EVENTS)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_named_whichever_it_is() {
    let (signed, mut random) = (Signed::new().await, draw());
    for round in 0..2 * EACH {
        let column = COLUMNS[round % COLUMNS.len()];
        let at = random.random_range(1..=EVENTS);
        let altered = signed.altered(|connection| flip(connection, column, at, &mut random));
        let verdict = signed.verify(&*altered.log).await;
        assert!(!verdict.is_valid() && !verdict.unaltered, "{column} of {at}: {verdict:?}");
        let named = verdict.altered.expect("what was altered");
        let fits = match (column, &named) {
            // All events of the stream are altered; its first one stands among the first five.
            ("name", Alteration::Changed { position, .. }) => position.get() == (at - 1) % 5 + 1,
            // An event of no stream is not read at all.
            ("stream", Alteration::Changed { position, .. } | Alteration::Removed { position }) => {
                position.get() == at
            }
            // A number that none can be.
            ("schema_version" | "revision", Alteration::Unreadable { position, .. })
            | (_, Alteration::Changed { position, .. }) => position.get() == at,
            _ => false,
        };
        assert!(fits, "{column} of {at}: {named:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_event_is_named_in_the_middle_and_at_the_end() {
    let (signed, mut random) = (Signed::new().await, draw());
    for round in 0..EACH {
        let at = if round % 5 == 0 { EVENTS } else { random.random_range(1..EVENTS) };
        let altered = signed.altered(|connection| {
            delete(connection, at);
            // The gap may be closed, too.
            if round % 2 == 1 {
                close_up(connection, at);
            }
        });
        let verdict = signed.verify(&*altered.log).await;
        let named = verdict.altered.expect("what was altered");
        if at == EVENTS && round % 2 == 1 {
            // The act of signing has moved into its place.
            assert!(
                matches!(named, Alteration::Changed { position, .. } if position.get() == at),
                "{named:?}"
            );
        } else {
            assert_eq!(named, Alteration::Removed { position: position(at) }, "round {round}");
        }
        // The hole in its stream tells which one it was.
        let stream = format!("chat-token-{}", (at - 1) % 5);
        let hole = verdict
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::Revision { stream: found, .. } if *found == stream));
        assert_eq!(hole, at + 5 <= EVENTS, "{at}: {:?}", verdict.faults);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_from_somewhere_on_can_not_be_cut_off() {
    let signed = Signed::new().await;
    for from in [1, 2, EVENTS / 2, EVENTS] {
        let altered = signed.altered(|connection| {
            connection.execute("DELETE FROM events WHERE position >= ?", [from]).expect("a cut");
        });
        let verdict = signed.verify(&*altered.log).await;
        assert_eq!(verdict.altered, Some(Alteration::Removed { position: position(from) }));
        assert_eq!(verdict.events, from - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_swapped_events_are_named() {
    let (signed, mut random) = (Signed::new().await, draw());
    for _ in 0..EACH {
        let one = random.random_range(1..EVENTS);
        let other = random.random_range(one + 1..=EVENTS);
        let altered = signed.altered(|connection| swap(connection, one, other));
        let verdict = signed.verify(&*altered.log).await;
        let Some(Alteration::Moved { position: first, now: Some((_, origin)), gone_to }) = verdict.altered
        else {
            panic!("{one} and {other}: {verdict:?}");
        };
        assert_eq!((first, origin, gone_to), (position(one), position(other), Some(position(other))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inserted_event_is_named() {
    let (signed, mut random) = (Signed::new().await, draw());
    for _ in 0..EACH {
        let at = random.random_range(1..=EVENTS);
        let altered = signed.altered(|connection| {
            make_room(connection, at);
            connection
                .execute(
                    "INSERT INTO events SELECT ?1, stream, 1000, randomblob(16), event_type, schema_version, \
                     recorded_at, data, metadata FROM events WHERE position = ?2",
                    [at, at + 1],
                )
                .expect("an insertion");
        });
        let verdict = signed.verify(&*altered.log).await;
        let Some(Alteration::Inserted { position: named, now }) = verdict.altered else {
            panic!("at {at}: {verdict:?}");
        };
        assert_eq!((named, now.revision.get()), (position(at), 1_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_before_the_first_place_is_named() {
    let signed = Signed::new().await;
    for at in [0, -1] {
        let altered = signed.altered(|connection| {
            connection
                .execute(
                    "INSERT INTO events SELECT ?1, stream, 1000, randomblob(16), event_type, schema_version, \
                     recorded_at, data, metadata FROM events WHERE position = 3",
                    [at],
                )
                .expect("an insertion");
        });
        let verdict = signed.verify(&*altered.log).await;
        assert!(!verdict.is_valid(), "{at}: {verdict:?}");
        match verdict.altered {
            Some(Alteration::Inserted { position, .. }) => assert_eq!((at, position), (0, Position::START)),
            Some(Alteration::Unreadable { because, .. }) => {
                assert!(at == -1 && because.contains("-1"), "{because}");
            }
            other => panic!("{at}: {other:?}"),
        }
        let found = log_integrity::check(&*altered.log, None, &mut |_| ()).await.expect("a look");
        assert!(!found.faults.is_empty(), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_no_event_can_have_is_after_the_end() {
    let signed = Signed::new().await;
    let copy = signed.altered(|_| ());
    let after = copy.log.read_all(position(u64::MAX), 10).await.expect("a read");
    let before = copy.log.read_all_backwards(Some(position(u64::MAX)), 1).await.expect("a read");
    assert_eq!((after.len(), before[0].position), (0, position(EVENTS + 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_moved_away_is_found_where_it_is() {
    let signed = Signed::new().await;
    let altered = signed.altered(|connection| {
        connection.execute("UPDATE events SET position = 1000 WHERE position = 7", []).expect("a move");
    });
    let verdict = signed.verify(&*altered.log).await;
    let moved = Alteration::Moved { position: position(7), now: None, gone_to: Some(position(1_000)) };
    assert_eq!(verdict.altered, Some(moved));
}
