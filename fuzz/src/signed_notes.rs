//! Signed notes, the checkpoints in them, and key files.

use chat_operations::proof::checkpoint::Checkpoint;
use chat_operations::proof::key::{SigningKey, VerifyingKey};
use chat_operations::proof::note::{Note, SignatureCheck};

use crate::SIGNING_KEY;

/// Notes are written as they were read, but for line breaks at the end; checkpoints and keys can be written and read
/// back; a signature is valid for the text that was signed, and invalid for another text.
pub fn check(case: &[u8]) {
    let Ok(text) = str::from_utf8(case) else { return };
    let key = SigningKey::from_pem(SIGNING_KEY).expect("a key");
    if let Ok(note) = Note::parse(text) {
        let text = format!("{}\n", text.trim_end_matches('\n'));
        assert_eq!(note.to_string(), text);
        if note.check_signature(&key.verifying_key()) == SignatureCheck::Valid {
            let signature = text.rsplit_once("\n\n").expect("a signature").1;
            let changed = Note::parse(&format!("x{}\n{signature}", note.text()));
            let changed = changed.expect("a note").check_signature(&key.verifying_key());
            assert_eq!(changed, SignatureCheck::Invalid);
        }
        check_checkpoint(note.text());
    }
    check_checkpoint(text);
    let is_signable =
        !text.contains(|char: char| char.is_ascii_control() && char != '\n') && text.len() < 60_000;
    if is_signable && text.ends_with('\n') {
        let note = Note::sign(text.to_owned(), &key);
        let parsed = Note::parse(&note.to_string()).expect("a note");
        assert_eq!(parsed, note);
        assert_eq!(parsed.text(), text);
        assert_eq!(parsed.check_signature(&key.verifying_key()), SignatureCheck::Valid);
    }
    if let Ok(key) = VerifyingKey::parse(text) {
        let parsed = VerifyingKey::parse(&key.to_file_content()).expect("a key");
        assert_eq!(parsed.to_string(), key.to_string());
        // A key without a name is written with the default name.
        assert!(key.name().is_none() || parsed == key);
    }
    if let Ok(key) = SigningKey::from_pem(text) {
        let parsed = SigningKey::from_pem(&key.to_pem()).expect("a key");
        assert_eq!(parsed.verifying_key(), key.verifying_key());
    }
}

fn check_checkpoint(text: &str) {
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(Checkpoint::parse(&checkpoint.to_string()).expect("a checkpoint"), checkpoint);
    }
}
