//! Leaves files: each lies beside its checkpoint. A case is the content of one.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use chat_domain::{Position, Timestamp};
use chat_operations::proof::checkpoint::Checkpoint;
use chat_operations::proof::leaves_file::{LeavesReader, LeavesStatus, LeavesWriter};
use chat_operations::proof::tree::{Frontier, Hash};
use chat_ports::event_store::LogId;

use crate::new_folder;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| new_folder().join("checkpoint.leaves"));

/// A file is good exactly if it has the bytes that were written for its checkpoint.
pub fn check(case: &[u8]) {
    fs::write(&*FILE, case).expect("a file");
    let (mut tree, mut leaves) = (Frontier::default(), LeavesWriter::new(Vec::new()));
    let mut reader = LeavesReader::open(&FILE).expect("the file");
    let mut last = Position::START;
    while let Some(leaf) = reader.read().expect("a leaf") {
        tree.push(leaf.hash);
        last = leaf.position;
        leaves.push(leaf).expect("a written leaf");
    }
    let (written, hash) = leaves.finish();
    let checkpoint = Checkpoint {
        log: LogId::NIL,
        events: tree.leaf_count(),
        root: tree.root(),
        position: last,
        time: Timestamp::from_millis(0),
        leaves: hash,
    };
    let status = |checkpoint: &Checkpoint| LeavesReader::check(&FILE, checkpoint).expect("a status");
    let expected = if written == case { LeavesStatus::Good } else { LeavesStatus::Altered };
    assert_eq!(status(&checkpoint), expected);
    let other = [
        Checkpoint { events: checkpoint.events + 1, ..checkpoint.clone() },
        Checkpoint { root: Hash::of_leaf(b"other"), ..checkpoint.clone() },
        Checkpoint { leaves: Hash::of_leaf(b"other"), ..checkpoint },
    ];
    assert!(other.iter().all(|checkpoint| status(checkpoint) == LeavesStatus::Altered));
}
