//! The Merkle tree of RFC 9162, section 2.1, with SHA-256. The root is computed leaf by leaf.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The hash prefix of leaves, so that a leaf can't be taken for a node.
pub(super) const LEAF_PREFIX: u8 = 0x00;

/// The hash prefix of nodes.
const NODE_PREFIX: u8 = 0x01;

/// A SHA-256 hash. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The root of the empty tree: the hash of no bytes.
    pub fn of_nothing() -> Self {
        Self(Sha256::digest(b"").into())
    }

    /// The hash of a leaf with these bytes.
    pub fn of_leaf(bytes: &[u8]) -> Self {
        Self(Sha256::new_with_prefix([LEAF_PREFIX]).chain_update(bytes).finalize().into())
    }

    /// The hash of a node with these children.
    pub fn of_node(left: Self, right: Self) -> Self {
        let node = Sha256::new_with_prefix([NODE_PREFIX]).chain_update(left.0).chain_update(right.0);
        Self(node.finalize().into())
    }

    /// The hash in base64, as in checkpoints.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    /// Parses exactly the format that [`Self::to_base64`] writes.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Parses exactly the format that [`fmt::Display`] writes.
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.as_bytes().iter().all(is_digit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a hash is not 64 hexadecimal digits"))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The right edge of a growing tree: the roots of the largest complete subtrees that its leaves divide into, from left
/// to right. There is one such subtree for each bit that is set in the number of leaves, so at most 64.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    leaf_count: u64,
    subtrees: Vec<Hash>,
}

impl Frontier {
    /// Adds the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.leaf_count += 1;
        let mut hash = leaf;
        // Each trailing zero bit of the number of leaves stands for a pair of subtrees that are now merged.
        for _ in 0..self.leaf_count.trailing_zeros() {
            if let Some(left) = self.subtrees.pop() {
                hash = Hash::of_node(left, hash);
            }
        }
        self.subtrees.push(hash);
    }

    /// The number of leaves so far.
    pub fn leaf_count(&self) -> u64 {
        self.leaf_count
    }

    /// The root of all leaves so far.
    pub fn root(&self) -> Hash {
        let from_the_right = self.subtrees.iter().rev().copied();
        from_the_right.reduce(|right, left| Hash::of_node(left, right)).unwrap_or_else(Hash::of_nothing)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The root as RFC 9162, section 2.1.1, defines it.
    pub(in crate::proof) fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of_nothing(),
            [leaf] => *leaf,
            leaves => {
                // The largest power of two smaller than the number of leaves.
                let left = leaves.len().next_power_of_two() / 2;
                Hash::of_node(root_by_definition(&leaves[..left]), root_by_definition(&leaves[left..]))
            }
        }
    }

    pub(in crate::proof) fn root(leaves: impl IntoIterator<Item = Hash>) -> Hash {
        let mut frontier = Frontier::default();
        leaves.into_iter().for_each(|leaf| frontier.push(leaf));
        frontier.root()
    }

    /// The test vectors of Certificate Transparency implementations.
    fn test_vector_leaves() -> Vec<Hash> {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        leaves.iter().map(|leaf| Hash::of_leaf(leaf)).collect()
    }

    #[test]
    fn roots_match_published_test_vectors() {
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (count, expected) in roots.iter().enumerate() {
            assert_eq!(
                root(test_vector_leaves().into_iter().take(count)).to_string(),
                *expected,
                "{count} leaves"
            );
        }
    }

    proptest! {
        #[test]
        fn the_root_matches_the_definition(count in 0_usize..600, salt: u64) {
            let leaf = |index: usize| Hash::of_leaf(&[salt.to_be_bytes(), index.to_be_bytes()].concat());
            let leaves: Vec<Hash> = (0..count).map(leaf).collect();
            prop_assert_eq!(root(leaves.iter().copied()), root_by_definition(&leaves));
        }
    }

    #[test]
    fn parses_only_the_hexadecimal_form_that_it_prints() {
        let hash = Hash::of_leaf(b"x");
        let text = hash.to_string();
        assert_eq!(Hash::from_hex(&text), Some(hash));
        for wrong in ["", &text[1..], &text.to_uppercase(), &format!("{text} "), &text.replacen('a', "é", 1)]
        {
            assert_eq!(Hash::from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parses_only_the_base64_form_that_it_prints() {
        let hash = Hash::of_leaf(b"x");
        assert_eq!(Hash::from_base64(&hash.to_base64()), Some(hash));
        for wrong in ["", "AAAA", &hash.to_base64()[1..], &format!("{} ", hash.to_base64())] {
            assert_eq!(Hash::from_base64(wrong), None, "{wrong}");
        }
    }
}
