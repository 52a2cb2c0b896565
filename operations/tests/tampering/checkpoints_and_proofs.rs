//! Tests of checkpoints and proofs, and of the detection of altered checkpoints, leaves files and proofs.

use std::fs;

use chat_domain::{OperatorAction, Position, Timestamp};
use chat_operations::audit::LogPoint;
use chat_operations::proof::event_proof::{self, EventProof};
use chat_operations::proof::key::{KeyName, SigningKey};
use chat_operations::proof::leaves_file::LeavesStatus;
use chat_operations::proof::log_integrity;
use chat_operations::proof::verify::{self, SignatureStatus, signature_status};
use chat_operations::proof::{ProofError, leaf, note::Note};
use chat_ports::event_store::{EventStore, LogId, NewIncarnation};

use crate::signed_log::{EVENTS, SignedLog, open, operator};

#[tokio::test(flavor = "multi_thread")]
async fn records_the_use_of_the_key_after_the_signed_events() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let last = log.read_all_backwards(None, 1).await.expect("the log").pop().expect("an event");
    assert_eq!(last.position, Position::new(EVENTS + 1));
    let action = OperatorAction::decode(&last.event_type, last.schema_version, &last.data)
        .expect("an operator action");
    let OperatorAction::SigningKeyUsed(used) = action else { panic!("{action:?}") };
    assert_eq!((used.position, used.events), (signed.checkpoint.position, EVENTS));
    assert_eq!((used.root, used.reason), (signed.checkpoint.root.to_string(), "a test".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leaves_an_alteration_is_detected_but_not_located() {
    let signed = SignedLog::new().await;
    fs::remove_file(signed.leaves_path()).expect("no leaves");
    let verdict = signed.verify(&*signed.altered_copy(|_| ()).log).await;
    assert!(verdict.is_valid() && verdict.leaves == LeavesStatus::Missing, "{verdict:?}");
    let altered = signed.altered_copy(|connection| {
        connection.execute("UPDATE events SET data = '{}' WHERE position = 9", []).expect("an alteration");
    });
    let verdict = signed.verify(&*altered.log).await;
    assert!(!verdict.is_valid() && verdict.altered.is_none(), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_stays_valid_in_a_new_incarnation_that_has_its_events() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let incarnation = NewIncarnation {
        log: LogId(uuid::Uuid::from_u128(8)),
        began_at: Timestamp::from_millis(0),
        reason: "a test".to_owned(),
        replaces: Vec::new(),
    };
    log.begin_incarnation(incarnation).await.expect("an incarnation");
    let verdict = signed.verify(&log).await;
    assert!(verdict.is_valid() && verdict.log != verdict.checkpoint.log, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn distinguishes_altered_leaves_from_an_altered_log() {
    let signed = SignedLog::new().await;
    let leaves = fs::read(signed.leaves_path()).expect("the leaves");
    let copy = signed.altered_copy(|_| ());
    for altered in [
        // An entry is a position of 8 bytes and a hash of 32 bytes.
        // A changed position, a changed hash, a missing entry, an extra entry, and an incomplete extra entry.
        [&[leaves[0] ^ 1], &leaves[1..]].concat(),
        [&leaves[..39], &[leaves[39] ^ 1], &leaves[40..]].concat(),
        leaves[40..].to_vec(),
        [&leaves[..], &leaves[..40]].concat(),
        [&leaves[..], &leaves[..3]].concat(),
    ] {
        fs::write(signed.leaves_path(), altered).expect("an alteration");
        let verdict = signed.verify(&*copy.log).await;
        assert_eq!(
            (verdict.leaves, verdict.unaltered, verdict.is_valid()),
            (LeavesStatus::Altered, true, false)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn detects_a_checkpoint_that_the_key_did_not_sign() {
    let signed = SignedLog::new().await;
    let copy = signed.altered_copy(|_| ());
    let text = fs::read_to_string(signed.checkpoint_path()).expect("the checkpoint");
    fs::write(signed.checkpoint_path(), text.replace("time 20", "time 21")).expect("an alteration");
    let verdict = signed.verify(&*copy.log).await;
    assert_eq!(
        (verdict.signature, verdict.unaltered, verdict.is_valid()),
        (SignatureStatus::Wrong, true, false)
    );
    let other_key = SigningKey::generate(KeyName::default()).expect("a key");
    let note = Note::sign(signed.checkpoint.to_string(), &other_key);
    assert_eq!(signature_status(&note, Some(&signed.key.verifying_key())), SignatureStatus::ByAnotherKey);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_checkpoint_records_no_action_and_leaves_no_draft() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let operator = operator();
    let before = log.head().await.expect("a head");
    for out in [signed.checkpoint_path(), signed.folder.path().join("no such folder/checkpoint")] {
        let made =
            verify::make_checkpoint(&log, None, &signed.key, &out, (&operator, "a test"), &mut |_| ()).await;
        assert!(made.is_err(), "a checkpoint was made at {}", out.display());
    }
    assert_eq!(log.head().await.expect("a head"), before, "an action was recorded");
    let drafts = fs::read_dir(signed.folder.path()).expect("the folder").filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains("draft"))
    });
    assert_eq!(drafts.count(), 0, "a draft was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_may_end_at_a_position_or_a_time() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let operator = operator();
    for (name, until, expected) in [
        ("position", LogPoint::Position(Position::new(12)), 12),
        ("time", LogPoint::Time(Timestamp::from_millis(1_790_000_000_006)), 7),
        ("nothing", LogPoint::Position(Position::START), 0),
    ] {
        let out = signed.folder.path().join(name);
        let made =
            verify::make_checkpoint(&log, Some(until), &signed.key, &out, (&operator, "a test"), &mut |_| ())
                .await;
        let made = made.expect("a checkpoint");
        assert_eq!((made.events, made.position.get()), (expected, expected), "{name}");
        let verdict = verify::verify(&log, &out, Some(&signed.key.verifying_key()), &mut |_| ()).await;
        assert!(verdict.expect("a verdict").is_valid(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proves_every_event() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let key = signed.key.verifying_key();
    for number in 1..=EVENTS {
        if number == EVENTS / 2 {
            // The second half is proved without the leaves file.
            fs::remove_file(signed.leaves_path()).expect("no leaves");
        }
        let proof = event_proof::prove(&log, Position::new(number), &signed.checkpoint_path(), &mut |_| ())
            .await
            .expect("a proof");
        let checked =
            EventProof::parse(&proof.to_text()).expect("a proof").check(Some(&key)).expect("an event");
        assert!(checked.included && checked.signature == SignatureStatus::Good, "event {number}");
        assert_eq!((checked.event.position.get(), checked.index), (number, number - 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn detects_altered_proofs() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let key = signed.key.verifying_key();
    let proof = event_proof::prove(&log, Position::new(9), &signed.checkpoint_path(), &mut |_| ())
        .await
        .expect("a proof");
    let text = proof.to_text();
    let lines: Vec<&str> = text.lines().collect();
    let mut other = log.read_all(Position::new(8), 1).await.expect("the log").remove(0);
    other.data = br#"{"message_number":2,"body":"something else"}"#.to_vec();
    let other_leaf = base64(&leaf::encode(&other));
    for (line, changed) in [
        (1, format!("extra {other_leaf}")),
        (2, "index 9".to_owned()),
        (2, "index 99999".to_owned()),
        (3, lines[4].to_owned()),
    ] {
        let mut lines = lines.clone();
        lines[line] = &changed;
        let checked = EventProof::parse(&(lines.join("\n") + "\n"))
            .expect("a proof")
            .check(Some(&key))
            .expect("an event");
        assert!(!checked.included, "line {line}: {changed}");
    }
    let checked = EventProof::parse(&text.replace("time 20", "time 21")).expect("a proof").check(Some(&key));
    assert_eq!(checked.expect("an event").signature, SignatureStatus::Wrong);
    for wrong in
        ["", "c2sp.org/tlog-proof@v1\n", &text.replace("index", "place"), &text.replace("\n\n", "\n")]
    {
        assert!(EventProof::parse(wrong).is_err(), "{wrong}");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn does_not_prove_missing_unsigned_or_altered_events() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    for number in [0, EVENTS + 1, EVENTS + 100] {
        let proof =
            event_proof::prove(&log, Position::new(number), &signed.checkpoint_path(), &mut |_| ()).await;
        assert!(matches!(proof, Err(ProofError::NotProvable(_))), "event {number}: {proof:?}");
    }
    let altered = signed.altered_copy(|connection| {
        connection.execute("UPDATE events SET data = '{}' WHERE position = 9", []).expect("an alteration");
    });
    let proof =
        event_proof::prove(&*altered.log, Position::new(9), &signed.checkpoint_path(), &mut |_| ()).await;
    assert!(matches!(proof, Err(ProofError::NotProvable(_))), "{proof:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_the_integrity_of_the_log_without_a_checkpoint() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let report = log_integrity::check(&log, None, &mut |_| ()).await.expect("a report");
    assert_eq!((report.events, report.streams, report.faults.len()), (EVENTS + 1, 6, 0));
    let altered = signed.altered_copy(|connection| {
        connection.execute("UPDATE events SET revision = 7 WHERE position = 9", []).expect("an alteration");
    });
    let report = log_integrity::check(&*altered.log, None, &mut |_| ()).await.expect("a report");
    assert_eq!(report.faults[0].position(), Position::new(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_event_directly_after_the_checked_events_does_not_matter() {
    let signed = SignedLog::new().await;
    let altered = signed.altered_copy(|connection| {
        connection.execute("UPDATE events SET schema_version = -1 WHERE position = 31", []).expect("damage");
    });
    let (log, operator) = (&*altered.log, operator());
    let (until, out) = (Position::new(30), signed.folder.path().join("thirty"));
    let point = LogPoint::Position(until);
    let made =
        verify::make_checkpoint(log, Some(point), &signed.key, &out, (&operator, "a test"), &mut |_| ())
            .await;
    assert_eq!(made.expect("a checkpoint").events, 30);
    let report = log_integrity::check(log, Some(until), &mut |_| ()).await.expect("a report");
    assert_eq!((report.events, report.faults), (30, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_events_of_version_1_stays_valid_when_events_of_version_2_follow() {
    let signed = SignedLog::new().await;
    let log = open(signed.folder.path());
    let event = chat_ports::event_store::NewEvent {
        id: chat_domain::metadata::EventId::new(uuid::Uuid::from_u128(77)),
        event_type: "MessageCreated",
        schema_version: chat_domain::event::SchemaVersion(2),
        recorded_at: Timestamp::from_millis(1),
        data: r#"{"message_number":1,"body":"Hi","sender":{"id":"u-17"},"data":{"a":1.50}}"#.to_owned(),
        metadata: "{}".into(),
    };
    let append = chat_ports::event_store::StreamAppend {
        stream: "chat-new-1".into(),
        expected_revision: chat_domain::ExpectedRevision::NoStream,
        events: vec![event],
    };
    log.append(vec![append]).await.remove(0).expect("an append");
    let verdict = signed.verify(&log).await;
    assert!(verdict.is_valid() && verdict.leaves == LeavesStatus::Good, "{verdict:?}");
}
