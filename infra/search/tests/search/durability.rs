//! The folder of an index: creation, locking, reopening, damage and recreation.

use std::fs;
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::search_index::{IndexChanges, SearchError};
use chat_search::{TantivyIndex, TantivyIndexWriter};

use crate::fixture::{Fixture, LOG, empty_changes, message, open_when_free, request, when_free};

/// The folder of a closed index with two commits of messages.
fn closed_index() -> (tempfile::TempDir, PathBuf) {
    let mut fixture = Fixture::with_texts(&["one fox", "two foxes"]);
    fixture.upsert(vec![message(3, "three fox")]);
    let dir = fixture.dir();
    let Fixture { folder, writer, index } = fixture;
    drop((writer, index));
    (folder, dir)
}

/// The files with this extension.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == extension)).collect()
}

fn assert_damaged(dir: &Path, case: &str) {
    let opened = when_free(|| TantivyIndexWriter::open(dir));
    assert!(matches!(opened, Err(SearchError::Damaged(_))), "{case}: {:?}", opened.err());
}

#[test]
fn a_missing_folder_is_created_with_its_parents() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("a/b/c");
    assert!(matches!(TantivyIndex::open(&dir), Err(SearchError::NotCreated)));
    let (writer, origin) = TantivyIndexWriter::open(&dir).unwrap();
    assert_eq!((origin, writer.checkpoint()), (StorageOrigin::Created, ProjectionCheckpoint::default()));
    assert_eq!(TantivyIndex::open(&dir).unwrap().position(), Position::START);
}

#[test]
fn commits_survive_reopening() {
    let (_folder, dir) = closed_index();
    let (mut writer, origin) = open_when_free(&dir);
    assert_eq!(origin, StorageOrigin::Existing);
    assert_eq!(writer.checkpoint(), ProjectionCheckpoint { log: Some(LOG), position: Position::new(2) });
    assert_eq!(writer.reader().search(&request("fox")).unwrap().total.count(), 3);
    writer.commit(empty_changes(2, 3)).unwrap();
}

#[test]
fn allows_one_writer_at_a_time() {
    let fixture = Fixture::with_texts(&["one"]);
    let second = TantivyIndexWriter::open(&fixture.dir());
    assert!(matches!(second, Err(SearchError::InUse(_))));
    assert!(matches!(TantivyIndexWriter::recreate(&fixture.dir()), Err(SearchError::InUse(_))));
    let dir = fixture.dir();
    drop(fixture.writer);
    open_when_free(&dir);
}

#[test]
fn leaves_other_files_in_the_folder_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("README.txt"), "hands off").unwrap();
    assert!(matches!(TantivyIndex::open(folder.path()), Err(SearchError::NotCreated)));
    let (writer, origin) = TantivyIndexWriter::open(folder.path()).unwrap();
    assert_eq!(origin, StorageOrigin::Created);
    drop(writer);
    open_when_free(folder.path());
    assert_eq!(fs::read(folder.path().join("README.txt")).unwrap(), b"hands off");
}

#[test]
fn detects_truncated_changed_and_missing_segment_files() {
    for extension in ["idx", "pos", "term", "store", "fast"] {
        let (_folder, dir) = closed_index();
        let path = files(&dir, extension).pop().unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 3] ^= 0x40;
        for (case, content) in
            [("truncated", bytes[..bytes.len() / 2].to_vec()), ("empty", Vec::new()), ("flipped", flipped)]
        {
            fs::write(&path, content).unwrap();
            assert_damaged(&dir, &format!("{extension} {case}"));
        }
        fs::remove_file(&path).unwrap();
        assert_damaged(&dir, &format!("{extension} missing"));
        fs::write(&path, bytes).unwrap();
        open_when_free(&dir);
    }
}

#[test]
fn detects_missing_and_unreadable_metadata_files() {
    for name in ["meta.json", ".managed.json"] {
        let (_folder, dir) = closed_index();
        let path = dir.join(name);
        for content in ["", "{", "[1]", "\u{fffd}"] {
            fs::write(&path, content).unwrap();
            assert_damaged(&dir, &format!("{name} = {content}"));
        }
        fs::remove_file(&path).unwrap();
        assert_damaged(&dir, &format!("{name} missing"));
    }
}

#[test]
fn an_index_of_another_version_or_with_other_fields_is_damaged() {
    let (_folder, dir) = closed_index();
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    let other = meta.replace(r#"\"schema_version\":2"#, r#"\"schema_version\":9"#);
    assert_ne!(meta, other, "meta.json does not have the version that the test replaces");
    fs::write(dir.join("meta.json"), &other).unwrap();
    assert_damaged(&dir, "another version");
    assert!(matches!(TantivyIndex::open(&dir), Err(SearchError::Damaged(_))));
    fs::write(dir.join("meta.json"), meta.replace("updated_at", "updated_on")).unwrap();
    assert_damaged(&dir, "other fields");
}

#[test]
fn recreate_quarantines_the_old_index_and_removes_the_one_quarantined_before() {
    let (folder, dir) = closed_index();
    let reader = TantivyIndex::open(&dir).unwrap();
    fs::write(dir.join("meta.json"), "{").unwrap();
    let mut writer = when_free(|| TantivyIndexWriter::recreate(&dir)).unwrap();
    assert_eq!(writer.checkpoint(), ProjectionCheckpoint::default());
    assert_eq!(
        reader.search(&request("fox")).unwrap().total.count(),
        3,
        "the reader lost the old index before a refresh"
    );
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.position(), Position::START);
    writer.commit(empty_changes(0, 5)).unwrap();
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.position(), Position::new(5));
    drop(writer);
    drop(when_free(|| TantivyIndexWriter::recreate(&dir)).unwrap());
    let names =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("index.damaged-")).count(), 1);
}

#[test]
fn recreate_creates_a_missing_index() {
    let folder = tempfile::tempdir().unwrap();
    let writer = TantivyIndexWriter::recreate(&folder.path().join("index")).unwrap();
    assert_eq!(writer.checkpoint(), ProjectionCheckpoint::default());
}

#[test]
fn searches_continue_while_the_folder_is_missing() {
    let fixture = Fixture::with_texts(&["one fox"]);
    let reader = TantivyIndex::open(&fixture.dir()).unwrap();
    fs::rename(fixture.dir(), fixture.folder.path().join("away")).unwrap();
    assert!(!reader.refresh().unwrap());
    assert_eq!(reader.search(&request("fox")).unwrap().total.count(), 1);
}

#[test]
fn recovers_from_a_failed_commit() {
    let mut fixture = Fixture::with_texts(&["one"]);
    let away = fixture.folder.path().join("away");
    fs::rename(fixture.dir(), &away).unwrap();
    let changes = || IndexChanges { upsert: vec![message(2, "two")], ..empty_changes(1, 2) };
    assert!(fixture.writer.commit(changes()).is_err());
    fs::rename(&away, fixture.dir()).unwrap();
    when_free(|| fixture.writer.commit(changes())).unwrap();
    assert_eq!(fixture.find("two"), ["two"]);
    assert_eq!(fixture.writer.checkpoint().position, Position::new(2));
}

#[test]
fn completes_an_interrupted_creation() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("index");
    drop(TantivyIndexWriter::open(&dir).unwrap());
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    let mut meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    // The first commit, which ends the creation, stores the payload.
    meta.as_object_mut().unwrap().remove("payload");
    fs::write(dir.join("meta.json"), meta.to_string()).unwrap();
    assert!(matches!(TantivyIndex::open(&dir), Err(SearchError::NotCreated)));
    assert_eq!(open_when_free(&dir).1, StorageOrigin::Created);
}
