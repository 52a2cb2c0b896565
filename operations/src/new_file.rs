//! Files that are there whole or not at all, and never take another one's place.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

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
    draft: PathBuf,
    writer: BufWriter<File>,
}

impl NewFile {
    /// Begins a file. Fails where there is one of this name.
    pub fn create(path: &Path, readers: Readers) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let draft = draft_of(path);
        let mode = match readers {
            Readers::Anybody => 0o666,
            Readers::Owner => 0o600,
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        Ok(Self { path: path.to_owned(), draft, writer: BufWriter::new(file) })
    }

    /// Gives the file its name, when all of it is on disk. Fails where there is one of this name by now.
    pub fn keep(mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().sync_all()?;
        // A link fails where the name is taken; a rename would take it.
        match fs::hard_link(&self.draft, &self.path) {
            Ok(()) => fs::remove_file(&self.draft)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // Some file systems have no links.
            Err(_) => self.take_the_name()?,
        }
        sync_folder_of(&self.path)
    }

    /// Takes the name with an empty file first, whose place the draft may then take.
    fn take_the_name(&self) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        fs::rename(&self.draft, &self.path).inspect_err(|_| {
            let _ = fs::remove_file(&self.path);
        })
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Fails where it has got its name.
        let _ = fs::remove_file(&self.draft);
    }
}

/// Puts a small file in the place of what was there, in one step.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    let write = || {
        let mut file = File::create(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })?;
    sync_folder_of(path)
}

/// A name beside the path that nobody else takes: a draft that a crash left is in nobody's way, and processes in
/// containers have the same number.
fn draft_of(path: &Path) -> PathBuf {
    beside(path, &format!(".draft-{:016x}", rand::random::<u64>()))
}

/// The path with something after its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    name.push(suffix);
    path.with_file_name(name)
}

/// A new name is on disk when its folder is.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

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
    fn without_links_a_file_gets_its_name_too_and_no_other_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let file = NewFile::create(&path, Readers::Owner).unwrap();
        let late = NewFile::create(&path, Readers::Owner).unwrap();
        file.take_the_name().unwrap();
        assert!(late.take_the_name().is_err());
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(NewFile::create(&folder.path().join("key"), Readers::Anybody).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
