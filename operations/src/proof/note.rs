//! Signed notes (c2sp.org/signed-note): a text, a blank line, and a line for each signature.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ProofError;
use super::key::{KeyId, KeyName, SigningKey, VerifyingKey};

/// The prefix of a signature line: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// The maximal size of a note, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// A text with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// An unchecked signature.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    name: KeyName,
    key_id: KeyId,
    bytes: Vec<u8>,
}

/// The result of checking the signatures of a note with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureCheck {
    /// The key signed the text.
    Valid,
    /// A signature names the key, but the key did not make it.
    Invalid,
    /// No signature names the key.
    NotByKey,
}

impl Note {
    /// Signs a text. The text must end with a line break.
    pub fn sign(text: String, key: &SigningKey) -> Self {
        let signature = Signature {
            name: key.name().clone(),
            key_id: key.verifying_key().id(key.name()),
            bytes: key.sign(text.as_bytes()),
        };
        Self { text, signatures: vec![signature] }
    }

    /// Parses a note without checking its signatures. Line breaks at the end may be missing or repeated, as after it
    /// was copied or saved by an editor.
    pub fn parse(note: &str) -> Result<Self, ProofError> {
        const WRONG: ProofError = ProofError::Malformed("this is no signed note");
        let is_forbidden = |char: char| char.is_ascii_control() && char != '\n';
        if note.len() > MAX_BYTES || note.contains(is_forbidden) {
            return Err(WRONG);
        }
        let (text, signatures) = note.trim_end_matches('\n').rsplit_once("\n\n").ok_or(WRONG)?;
        let signatures: Option<Vec<Signature>> = signatures.split('\n').map(Signature::parse).collect();
        Ok(Self { text: format!("{text}\n"), signatures: signatures.ok_or(WRONG)? })
    }

    /// Returns the text. It is trustworthy only if [`Self::check_signature`] returns [`SignatureCheck::Valid`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Checks whether a key signed the text.
    pub fn check_signature(&self, key: &VerifyingKey) -> SignatureCheck {
        let names_key = |signature: &&Signature| {
            key.name().is_none_or(|name| *name == signature.name)
                && key.id(&signature.name) == signature.key_id
        };
        let mut check = SignatureCheck::NotByKey;
        for signature in self.signatures.iter().filter(names_key) {
            if !key.verifies(self.text.as_bytes(), &signature.bytes) {
                return SignatureCheck::Invalid;
            }
            check = SignatureCheck::Valid;
        }
        check
    }
}

impl Signature {
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
        let decoded = STANDARD.decode(encoded).ok()?;
        let (key_id, bytes) = decoded.split_first_chunk()?;
        Some(Self { name: KeyName::parse(name).ok()?, key_id: KeyId(*key_id), bytes: bytes.to_vec() })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|Signature { name, key_id, bytes }| {
            writeln!(f, "{SIGNATURE_PREFIX}{name} {}", STANDARD.encode([&key_id.0[..], bytes].concat()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::generate(KeyName::default()).unwrap()
    }

    #[test]
    fn parses_a_note_and_checks_its_signer() {
        let (key, other) = (key(), key());
        let note = Note::sign("one\n\ntwo\n".to_owned(), &key);
        let parsed = Note::parse(&note.to_string()).unwrap();
        assert_eq!(parsed, note);
        assert_eq!(parsed.check_signature(&key.verifying_key()), SignatureCheck::Valid);
        assert_eq!(parsed.check_signature(&other.verifying_key()), SignatureCheck::NotByKey);
    }

    #[test]
    fn line_breaks_at_the_end_may_be_missing_or_repeated() {
        let note = Note::sign("one\n".to_owned(), &key());
        for end in ["", "\n", "\n\n\n"] {
            assert_eq!(
                Note::parse(&format!("{}{end}", note.to_string().trim_end())).unwrap(),
                note,
                "{end:?}"
            );
        }
    }

    #[test]
    fn a_changed_text_or_signature_is_invalid() {
        let key = key();
        let note = Note::sign("one\n".to_owned(), &key).to_string();
        let changed = Note::parse(&note.replace("one", "two")).unwrap();
        assert_eq!(changed.check_signature(&key.verifying_key()), SignatureCheck::Invalid);
        let other = Note::sign("two\n".to_owned(), &key).to_string();
        let with_other_signature = format!("one\n\n{}", other.rsplit_once("\n\n").unwrap().1);
        assert_eq!(
            Note::parse(&with_other_signature).unwrap().check_signature(&key.verifying_key()),
            SignatureCheck::Invalid
        );
    }

    #[test]
    fn rejects_malformed_notes() {
        for wrong in
            ["", "one\n", "one\n\n", "one\n\n\u{2014} name AAAA", "one\n\n- name AAAAAAAA\n", "\u{7}\n\n"]
        {
            assert!(Note::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
