//! Inclusion paths in Merkle trees. A case is the number of leaves, the index of one, and pairs of bytes. Each pair
//! is a change to the path or to the number of leaves: its kind, and an operand. Some pairs change nothing.

use chat_operations::proof::inclusion::{InclusionPath, InclusionPathBuilder, root_from_path};
use chat_operations::proof::tree::{Frontier, Hash};

/// The tree and its paths are those of RFC 9162. A changed path does not lead to the root, unless the number of leaves
/// was changed too.
pub fn check(case: &[u8]) {
    let [count, index, changes @ ..] = case else { return };
    let (count, index) = (usize::from(*count), usize::from(*index));
    let leaves: Vec<Hash> = (0..count).map(|leaf| Hash::of_leaf(&leaf.to_be_bytes())).collect();
    let root = root_by_definition(&leaves);
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    assert_eq!(frontier.root(), root);

    let builder = InclusionPathBuilder::new(index as u64, count as u64);
    assert_eq!(builder.is_some(), index < count);
    let Some(mut builder) = builder else { return };
    leaves.iter().for_each(|leaf| builder.push(*leaf));
    let path = builder.finish().expect("a path");
    assert_eq!(path.hashes, path_by_definition(&leaves, index));
    assert_eq!(root_from_path(&path, count as u64), Some(root));

    let (mut changed, mut changed_count) = (path.clone(), count as u64);
    for change in changes.chunks_exact(2) {
        apply_change(&mut changed, &mut changed_count, (change[0], change[1]));
    }
    // A tree with another number of leaves can have the same shape along the path, and then the path leads to the root.
    if changed_count == count as u64 {
        assert_eq!(root_from_path(&changed, changed_count) == Some(root), changed == path);
    } else {
        let _ = root_from_path(&changed, changed_count);
    }
}

fn apply_change(path: &mut InclusionPath, count: &mut u64, (kind, operand): (u8, u8)) {
    let operand = usize::from(operand);
    let hash_index = operand % path.hashes.len().max(1);
    match kind % 8 {
        0 => path.index = path.index.wrapping_add(operand as u64),
        1 => path.index = u64::MAX - operand as u64,
        2 => path.leaf.0[operand % 32] ^= 1,
        3 if !path.hashes.is_empty() => drop(path.hashes.remove(hash_index)),
        4 => path.hashes.insert(hash_index, Hash::of_nothing()),
        5 if !path.hashes.is_empty() => path.hashes[hash_index].0[operand % 32] ^= 0x80,
        6 if path.hashes.len() > 1 => path.hashes.swap(hash_index, 0),
        7 => *count = count.wrapping_add(operand as u64).wrapping_mul(0x0101_0101_0101_0101),
        _ => {}
    }
}

/// The root as RFC 9162, section 2.1.1, defines it.
fn root_by_definition(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of_nothing(),
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            Hash::of_node(root_by_definition(left), root_by_definition(right))
        }
    }
}

/// The path as RFC 9162, section 2.1.3.1, defines it.
fn path_by_definition(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, sibling) = if index < left.len() {
        (path_by_definition(left, index), right)
    } else {
        (path_by_definition(right, index - left.len()), left)
    };
    path.push(root_by_definition(sibling));
    path
}
