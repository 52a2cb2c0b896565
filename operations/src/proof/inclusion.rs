//! Inclusion proofs for leaves of a Merkle tree (RFC 9162, section 2.1.3).

use std::ops::Range;

use super::tree::{Frontier, Hash};

/// Builds the path from a leaf to the root in one pass over all leaves.
#[derive(Debug)]
pub struct InclusionPathBuilder {
    index: u64,
    pushed: u64,
    /// The sibling subtrees of the path, from the leaf up: the range of leaves of each, and its frontier so far.
    siblings: Vec<(Range<u64>, Frontier)>,
    leaf: Option<Hash>,
}

/// The path from a leaf to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionPath {
    /// The leaf's index in the tree, from 0.
    pub index: u64,
    /// The hash of the leaf.
    pub leaf: Hash,
    /// The sibling hashes, from the leaf up.
    pub hashes: Vec<Hash>,
}

impl InclusionPathBuilder {
    /// Creates a builder for the leaf at `index` of a tree of `leaf_count` leaves; `None` if there is no such leaf.
    pub fn new(index: u64, leaf_count: u64) -> Option<Self> {
        if index >= leaf_count {
            return None;
        }
        let mut siblings = Vec::new();
        let mut subtree_leaves = 0..leaf_count;
        while subtree_leaves.end - subtree_leaves.start > 1 {
            let size = subtree_leaves.end - subtree_leaves.start;
            // The largest power of two smaller than the size.
            let middle = subtree_leaves.start + (1 << (size - 1).ilog2());
            let (inside, outside) = if index < middle {
                (subtree_leaves.start..middle, middle..subtree_leaves.end)
            } else {
                (middle..subtree_leaves.end, subtree_leaves.start..middle)
            };
            siblings.push((outside, Frontier::default()));
            subtree_leaves = inside;
        }
        siblings.reverse();
        Some(Self { index, pushed: 0, siblings, leaf: None })
    }

    /// Adds the next leaf of the tree.
    pub fn push(&mut self, leaf: Hash) {
        let index = self.pushed;
        self.pushed += 1;
        if index == self.index {
            self.leaf = Some(leaf);
        } else if let Some((_, subtree)) =
            self.siblings.iter_mut().find(|(leaves, _)| leaves.contains(&index))
        {
            subtree.push(leaf);
        }
    }

    /// Returns the path; `None` if leaves are missing.
    pub fn finish(self) -> Option<InclusionPath> {
        let hash = |(leaves, subtree): (Range<u64>, Frontier)| {
            (subtree.leaf_count() == leaves.end - leaves.start).then(|| subtree.root())
        };
        let hashes: Option<Vec<Hash>> = self.siblings.into_iter().map(hash).collect();
        Some(InclusionPath { index: self.index, leaf: self.leaf?, hashes: hashes? })
    }
}

/// Computes the root that a path leads to in a tree of `leaf_count` leaves; `None` if the tree has no such leaf, or if
/// the path is too short or too long for this tree.
pub fn root_from_path(path: &InclusionPath, leaf_count: u64) -> Option<Hash> {
    if path.index >= leaf_count {
        return None;
    }
    // `node` and `last` are `fn` and `sn` of the RFC: the index of the path's node in a row of the tree, and the index
    // of the last node in that row.
    let (mut node, mut last) = (path.index, leaf_count - 1);
    let mut node_hash = path.leaf;
    for sibling in &path.hashes {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            node_hash = Hash::of_node(*sibling, node_hash);
            // A left child that is the last of its row has no sibling, so it moves up unchanged.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            node_hash = Hash::of_node(node_hash, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(node_hash)
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::{root, root_by_definition};
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|index| Hash::of_leaf(&index.to_be_bytes())).collect()
    }

    fn path(leaves: &[Hash], index: u64) -> InclusionPath {
        let mut builder = InclusionPathBuilder::new(index, leaves.len() as u64).unwrap();
        for leaf in leaves {
            builder.push(*leaf);
        }
        builder.finish().unwrap()
    }

    /// The path as RFC 9162, section 2.1.3.1, defines it.
    fn path_by_definition(leaves: &[Hash], index: usize) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        let (mut path, beside) = if index < left.len() {
            (path_by_definition(left, index), right)
        } else {
            (path_by_definition(right, index - left.len()), left)
        };
        path.push(root_by_definition(beside));
        path
    }

    #[test]
    fn paths_match_the_definition_and_lead_to_the_root() {
        for count in 1..=70 {
            let leaves = leaves(count);
            for index in 0..count {
                let path = path(&leaves, index);
                let expected = path_by_definition(&leaves, usize::try_from(index).unwrap());
                assert_eq!(path.hashes, expected, "path of leaf {index} of {count}");
                assert_eq!(
                    root_from_path(&path, count),
                    Some(root(leaves.iter().copied())),
                    "root from leaf {index} of {count}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_path_does_not_lead_to_the_root(count in 1_u64..300, at: prop::sample::Index, other: prop::sample::Index) {
            let leaves = leaves(count);
            let expected_root = root(leaves.iter().copied());
            let valid = path(&leaves, at.index(leaves.len()) as u64);
            let other_index = other.index(leaves.len()) as u64;
            if other_index != valid.index {
                prop_assert_ne!(root_from_path(&InclusionPath { index: other_index, ..valid.clone() }, count), Some(expected_root));
            }
            prop_assert_ne!(root_from_path(&InclusionPath { leaf: Hash::of_leaf(b"other"), ..valid.clone() }, count), Some(expected_root));
            let mut longer = valid.clone();
            longer.hashes.push(Hash::of_nothing());
            prop_assert_ne!(root_from_path(&longer, count), Some(expected_root));
            if !valid.hashes.is_empty() {
                let mut changed = valid.clone();
                let hash_index = other.index(changed.hashes.len());
                changed.hashes[hash_index].0[0] ^= 1;
                prop_assert_ne!(root_from_path(&changed, count), Some(expected_root));
                let mut shorter = valid;
                shorter.hashes.pop();
                prop_assert_ne!(root_from_path(&shorter, count), Some(expected_root));
            }
        }
    }

    #[test]
    fn has_no_path_for_a_missing_leaf_or_an_incomplete_tree() {
        assert!(InclusionPathBuilder::new(3, 3).is_none());
        let mut builder = InclusionPathBuilder::new(0, 3).unwrap();
        for leaf in leaves(2) {
            builder.push(leaf);
        }
        assert_eq!(builder.finish(), None);
    }
}
