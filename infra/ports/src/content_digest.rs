//! An order-independent digest of the content of a projection.

use std::fmt;

use sha2::{Digest, Sha256};

/// The sum, modulo 2²⁵⁶, of the SHA-256 of each entity, and the number of entities. Equal for equal content,
/// on every storage engine and in every order of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentDigest {
    entity_count: u64,
    /// The least significant 64 bits first.
    sum: [u64; 4],
}

impl ContentDigest {
    /// Adds an entity by its fields.
    pub fn add(&mut self, fields: &[&[u8]]) {
        self.add_hash(hash_fields(fields));
    }

    /// Adds an entity by its hash from [`hash_fields`].
    pub fn add_hash(&mut self, hash: [u8; 32]) {
        let mut carry = false;
        for (limb, bytes) in self.sum.iter_mut().zip(hash.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            let (sum, limb_overflowed) = limb.overflowing_add(u64::from_le_bytes(word));
            let (sum, carry_overflowed) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = limb_overflowed || carry_overflowed;
        }
        self.entity_count += 1;
    }

    /// The number of entities.
    pub fn entity_count(&self) -> u64 {
        self.entity_count
    }
}

/// Hashes the fields of an entity, each with its length, so that moving a byte to the next field changes the hash.
pub fn hash_fields(fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for field in fields {
        hasher.update((field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    hasher.finalize().into()
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.entity_count)?;
        self.sum.iter().rev().try_for_each(|limb| write!(f, "{limb:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_content_and_not_on_order() {
        let digest_of = |entities: &[&[&[u8]]]| {
            let mut digest = ContentDigest::default();
            for fields in entities {
                digest.add(fields);
            }
            digest
        };
        let (a, b): (&[&[u8]], &[&[u8]]) = (&[b"a", b"1"], &[b"b", b"2"]);
        assert_eq!(digest_of(&[a, b]), digest_of(&[b, a]));
        assert_ne!(digest_of(&[a, b]), digest_of(&[a]));
        assert_ne!(digest_of(&[&[b"a1", b""]]), digest_of(&[a]));
        assert_ne!(digest_of(&[a, a, b]), digest_of(&[a, b, b]));
    }
}
