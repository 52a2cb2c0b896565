//! What a process that was killed left behind, and what the next writer makes of it.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use chat_domain::{Position, Version};
use chat_ports::search_index::{Document, IndexChanges};
use chat_search::TantivyIndexWriter;

use crate::fixture::{Fixture, key, message, no_changes, request};

/// Segments of one size that tantivy merges.
const MERGED_AT: u64 = 8;

/// How many segments the last commit or merge has listed.
fn segments(dir: &Path) -> usize {
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    meta["segments"].as_array().unwrap().len()
}

fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if wanted(entry.file_name().to_str().unwrap()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Documents of a segment that takes longer to merge than a writer takes to be dropped.
fn bulk(first: u64, count: u64) -> Vec<Document> {
    let text: Vec<String> = (0..300).map(|word| format!("word{word}")).collect();
    let text = text.join(" ");
    (first..first + count).map(|number| message(number, &format!("draft {number} {text}"))).collect()
}

#[test]
fn a_merge_that_a_kill_cut_short_does_not_bring_back_what_is_replaced_after_the_restart() {
    let mut fixture = Fixture::new();
    // Oldest and largest, and without deletions: the first that a merge looks at.
    fixture.put(bulk(1, 120));
    for segment in 1..MERGED_AT - 1 {
        fixture.put(bulk(segment * 1_000, 100));
    }
    // The commit that sets off the merge leaves deletions in the second segment, as of this very commit.
    let changes =
        IndexChanges { upsert: bulk(9_000, 100), delete: vec![key(1_001)], ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    let dir = fixture.dir();
    let Fixture { folder: _folder, writer, index } = fixture;
    drop((writer, index));
    assert_eq!(segments(&dir) as u64, MERGED_AT, "the writer was gone before the merge was done");

    let (mut writer, _) = TantivyIndexWriter::open(&dir).unwrap();
    let from = writer.checkpoint().position.get();
    let edited = Document { version: Version::new(2), ..message(1_000, "final") };
    writer.commit(IndexChanges { upsert: vec![edited], ..no_changes(from, from + 1) }).unwrap();
    let reader = writer.reader();
    let deadline = Instant::now() + Duration::from_mins(1);
    while segments(&dir) as u64 >= MERGED_AT {
        assert!(Instant::now() < deadline, "the merge is set off again, and ends");
        sleep(Duration::from_millis(5));
    }
    reader.refresh().unwrap();
    assert_eq!(reader.search(&request("\"draft 1000\"")).unwrap().total, 0, "the text before the edit");
    assert_eq!(reader.search(&request("final")).unwrap().total, 1);
}

#[test]
fn what_a_commit_that_was_cut_short_left_behind_is_not_in_the_way_of_the_same_commit() {
    let fixture = Fixture::of(&["one", "two", "three"]);
    let dir = fixture.dir();
    let Fixture { folder, writer, index } = fixture;
    drop((writer, index));
    let killed = folder.path().join("killed");
    fs::create_dir(&killed).unwrap();
    copy(&dir, &killed, |_| true);
    let changes = || IndexChanges { delete: vec![key(2)], ..no_changes(1, 2) };
    let (mut undisturbed, _) = TantivyIndexWriter::open(&dir).unwrap();
    undisturbed.commit(changes()).unwrap();
    // All but the last step of a commit: its files are there, and the list of segments is the one before.
    copy(&dir, &killed, |name| name != "meta.json");
    let of_deletions = fs::read_dir(&killed).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(of_deletions.filter(|path| path.extension().is_some_and(|end| end == "del")).count(), 1);

    let (mut writer, _) = TantivyIndexWriter::open(&killed).unwrap();
    assert_eq!(writer.checkpoint().position, Position::new(1));
    writer.commit(changes()).unwrap();
    assert_eq!(writer.digest().unwrap(), undisturbed.digest().unwrap());
}
