//! Tests of a writer that is killed, or that is closed while segments are merged, and of the writer that opens the
//! index next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chat_domain::{Position, Version};
use chat_ports::search_index::{Document, IndexChanges};
use tempfile::TempDir;

use crate::fixture::{Fixture, empty_changes, key, message, open_when_free, request};

/// The number of small segments at which a merge of them starts.
const SEGMENTS_PER_MERGE: u64 = 8;

/// The number of segments after the last commit or merge.
fn segment_count(dir: &Path) -> usize {
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    meta["segments"].as_array().unwrap().len()
}

/// Copies the files that match a filter.
fn copy(from: &Path, to: &Path, filter: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if filter(entry.file_name().to_str().unwrap()) {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Documents that usually take longer to merge than their files take to be copied.
fn large_batch(first: u64, count: u64) -> Vec<Document> {
    let text: Vec<String> = (0..300).map(|word| format!("word{word}")).collect();
    let text = text.join(" ");
    (first..first + count).map(|number| message(number, &format!("draft {number} {text}"))).collect()
}

/// The files of a process that was killed while it merged segments. The last commit, which starts the merge, deletes
/// a document of the second segment.
fn killed_in_a_merge() -> (TempDir, PathBuf) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while Instant::now() < deadline {
        let mut fixture = Fixture::new();
        // The oldest and largest segment, without deletions: a merge visits it first.
        fixture.upsert(large_batch(1, 120));
        for segment in 1..SEGMENTS_PER_MERGE - 1 {
            fixture.upsert(large_batch(segment * 1_000, 100));
        }
        let killed = fixture.folder.path().join("killed");
        fs::create_dir(&killed).unwrap();
        let changes = IndexChanges {
            upsert: large_batch(9_000, 100),
            delete: vec![key(1_001)],
            ..fixture.next_changes()
        };
        fixture.writer.commit(changes).unwrap();
        let copied = copy(&fixture.dir(), &killed, |_| true);
        // If the merge has ended meanwhile, the copied files are not those of an interrupted merge: tries again.
        if copied.is_ok() && segment_count(&fixture.dir()) as u64 == SEGMENTS_PER_MERGE {
            let Fixture { folder, .. } = fixture;
            return (folder, killed);
        }
    }
    panic!("each merge ended before its files were copied");
}

#[test]
fn an_interrupted_merge_does_not_bring_back_documents_replaced_after_the_restart() {
    let (_folder, dir) = killed_in_a_merge();
    let (mut writer, _) = open_when_free(&dir);
    let from = writer.checkpoint().position.get();
    let edited = Document { version: Version::new(2), ..message(1_000, "final") };
    writer.commit(IndexChanges { upsert: vec![edited], ..empty_changes(from, from + 1) }).unwrap();
    let reader = writer.reader();
    let deadline = Instant::now() + Duration::from_mins(1);
    while segment_count(&dir) as u64 >= SEGMENTS_PER_MERGE {
        assert!(Instant::now() < deadline, "the merge did not start again, or did not end");
        sleep(Duration::from_millis(5));
    }
    reader.refresh().unwrap();
    assert_eq!(
        reader.search(&request("\"draft 1000\"")).unwrap().total.count(),
        0,
        "the text from before the edit was found"
    );
    assert_eq!(reader.search(&request("final")).unwrap().total.count(), 1);
}

/// Merges of large segments are deferred while an index catches up with the log.
#[test]
fn deferred_merges_start_when_the_index_is_live() {
    const LIVE_SEGMENTS_PER_MERGE: usize = 16;
    let mut fixture = Fixture::new();
    for segment in 0..LIVE_SEGMENTS_PER_MERGE as u64 {
        fixture.upsert((1..=1_000).map(|number| message(segment * 1_000 + number, "text")).collect());
    }
    let dir = fixture.dir();
    let Fixture { folder: _folder, writer, index } = fixture;
    // Closing the writer waits for its merges.
    drop((writer, index));
    let (mut writer, _) = open_when_free(&dir);
    assert_eq!(segment_count(&dir), LIVE_SEGMENTS_PER_MERGE);
    let checkpoint = writer.checkpoint();
    writer.begin_live().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while segment_count(&dir) == LIVE_SEGMENTS_PER_MERGE {
        assert!(Instant::now() < deadline, "the merge did not start, or did not end");
        sleep(Duration::from_millis(5));
    }
    assert_eq!(writer.checkpoint(), checkpoint);
    let reader = writer.reader();
    reader.refresh().unwrap();
    assert_eq!(segment_count(&dir), 1);
    assert_eq!(reader.documents(&[key(1), key(16_000)]).unwrap().len(), 2);
}

/// A writer that is dropped waits for its merges. Without the wait, a merge that ends while the writer is dropped would
/// leave a list of segments whose files are removed.
#[test]
fn a_merge_ends_before_its_writer_is_closed() {
    let mut fixture = Fixture::new();
    for number in 1..=SEGMENTS_PER_MERGE {
        fixture.upsert(vec![message(number, "text")]);
    }
    let dir = fixture.dir();
    let Fixture { folder: _folder, writer, index } = fixture;
    drop((writer, index));
    let (writer, _) = open_when_free(&dir);
    assert!((segment_count(&dir) as u64) < SEGMENTS_PER_MERGE);
    assert_eq!(writer.reader().search(&request("text")).unwrap().total.count(), SEGMENTS_PER_MERGE);
}

#[test]
fn an_interrupted_commit_can_be_repeated() {
    let fixture = Fixture::with_texts(&["one", "two", "three"]);
    let dir = fixture.dir();
    let Fixture { folder, writer, index } = fixture;
    drop((writer, index));
    let killed = folder.path().join("killed");
    fs::create_dir(&killed).unwrap();
    copy(&dir, &killed, |_| true).unwrap();
    let changes = || IndexChanges { delete: vec![key(2)], ..empty_changes(1, 2) };
    let (mut undisturbed, _) = open_when_free(&dir);
    undisturbed.commit(changes()).unwrap();
    // A commit without its last step: the new files exist, and the list of segments is the previous one.
    copy(&dir, &killed, |name| name != "meta.json").unwrap();
    let files = fs::read_dir(&killed).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| path.extension().is_some_and(|end| end == "del")).count(), 1);

    let (mut writer, _) = open_when_free(&killed);
    assert_eq!(writer.checkpoint().position, Position::new(1));
    writer.commit(changes()).unwrap();
    assert_eq!(writer.digest().unwrap(), undisturbed.digest().unwrap());
}
