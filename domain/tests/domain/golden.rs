//! Decoding and encoding of every stored version of every event type: `golden/` holds one payload of each version.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use chat_domain::event::{DecodeError, SchemaVersion};
use chat_domain::{Event, OperatorAction};

struct Golden {
    file: PathBuf,
    event_type: String,
    version: SchemaVersion,
    payload: String,
}

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn golden_files() -> Vec<Golden> {
    let entries = fs::read_dir(golden_folder()).expect("the golden folder");
    entries.map(|entry| read(entry.expect("a folder entry").path())).collect()
}

fn read(file: PathBuf) -> Golden {
    let name = file.file_name().and_then(|name| name.to_str()).expect("a readable name");
    let (event_type, version) = name
        .strip_suffix(".json")
        .and_then(|stem| stem.split_once(".v"))
        .unwrap_or_else(|| panic!("{name} is not named <EventType>.v<version>.json"));
    let event_type = event_type.to_owned();
    let version = SchemaVersion(version.parse().expect("a version in the name"));
    let payload = fs::read_to_string(&file).expect("a readable file");
    Golden { event_type, version, payload: payload.trim_end_matches('\n').to_owned(), file }
}

#[test]
fn every_version_of_every_event_type_has_a_golden_file() {
    let present: BTreeSet<_> =
        golden_files().into_iter().map(|golden| (golden.event_type, golden.version)).collect();
    let events = Event::TYPES.iter().map(|name| (*name, Event::newest_version(name)));
    let actions = OperatorAction::TYPES.iter().map(|name| (*name, OperatorAction::newest_version(name)));
    let expected: BTreeSet<_> = events
        .chain(actions)
        .flat_map(|(name, newest)| {
            let newest = newest.expect("a version of each type");
            (1..=newest.0).map(move |version| (name.to_owned(), SchemaVersion(version)))
        })
        .collect();
    assert_eq!(present, expected);
}

/// Decodes a golden payload and encodes it again; returns the event's type, and the new version and payload.
fn reencode(golden: &Golden) -> Result<(&'static str, SchemaVersion, String), DecodeError> {
    let Golden { event_type, version, payload, .. } = golden;
    if OperatorAction::TYPES.contains(&event_type.as_str()) {
        let action = OperatorAction::decode(event_type, *version, payload.as_bytes())?;
        return Ok((action.event_type(), action.schema_version(), action.payload()));
    }
    let event = Event::decode(event_type, *version, payload.as_bytes())?;
    Ok((event.event_type(), event.schema_version(), event.payload()))
}

#[test]
fn decodes_every_golden_file_as_an_event_of_its_type() {
    for golden in golden_files() {
        let (event_type, _, _) =
            reencode(&golden).unwrap_or_else(|error| panic!("{}: {error}", golden.file.display()));
        assert_eq!(event_type, golden.event_type, "{}", golden.file.display());
    }
}

#[test]
fn encodes_every_event_byte_for_byte_as_its_golden_file() {
    for golden in golden_files() {
        let (_, version, payload) =
            reencode(&golden).unwrap_or_else(|error| panic!("{}: {error}", golden.file.display()));
        assert_eq!((version, &payload), (golden.version, &golden.payload), "{}", golden.file.display());
    }
}

#[test]
fn decodes_the_text_of_a_golden_message_unchanged() {
    for name in ["MessageCreated.v1.json", "MessageCreated.v2.json"] {
        let golden = read(golden_folder().join(name));
        let decoded = Event::decode(&golden.event_type, golden.version, golden.payload.as_bytes());
        let Ok(Event::MessageCreated(created)) = decoded else { panic!("{name}: {decoded:?}") };
        assert_eq!(created.message_number.get(), 7, "{name}");
        let text = "Grüße, мир, 世界 \u{1f44b}\u{1f3fd} — \"quoted\" \\ \n\t</b>";
        assert_eq!(created.body.as_str(), text, "{name}");
    }
}
