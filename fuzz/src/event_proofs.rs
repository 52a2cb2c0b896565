//! Event proofs, and the leaves in them. A case is read as both.

use chat_domain::Event;
use chat_operations::proof::event_proof::EventProof;
use chat_operations::proof::key::SigningKey;
use chat_operations::proof::leaf;
use chat_operations::proof::tree::Hash;
use chat_operations::proof::verify::SignatureStatus;

use crate::SIGNING_KEY;

/// Proofs can be written and read back, encoding a decoded leaf gives the same bytes, and a proof holds only for an event
/// of its checkpoint.
pub fn check(case: &[u8]) {
    if let Some(event) = leaf::decode(case) {
        assert_eq!(leaf::encode(&event), case);
        assert_eq!(leaf::hash(&event), Hash::of_leaf(case));
    }
    let Ok(text) = str::from_utf8(case) else { return };
    let Ok(proof) = EventProof::parse(text) else { return };
    assert_eq!(EventProof::parse(&proof.to_text()).expect("a proof"), proof);
    let key = SigningKey::from_pem(SIGNING_KEY).expect("a key").verifying_key();
    let Ok(checked) = proof.check(Some(&key)) else { return };
    if checked.included {
        assert!(checked.index < checked.checkpoint.events);
    }
    // This key has signed only one checkpoint, that of the seeds. So a proof that holds is of an event that this
    // checkpoint covers, and all of these are events of apps and chats.
    if checked.included && checked.signature == SignatureStatus::Good {
        assert!(Event::TYPES.contains(&checked.event.event_type.as_str()));
        assert!(checked.event.position <= checked.checkpoint.position);
    }
}
