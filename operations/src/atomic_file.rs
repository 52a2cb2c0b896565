//! Files that are there whole or not at all, and never take another one's place.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chat_files::durable_fs::{parent_dir, sync_parent_dir};
use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// Whoever the umask lets.
    UmaskDefault,
    /// Its owner alone.
    OwnerOnly,
}

/// A file that is being written, under another name beside its own. Without [`NewFile::keep`] it is removed.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    temp_file: BufWriter<NamedTempFile>,
}

impl NewFile {
    /// Begins a file. Fails where there is one of this name.
    pub fn create(path: &Path, readers: FileAccess) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mode = match readers {
            FileAccess::UmaskDefault => 0o666,
            FileAccess::OwnerOnly => 0o600,
        };
        Ok(Self { path: path.to_owned(), temp_file: BufWriter::new(create_temp_file(path, mode)?) })
    }

    /// Gives the file its name, when all of it is on disk. Fails where there is one of this name by now.
    pub fn persist(self) -> io::Result<()> {
        let draft = self.temp_file.into_inner().map_err(io::IntoInnerError::into_error)?;
        draft.as_file().sync_all()?;
        draft.persist_noclobber(&self.path)?;
        sync_parent_dir(&self.path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp_file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp_file.flush()
    }
}

/// Puts a small file in the place of what was there, in one step.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = create_temp_file(path, 0o666)?;
    draft.write_all(content)?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    sync_parent_dir(path)
}

/// A file beside the path, of a random name: what a crash left is in nobody's way.
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
    fn a_file_is_there_when_it_is_kept_and_not_before() {
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
    fn what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let late = NewFile::create(&path, FileAccess::UmaskDefault).unwrap();
        fs::write(&path, "first").unwrap();
        assert!(NewFile::create(&path, FileAccess::UmaskDefault).is_err());
        assert!(late.persist().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_draft_that_was_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::mem::forget(NewFile::create(&path, FileAccess::OwnerOnly).unwrap());
        NewFile::create(&path, FileAccess::OwnerOnly).unwrap().persist().unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(NewFile::create(&folder.path().join("key"), FileAccess::UmaskDefault).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
