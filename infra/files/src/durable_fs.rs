//! Durable directory operations: creating folders and quarantining files so that both survive a power failure.
//!
//! A new or renamed directory entry is durable only after the directory itself is synced.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Creates a folder and its missing parents, and syncs the parent of each, so that all are durable.
pub fn create_dir_all(folder: &Path) -> io::Result<()> {
    if folder.try_exists()? {
        if !folder.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        // An earlier run may have crashed between creating the folder and syncing the parent. Errors are ignored: the
        // parent may belong to another user, who is then responsible for syncing it.
        let _ = sync_parent_dir(folder);
        return Ok(());
    }
    create_dir_all(&parent_dir(folder))?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync_parent_dir(folder),
    }
}

/// Makes creations, renames and removals in the parent folder of `path` durable.
pub fn sync_parent_dir(path: &Path) -> io::Result<()> {
    File::open(parent_dir(path))?.sync_all()
}

/// Returns the parent folder of `path`: the working directory for a bare name.
pub fn parent_dir(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Quarantines a file or folder, if it exists: renames it to `<name>.damaged-<unix milliseconds>`. Each file beside it
/// that is called `<name><suffix>`, with one of `suffixes`, becomes `<name>.damaged-<unix milliseconds><suffix>`.
///
/// If the file or folder existed, the results of earlier calls are removed, so that only the latest is kept. Open file
/// handles stay valid.
pub fn quarantine(path: &Path, suffixes: &[&str]) -> io::Result<()> {
    let older = siblings_with_prefix(path, &quarantine_prefix(path, DAMAGED_MARKER))?;
    if rename_with_marker(path, suffixes, DAMAGED_MARKER)? {
        older.iter().try_for_each(|sibling| remove(sibling))?;
    }
    Ok(())
}

/// Quarantines a file or folder that was derived from another log, or from events that the log has lost: as
/// [`quarantine`], but under the name `<name>.other-log-<unix milliseconds>`. Files under such names are never removed:
/// they may hold the only copy of some events.
pub fn quarantine_other_log(path: &Path, suffixes: &[&str]) -> io::Result<()> {
    rename_with_marker(path, suffixes, OTHER_LOG_MARKER).map(drop)
}

// The markers stand between the original name of a quarantined file and the time.
const DAMAGED_MARKER: &str = ".damaged-";
const OTHER_LOG_MARKER: &str = ".other-log-";

/// Quarantines a file or folder and its files with `suffixes` under names with `marker`. Returns `false` if `path` does
/// not exist.
fn rename_with_marker(path: &Path, suffixes: &[&str], marker: &str) -> io::Result<bool> {
    let mut name = quarantine_prefix(path, marker);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    name.push(millis.to_string());
    let quarantine_path = path.with_file_name(name);
    let moved = rename_durably(path, &quarantine_path)?;
    for suffix in suffixes {
        rename_durably(&path_with_suffix(path, suffix), &path_with_suffix(&quarantine_path, suffix))?;
    }
    Ok(moved)
}

/// Removes everything that [`quarantine`] has moved away for this path. Keeps everything that [`quarantine_other_log`]
/// has moved away.
pub fn remove_quarantined(path: &Path) -> io::Result<()> {
    let quarantined = match siblings_with_prefix(path, &quarantine_prefix(path, DAMAGED_MARKER)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        quarantined => quarantined?,
    };
    quarantined.iter().try_for_each(|sibling| remove(sibling))
}

fn quarantine_prefix(path: &Path, marker: &str) -> OsString {
    let mut prefix = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    prefix.push(marker);
    prefix
}

/// Returns `path` with `suffix` appended to its name.
pub fn path_with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames durably. Returns `false` if `from` does not exist.
fn rename_durably(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => sync_parent_dir(from).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn siblings_with_prefix(path: &Path, prefix: &OsString) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent_dir(path))? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        for (path, expected) in
            [("events.db", "."), ("data/events.db", "data"), ("/data/events.db", "/data"), ("", ".")]
        {
            assert_eq!(parent_dir(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn keeps_only_the_latest_quarantined_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/data.db");
        create_dir_all(&parent_dir(&path)).unwrap();
        let list_names = || {
            let entries = fs::read_dir(folder.path().join("a/b")).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        fs::write(path.with_file_name("data.db.damaged-1-wal"), "older").unwrap();
        fs::create_dir(path.with_file_name("data.db.damaged-1")).unwrap();
        quarantine(&path, &["-wal"]).unwrap();
        assert_eq!(list_names().len(), 2, "a missing file replaced the older ones: {:?}", list_names());

        fs::write(&path, "new").unwrap();
        fs::write(path.with_file_name("data.db-wal"), "new").unwrap();
        quarantine(&path, &["-wal"]).unwrap();
        let mut names = list_names();
        names.sort();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(
            names[0].starts_with("data.db.damaged-") && names[1] == format!("{}-wal", names[0]),
            "{names:?}"
        );
        assert_eq!(fs::read_to_string(path.with_file_name(&names[0])).unwrap(), "new");
    }

    #[test]
    fn removes_the_quarantined_files_of_one_path_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        remove_quarantined(&folder.path().join("missing/data.db")).unwrap();
        fs::write(&path, "live").unwrap();
        fs::write(folder.path().join("data.2.db.damaged-1"), "of another file").unwrap();
        fs::write(folder.path().join("data.db.damaged-1-wal"), "beside a quarantined file").unwrap();
        fs::create_dir(folder.path().join("data.db.damaged-1")).unwrap();
        remove_quarantined(&path).unwrap();
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["data.2.db.damaged-1", "data.db"]);
    }
}
