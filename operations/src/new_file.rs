//! Files that are there whole or not at all, and never take another one's place.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chat_files::durable_folder::{parent, sync_parent};
use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whoever the umask lets.
    Anybody,
    /// Its owner alone.
    Owner,
}

/// A file that is being written, under another name beside its own. Without [`NewFile::keep`] it is removed.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    draft: BufWriter<NamedTempFile>,
}

impl NewFile {
    /// Begins a file. Fails where there is one of this name.
    pub fn create(path: &Path, readers: Readers) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mode = match readers {
            Readers::Anybody => 0o666,
            Readers::Owner => 0o600,
        };
        Ok(Self { path: path.to_owned(), draft: BufWriter::new(draft(path, mode)?) })
    }

    /// Gives the file its name, when all of it is on disk. Fails where there is one of this name by now.
    pub fn keep(self) -> io::Result<()> {
        let draft = self.draft.into_inner().map_err(io::IntoInnerError::into_error)?;
        draft.as_file().sync_all()?;
        draft.persist_noclobber(&self.path)?;
        sync_parent(&self.path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

/// Puts a small file in the place of what was there, in one step.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = draft(path, 0o666)?;
    draft.write_all(content)?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    sync_parent(path)
}

/// A file beside the path, of a random name: what a crash left is in nobody's way.
fn draft(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".draft-");
    tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(parent(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_there_when_it_is_kept_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut file = NewFile::create(&path, Readers::Owner).unwrap();
        file.write_all(b"all of it").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let late = NewFile::create(&path, Readers::Anybody).unwrap();
        fs::write(&path, "first").unwrap();
        assert!(NewFile::create(&path, Readers::Anybody).is_err());
        assert!(late.keep().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_draft_that_was_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::mem::forget(NewFile::create(&path, Readers::Owner).unwrap());
        NewFile::create(&path, Readers::Owner).unwrap().keep().unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(NewFile::create(&folder.path().join("key"), Readers::Anybody).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
