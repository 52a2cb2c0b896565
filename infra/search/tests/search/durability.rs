//! Folders: created, locked, reopened, damaged, replaced.

use std::fs;
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::search_index::SearchError;
use chat_search::{TantivyIndex, TantivyIndexWriter};

use crate::fixture::{Fixture, LOG, message, no_changes, request};

/// The folder of an index with three commits, closed.
fn closed() -> (tempfile::TempDir, PathBuf) {
    let mut fixture = Fixture::of(&["one fox", "two foxes"]);
    fixture.put(vec![message(3, "three fox")]);
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

fn assert_damaged(dir: &Path, what: &str) {
    let opened = TantivyIndexWriter::open(dir);
    assert!(matches!(opened, Err(SearchError::Damaged(_))), "{what}: {:?}", opened.err());
}

#[test]
fn a_missing_folder_is_created_with_those_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("a/b/c");
    assert!(matches!(TantivyIndex::open(&dir), Err(SearchError::NotCreated)));
    let (writer, opened) = TantivyIndexWriter::open(&dir).unwrap();
    assert_eq!((opened, writer.checkpoint()), (StorageOrigin::Created, ProjectionCheckpoint::default()));
    assert_eq!(TantivyIndex::open(&dir).unwrap().position(), Position::START);
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let (_folder, dir) = closed();
    let (mut writer, opened) = TantivyIndexWriter::open(&dir).unwrap();
    assert_eq!(opened, StorageOrigin::Existing);
    assert_eq!(writer.checkpoint(), ProjectionCheckpoint { log: Some(LOG), position: Position::new(2) });
    assert_eq!(writer.reader().search(&request("fox")).unwrap().total, 3);
    writer.commit(no_changes(2, 3)).unwrap();
}

#[test]
fn there_is_one_writer_at_a_time() {
    let fixture = Fixture::of(&["one"]);
    let second = TantivyIndexWriter::open(&fixture.dir());
    assert!(matches!(second, Err(SearchError::InUse(_))));
    assert!(matches!(TantivyIndexWriter::recreate(&fixture.dir()), Err(SearchError::InUse(_))));
    let dir = fixture.dir();
    drop(fixture.writer);
    TantivyIndexWriter::open(&dir).unwrap();
}

#[test]
fn files_of_others_do_not_disturb() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("README.txt"), "hands off").unwrap();
    assert!(matches!(TantivyIndex::open(folder.path()), Err(SearchError::NotCreated)));
    let (writer, opened) = TantivyIndexWriter::open(folder.path()).unwrap();
    assert_eq!(opened, StorageOrigin::Created);
    drop(writer);
    TantivyIndexWriter::open(folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("README.txt")).unwrap(), b"hands off");
}

#[test]
fn every_file_that_was_cut_or_overwritten_is_noticed() {
    for extension in ["idx", "pos", "term", "store", "fast"] {
        let (_folder, dir) = closed();
        let path = files(&dir, extension).pop().unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 3] ^= 0x40;
        for (what, content) in
            [("cut", bytes[..bytes.len() / 2].to_vec()), ("empty", Vec::new()), ("flipped", flipped)]
        {
            fs::write(&path, content).unwrap();
            assert_damaged(&dir, &format!("{extension} {what}"));
        }
        fs::remove_file(&path).unwrap();
        assert_damaged(&dir, &format!("{extension} missing"));
        fs::write(&path, bytes).unwrap();
        TantivyIndexWriter::open(&dir).unwrap();
    }
}

#[test]
fn lists_that_are_missing_or_not_readable_are_noticed() {
    for name in ["meta.json", ".managed.json"] {
        let (_folder, dir) = closed();
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
fn an_index_of_another_version_is_damaged() {
    let (_folder, dir) = closed();
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    let other = meta.replace(r#"\"schema_version\":2"#, r#"\"schema_version\":9"#);
    assert_ne!(meta, other);
    fs::write(dir.join("meta.json"), &other).unwrap();
    assert_damaged(&dir, "another version");
    assert!(matches!(TantivyIndex::open(&dir), Err(SearchError::Damaged(_))));
    fs::write(dir.join("meta.json"), meta.replace("updated_at", "updated_on")).unwrap();
    assert_damaged(&dir, "other fields");
}

#[test]
fn a_reset_moves_the_old_index_aside_and_keeps_one_of_those() {
    let (folder, dir) = closed();
    let reader = TantivyIndex::open(&dir).unwrap();
    fs::write(dir.join("meta.json"), "{").unwrap();
    let mut writer = TantivyIndexWriter::recreate(&dir).unwrap();
    assert_eq!(writer.checkpoint(), ProjectionCheckpoint::default());
    assert_eq!(reader.search(&request("fox")).unwrap().total, 3, "the old one can be read until a refresh");
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.position(), Position::START);
    writer.commit(no_changes(0, 5)).unwrap();
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.position(), Position::new(5));
    drop(writer);
    drop(TantivyIndexWriter::recreate(&dir).unwrap());
    let aside =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("index.damaged-")).count(), 1);
}

#[test]
fn a_reset_of_nothing_creates() {
    let folder = tempfile::tempdir().unwrap();
    let writer = TantivyIndexWriter::recreate(&folder.path().join("index")).unwrap();
    assert_eq!(writer.checkpoint(), ProjectionCheckpoint::default());
}

#[test]
fn while_the_folder_is_away_searches_go_on() {
    let fixture = Fixture::of(&["one fox"]);
    let reader = TantivyIndex::open(&fixture.dir()).unwrap();
    fs::rename(fixture.dir(), fixture.folder.path().join("away")).unwrap();
    assert!(!reader.refresh().unwrap());
    assert_eq!(reader.search(&request("fox")).unwrap().total, 1);
}

#[test]
fn a_failed_commit_is_recovered_from() {
    let mut fixture = Fixture::of(&["one"]);
    let away = fixture.folder.path().join("away");
    fs::rename(fixture.dir(), &away).unwrap();
    let changes =
        || chat_ports::search_index::IndexChanges { upsert: vec![message(2, "two")], ..no_changes(1, 2) };
    assert!(fixture.writer.commit(changes()).is_err());
    fs::rename(&away, fixture.dir()).unwrap();
    fixture.writer.commit(changes()).unwrap();
    assert_eq!(fixture.find("two"), ["two"]);
    assert_eq!(fixture.writer.checkpoint().position, Position::new(2));
}

#[test]
fn an_index_whose_creation_was_cut_short_is_created_again() {
    let (folder, dir) = {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("index");
        drop(TantivyIndexWriter::open(&dir).unwrap());
        (folder, dir)
    };
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap();
    let mut meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    meta.as_object_mut().unwrap().remove("payload");
    fs::write(dir.join("meta.json"), meta.to_string()).unwrap();
    assert!(matches!(TantivyIndex::open(&dir), Err(SearchError::NotCreated)));
    assert_eq!(TantivyIndexWriter::open(&dir).unwrap().1, StorageOrigin::Created);
    drop(folder);
}
