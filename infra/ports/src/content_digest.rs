//! A digest over the content of a projection, whatever order its parts come in.

use std::fmt;

use sha2::{Digest, Sha256};

/// The sum, modulo 2²⁵⁶, of the SHA-256 of each part, and how many parts there were: equal for equal content, however
/// the content is stored and in whatever order it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentDigest {
    entity_count: u64,
    sum: [u64; 4],
}

impl ContentDigest {
    /// Adds a part: its fields, each with its length, so that moving a byte from one field to the next shows.
    pub fn add(&mut self, fields: &[&[u8]]) {
        self.add_hash(hash_fields(fields));
    }

    /// Adds a part that is hashed already.
    pub fn add_hash(&mut self, hash: [u8; 32]) {
        let mut carry = false;
        for (limb, bytes) in self.sum.iter_mut().zip(hash.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            let (sum, over) = limb.overflowing_add(u64::from_le_bytes(word));
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over || over_again;
        }
        self.entity_count += 1;
    }

    /// How many parts were added.
    pub fn entity_count(&self) -> u64 {
        self.entity_count
    }
}

/// What a part hashes to.
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
    fn order_does_not_matter_and_content_does() {
        let digest_of = |parts: &[&[&[u8]]]| {
            let mut digest = ContentDigest::default();
            for fields in parts {
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
