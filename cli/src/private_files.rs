//! Permissions of the program's files: they hold credentials and messages, so only its own user may read them.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use chat_files::durable_fs::parent_dir;
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

use crate::engines::StorageLocations;

/// The permission bits of the group and of other users.
const GROUP_AND_OTHERS: u32 = 0o077;

/// Makes all files and folders that this process creates from now on private: modes 0600 and 0700. This includes the
/// files of engines, and those of programs that the process starts.
pub(crate) fn restrict_new_files() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Makes files and folders that this process creates from now on readable for everyone. Called before it creates files
/// without secrets, such as man pages.
pub(crate) fn allow_public_files() {
    umask(Mode::WGRP | Mode::WOTH);
}

/// Makes existing data of the embedded engines private, because earlier versions left it readable for everyone. A
/// folder that has other content too keeps its mode.
pub(crate) fn restrict_existing(locations: &StorageLocations) {
    let paths = locations.paths();
    let mut folders: Vec<PathBuf> = paths.iter().map(|path| parent_dir(path)).collect();
    folders.sort();
    folders.dedup();
    for folder in folders {
        if geteuid().is_root() && fs::metadata(&folder).is_ok_and(|found| found.uid() != geteuid().as_raw()) {
            tracing::warn!(
                folder = %folder.display(),
                "running as root in a data folder of another user, who can't read the files that this process creates"
            );
        }
        match restrict_folder(&folder, &paths) {
            // Nothing is written to a read-only file system, and a missing folder is created private.
            Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound) => {}
            Ok(FolderAccess::OwnerOnly) => {}
            Ok(FolderAccess::Shared) => tracing::warn!(
                folder = %folder.display(),
                "other users can open the data folder; its files are private, but their names are not"
            ),
            Err(error) => tracing::warn!(
                folder = %folder.display(),
                error = &error as &dyn std::error::Error,
                "other users may be able to read files in the data folder: their permissions can't be restricted"
            ),
        }
    }
}

/// The users who can open a folder.
#[derive(Debug, PartialEq, Eq)]
enum FolderAccess {
    OwnerOnly,
    Shared,
}

/// Restricts the data among the entries of a folder, and the folder itself if it has no other entries.
fn restrict_folder(folder: &Path, data: &[PathBuf]) -> io::Result<FolderAccess> {
    let names: Vec<&OsStr> = data.iter().filter_map(|path| path.file_name()).collect();
    let mut has_other_content = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !names.iter().any(|name| is_data(&entry.file_name(), name)) {
            has_other_content = true;
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_file() || kind.is_dir() {
            restrict(&entry.path())?;
        }
    }
    if !has_other_content {
        restrict(folder)?;
    }
    let is_shared = fs::metadata(folder)?.mode() & GROUP_AND_OTHERS != 0;
    Ok(if is_shared { FolderAccess::Shared } else { FolderAccess::OwnerOnly })
}

/// Whether a file belongs to the data called `name`: it has this name, or is a file beside it such as `events.db-wal`,
/// or a later generation such as `read-model.2.db`.
fn is_data(file: &OsStr, name: &OsStr) -> bool {
    let (file, name) = (file.to_string_lossy(), name.to_string_lossy());
    let stem = name.strip_suffix(".db").unwrap_or(&name);
    let is_generation = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    file.starts_with(&*name)
        || file.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_generation)
}

/// Takes the permissions of the group and of other users from a file or folder.
fn restrict(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & GROUP_AND_OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode & !GROUP_AND_OTHERS)) {
        // Another process removed it meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        restricted => restricted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn folder_with(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        for file in files {
            fs::write(folder.join(file), "").unwrap();
            fs::set_permissions(folder.join(file), Permissions::from_mode(0o644)).unwrap();
        }
        fs::create_dir(folder.join("search-index")).unwrap();
        fs::set_permissions(folder.join("search-index"), Permissions::from_mode(0o755)).unwrap();
        (parent, folder)
    }

    fn data(folder: &Path) -> Vec<PathBuf> {
        ["events.db", "read-model.db", "search-index"].map(|name| folder.join(name)).to_vec()
    }

    #[test]
    fn an_existing_data_folder_is_made_private() {
        let files = ["events.db", "events.db-wal", "read-model.2.db", "read-model.db.damaged-17"];
        let (_parent, folder) = folder_with(&files);
        assert_eq!(restrict_folder(&folder, &data(&folder)).unwrap(), FolderAccess::OwnerOnly);
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("search-index")), 0o700);
        for file in files {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn other_content_and_a_folder_that_has_some_keep_their_modes() {
        let (_parent, folder) = folder_with(&["events.db", "events.txt"]);
        assert_eq!(restrict_folder(&folder, &data(&folder)).unwrap(), FolderAccess::Shared);
        assert_eq!(mode(&folder), 0o755);
        assert_eq!(mode(&folder.join("events.txt")), 0o644);
        assert_eq!(mode(&folder.join("events.db")), 0o600);
    }
}
