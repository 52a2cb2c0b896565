//! Replays to a file that are started again. The first line of a case says what the replay checkpoint holds, the rest
//! is what the file holds after the lines of events. The first line is one of these:
//!
//! - `{"position":7,"bytes":1200,"closed":false,"lines":9}`: the checkpoint of a replay to this file, and the number
//!   of events whose lines the file holds, the first nine here. All fields may be left out.
//! - any other line, which is the whole content of the checkpoint file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use chat_domain::Position;
use chat_operations::replay::checkpoint::ReplayCheckpoint;
use chat_operations::replay::target_fingerprint::TargetFingerprint;
use chat_operations::replay::{Destination, ReplayOptions, ReplayOutcome, StopSignal, run};
use chat_ports::event_store::{EventStore as _, LogId};
use chat_sqlite::SqliteEventStore;
use serde::Deserialize;

use crate::{block_on, new_folder, sample_log};

/// The SHA-256 of the filter's description, which is an empty text.
const FILTER_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// How the replay starts: the fields of the replay checkpoint, and how many lines of events the file holds.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Start {
    position: u64,
    bytes: Option<u64>,
    closed: bool,
    lines: usize,
}

impl Default for Start {
    fn default() -> Self {
        Self { position: 0, bytes: None, closed: false, lines: 0 }
    }
}

struct Fixture {
    log: Arc<SqliteEventStore>,
    log_id: LogId,
    head: Position,
    /// All events of the log, a line each.
    lines: Vec<Vec<u8>>,
    file: PathBuf,
    checkpoint: PathBuf,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = new_folder();
    let (file, checkpoint) = (folder.join("events.jsonl"), folder.join("checkpoint"));
    let (log, head) = block_on(sample_log::create(&folder.join("events.db")));
    let log_id = block_on(log.log_id()).expect("the log's id");
    let mut fixture = Fixture { log, log_id, head, lines: Vec::new(), file, checkpoint };
    assert!(fixture.replay());
    let written = fs::read(&fixture.file).expect("the file");
    fixture.lines = written.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    assert_eq!(fixture.lines.len() as u64, head.get(), "positions are not the numbers of the lines");
    fixture
});

/// A replay that succeeds keeps as many bytes of the file as the checkpoint counts. It then writes every event after
/// the checkpoint's position, once. A replay that is refused leaves the file as it is.
pub fn check(case: &[u8]) {
    let (first, rest) = match case.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&case[..end], &case[end + 1..]),
        None => (case, &[][..]),
    };
    let fixture = &*FIXTURE;
    let start: Option<Start> = serde_json::from_slice(first).ok();
    let lines = start.as_ref().map_or(0, |start| start.lines.min(fixture.lines.len()));
    let before = [&fixture.lines[..lines].concat(), rest].concat();
    fs::write(&fixture.file, &before).expect("the file");
    match &start {
        Some(start) => fixture.write_checkpoint(start),
        None => fs::write(&fixture.checkpoint, first).expect("the checkpoint"),
    }
    let succeeds = fixture.replay();
    let after = fs::read(&fixture.file).expect("the file");
    match start.filter(|_| succeeds) {
        Some(start) => {
            let kept = usize::try_from(start.bytes.expect("a length")).expect("a length");
            let delivered = usize::try_from(start.position).expect("a position").min(fixture.lines.len());
            assert_eq!(after, [&before[..kept], &fixture.lines[delivered..].concat()].concat());
            let checkpoint = fs::read(&fixture.checkpoint).expect("the checkpoint");
            let checkpoint: ReplayCheckpoint = serde_json::from_slice(&checkpoint).expect("a checkpoint");
            assert!(checkpoint.ended_normally);
            assert_eq!((checkpoint.position, checkpoint.bytes), (fixture.head, Some(after.len() as u64)));
            assert!(fixture.replay(), "a replay that had ended could not be repeated");
            assert_eq!(fs::read(&fixture.file).expect("the file"), after);
        }
        None => assert_eq!(after, before, "a refused replay changed the file"),
    }
}

impl Fixture {
    fn write_checkpoint(&self, start: &Start) {
        let checkpoint = ReplayCheckpoint {
            log: self.log_id,
            position: Position::new(start.position),
            events: start.position,
            target: TargetFingerprint::File {
                path: fs::canonicalize(&self.file).expect("a path").to_string_lossy().into_owned(),
                inode: fs::metadata(&self.file).expect("the file").ino(),
            },
            filter_sha256: FILTER_SHA256.to_owned(),
            ended_normally: start.closed,
            bytes: start.bytes,
        };
        let text = serde_json::to_vec(&checkpoint).expect("JSON");
        assert_eq!(serde_json::from_slice::<ReplayCheckpoint>(&text).expect("a checkpoint"), checkpoint);
        fs::write(&self.checkpoint, text).expect("the checkpoint");
    }

    /// Runs a replay of all events, and returns whether it succeeds.
    fn replay(&self) -> bool {
        let options = ReplayOptions {
            after: Position::START,
            until: None,
            filter: &|_| true,
            filter_description: "",
            rate: None,
            follow: false,
            checkpoint: Some(self.checkpoint.clone()),
            on_status: &|_| {},
        };
        let destination = Destination::File(self.file.clone());
        let (_stop, mut stop_signal) = StopSignal::channel();
        let outcome = block_on(run(&*self.log, &options, &destination, &mut stop_signal, &mut |_, _| {}));
        matches!(outcome, Ok(ReplayOutcome { stopped: false, .. }))
    }
}
