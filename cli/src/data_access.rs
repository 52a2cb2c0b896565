//! Checks at start that this user may create and use the data of the embedded engines.
//!
//! SQLite and tantivy report a missing permission in the same way as temporary failures: the file can't be opened.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use chat_domain::projection::ProjectionName;
use chat_files::durable_fs::{create_dir_all, parent_dir, path_with_suffix};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::data_owner;
use crate::engines::{EventStoreLocation, ReadModelLocation, StorageLocations};
use crate::failure::Failure;
use crate::serve_options::Role;

/// Creates the folders of the data that a role writes. Fails if they, or files in them, can't be written, or if data
/// that the role reads can't be read.
pub(crate) fn check(role: Role, locations: &StorageLocations) -> Result<(), Failure> {
    let EmbeddedData { written, replaced, read } = EmbeddedData::for_role(role, locations);
    written.iter().try_for_each(|path| check_writable(path))?;
    for path in &replaced {
        check_folder_writable(path)?;
        check_readable(path)?;
    }
    read.iter().try_for_each(|path| check_readable(path))
}

/// The files and folders of embedded engines that a role uses.
#[derive(Debug, Default, PartialEq, Eq)]
struct EmbeddedData {
    /// Paths that the role writes and reads.
    written: Vec<PathBuf>,
    /// Paths of files that the role reads, and replaces by new files.
    replaced: Vec<PathBuf>,
    /// Paths that the role only reads.
    read: Vec<PathBuf>,
}

impl EmbeddedData {
    fn for_role(role: Role, locations: &StorageLocations) -> Self {
        let mut data = Self::default();
        match &locations.event_store {
            // Every role opens the log for writing.
            EventStoreLocation::Sqlite(path) => data.written.push(path.clone()),
            #[cfg(feature = "kurrentdb")]
            EventStoreLocation::KurrentDb(_) => {}
            #[cfg(feature = "postgres")]
            EventStoreLocation::Postgres(_) => {}
        }
        if role.takes_commands() {
            if !locations.has_redis() {
                data.written.push(locations.idempotency_keys.clone());
            }
            data.replaced.push(locations.log_anchor.clone());
        }
        let mut add_projection = |projection, path: &Path| {
            if role.runs_projector_of(projection) {
                data.written.push(path.to_owned());
            } else if role.answers_queries() {
                data.read.push(path.to_owned());
            }
        };
        match &locations.read_model {
            ReadModelLocation::Sqlite(path) => add_projection(ProjectionName::ReadModel, path),
            #[cfg(feature = "postgres")]
            ReadModelLocation::Postgres(_) => {}
        }
        add_projection(ProjectionName::SearchIndex, &locations.search_index);
        data
    }
}

/// Creates the parent folder of `path`, and checks that this user may write to it.
fn check_folder_writable(path: &Path) -> Result<(), Failure> {
    let folder = parent_dir(path);
    create_dir_all(&folder).map_err(|error| access_failure(&folder, "created", &error))?;
    check_access(&folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| access_failure(&folder, "written to", &error))
}

/// Creates the parent folder of `path`, and checks that this user may write to the parent folder, to `path` and to the
/// files beside a SQLite database, as far as they exist.
fn check_writable(path: &Path) -> Result<(), Failure> {
    check_folder_writable(path)?;
    let access = Access::READ_OK | Access::WRITE_OK;
    // SQLite also opens the files beside a database.
    for file in ["", "-wal", "-shm"].map(|suffix| path_with_suffix(path, suffix)) {
        let access = if file.is_dir() { access | Access::EXEC_OK } else { access };
        check_existing(&file, access).map_err(|error| access_failure(&file, "written to", &error))?;
    }
    Ok(())
}

/// Checks that this user may read and write a file, if it exists. Other errors appear when the file is opened.
pub(crate) fn check_permission(path: &Path) -> Result<(), Failure> {
    match check_existing(path, Access::READ_OK | Access::WRITE_OK) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(access_failure(path, "opened", &error))
        }
        _ => Ok(()),
    }
}

/// Checks that a file or folder can be read, if it exists.
pub(crate) fn check_readable(path: &Path) -> Result<(), Failure> {
    check_existing(path, Access::READ_OK).map_err(|error| access_failure(path, "read", &error))
}

fn check_existing(path: &Path, access: Access) -> io::Result<()> {
    match check_access(path, access) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        checked => checked,
    }
}

/// Checks the access of the user that the process runs as.
fn check_access(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

fn access_failure(path: &Path, participle: &str, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::PermissionDenied => data_owner::denied(path, participle),
        _ => Failure::because(format!("{} can't be {participle}", path.display()), error),
    }
}
