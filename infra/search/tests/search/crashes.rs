//! Crashes: a writer that opens an index after its predecessor was killed.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use chat_domain::{Position, Version};
use chat_ports::search_index::{Document, IndexChanges};
use chat_search::TantivyIndexWriter;

use crate::fixture::{Fixture, empty_changes, key, message, request};

/// The number of small segments at which a merge of them starts.
const SEGMENTS_PER_MERGE: u64 = 8;

/// The number of segments after the last commit or merge.
fn segment_count(dir: &Path) -> usize {
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    meta["segments"].as_array().unwrap().len()
}

/// Copies the files that match a filter.
fn copy(from: &Path, to: &Path, filter: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if filter(entry.file_name().to_str().unwrap()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Documents that take longer to merge than a writer takes to be dropped.
fn large_batch(first: u64, count: u64) -> Vec<Document> {
    let text: Vec<String> = (0..300).map(|word| format!("word{word}")).collect();
    let text = text.join(" ");
    (first..first + count).map(|number| message(number, &format!("draft {number} {text}"))).collect()
}

#[test]
fn an_interrupted_merge_does_not_bring_back_documents_replaced_after_the_restart() {
    let mut fixture = Fixture::new();
    // The oldest and largest segment, without deletions: a merge visits it first.
    fixture.upsert(large_batch(1, 120));
    for segment in 1..SEGMENTS_PER_MERGE - 1 {
        fixture.upsert(large_batch(segment * 1_000, 100));
    }
    // This commit starts the merge, and deletes a document of the second segment.
    let changes =
        IndexChanges { upsert: large_batch(9_000, 100), delete: vec![key(1_001)], ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    let dir = fixture.dir();
    let Fixture { folder: _folder, writer, index } = fixture;
    drop((writer, index));
    assert_eq!(
        segment_count(&dir) as u64,
        SEGMENTS_PER_MERGE,
        "the writer should be dropped before the merge is done"
    );

    let (mut writer, _) = TantivyIndexWriter::open(&dir).unwrap();
    let from = writer.checkpoint().position.get();
    let edited = Document { version: Version::new(2), ..message(1_000, "final") };
    writer.commit(IndexChanges { upsert: vec![edited], ..empty_changes(from, from + 1) }).unwrap();
    let reader = writer.reader();
    let deadline = Instant::now() + Duration::from_mins(1);
    while segment_count(&dir) as u64 >= SEGMENTS_PER_MERGE {
        assert!(Instant::now() < deadline, "the merge should start again, and end");
        sleep(Duration::from_millis(5));
    }
    reader.refresh().unwrap();
    assert_eq!(reader.search(&request("\"draft 1000\"")).unwrap().total, 0, "the text before the edit");
    assert_eq!(reader.search(&request("final")).unwrap().total, 1);
}

#[test]
fn an_interrupted_commit_can_be_repeated() {
    let fixture = Fixture::with_texts(&["one", "two", "three"]);
    let dir = fixture.dir();
    let Fixture { folder, writer, index } = fixture;
    drop((writer, index));
    let killed = folder.path().join("killed");
    fs::create_dir(&killed).unwrap();
    copy(&dir, &killed, |_| true);
    let changes = || IndexChanges { delete: vec![key(2)], ..empty_changes(1, 2) };
    let (mut undisturbed, _) = TantivyIndexWriter::open(&dir).unwrap();
    undisturbed.commit(changes()).unwrap();
    // All but the last step of a commit: its files exist, and the list of segments is the previous one.
    copy(&dir, &killed, |name| name != "meta.json");
    let files = fs::read_dir(&killed).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| path.extension().is_some_and(|end| end == "del")).count(), 1);

    let (mut writer, _) = TantivyIndexWriter::open(&killed).unwrap();
    assert_eq!(writer.checkpoint().position, Position::new(1));
    writer.commit(changes()).unwrap();
    assert_eq!(writer.digest().unwrap(), undisturbed.digest().unwrap());
}
