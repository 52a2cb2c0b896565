//! Atomic files: a file appears complete or not at all.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chat_files::durable_fs::{parent_dir, sync_parent_dir};
use tempfile::NamedTempFile;

/// The access permissions of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// The permissions that the umask allows.
    UmaskDefault,
    /// Access for the owner only.
    OwnerOnly,
}

/// A new file, written to a temporary file in the same folder. Removed when dropped without [`NewFile::persist`].
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    temp_file: BufWriter<NamedTempFile>,
}

impl NewFile {
    /// Creates the temporary file. Fails if `path` already exists.
    pub fn create(path: &Path, access: FileAccess) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, FileExists));
        }
        let mode = match access {
            FileAccess::UmaskDefault => 0o666,
            FileAccess::OwnerOnly => 0o600,
        };
        Ok(Self { path: path.to_owned(), temp_file: BufWriter::new(create_temp_file(path, mode)?) })
    }

    /// Syncs the file and renames it to its path. Fails if a file exists at the path by then.
    pub fn persist(self) -> io::Result<()> {
        let temp_file = self.temp_file.into_inner().map_err(io::IntoInnerError::into_error)?;
        temp_file.as_file().sync_all()?;
        temp_file.persist_noclobber(&self.path)?;
        sync_parent_dir(&self.path)
    }
}

/// The error for a file that is in the way of a new one.
#[derive(Debug, thiserror::Error)]
#[error("the file exists already, and is never replaced; choose another name")]
struct FileExists;

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp_file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp_file.flush()
    }
}

/// Replaces the content of a small file atomically and durably.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temp_file = create_temp_file(path, 0o666)?;
    temp_file.write_all(content)?;
    temp_file.as_file().sync_all()?;
    temp_file.persist(path)?;
    sync_parent_dir(path)
}

/// Creates a temporary file beside the path. The name is random, so that a temporary file left by a crash does no harm.
fn create_temp_file(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".draft-");
    tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(parent_dir(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_appears_when_persisted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut file = NewFile::create(&path, FileAccess::OwnerOnly).unwrap();
        file.write_all(b"all of it").unwrap();
        assert!(!path.exists());
        file.persist().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn never_replaces_an_existing_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let file = NewFile::create(&path, FileAccess::UmaskDefault).unwrap();
        fs::write(&path, "first").unwrap();
        assert!(NewFile::create(&path, FileAccess::UmaskDefault).is_err());
        assert!(file.persist().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn ignores_a_temporary_file_left_by_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::mem::forget(NewFile::create(&path, FileAccess::OwnerOnly).unwrap());
        NewFile::create(&path, FileAccess::OwnerOnly).unwrap().persist().unwrap();
        assert!(path.exists());
    }

    #[test]
    fn removes_the_temporary_file_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        drop(NewFile::create(&folder.path().join("key"), FileAccess::UmaskDefault).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
