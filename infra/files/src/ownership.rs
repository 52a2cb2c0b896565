//! Owners of files: files that root creates among those of another user are given to that user, who could not read them
//! otherwise.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

const ROOT: u32 = 0;

/// Gives a file that root has just created to the owner of `reference`. Does nothing if another user created it: that
/// user owns the file and can't give it away.
pub fn give_to_owner_of(reference: &Path, created: &Path) -> io::Result<()> {
    let owner = fs::metadata(reference)?;
    if fs::metadata(created)?.uid() != ROOT || owner.uid() == ROOT {
        return Ok(());
    }
    chown(created, Some(owner.uid()), Some(owner.gid()))
}
