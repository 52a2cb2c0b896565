//! The format of a SQLite file: its application id and schema version, which SQLite stores in the file header.

use rusqlite::{Connection, Result};

/// The format of one kind of file of this program.
pub(crate) struct FileFormat {
    /// `PRAGMA application_id`.
    pub(crate) application_id: i32,
    /// `PRAGMA user_version`.
    pub(crate) version: i32,
}

/// The content of a SQLite file with regard to an expected format.
pub(crate) enum FileContent {
    /// A new file without tables.
    Empty,
    /// A file of the expected format.
    Current,
    /// A file of this kind with another version.
    OtherVersion(i32),
    /// A database of another kind.
    Foreign {
        /// The application id of the database.
        application_id: i32,
    },
}

impl FileFormat {
    /// Compares the file's header with this format.
    pub(crate) fn identify(&self, connection: &Connection) -> Result<FileContent> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
        if application_id == self.application_id {
            let is_current = version == self.version;
            return Ok(if is_current { FileContent::Current } else { FileContent::OtherVersion(version) });
        }
        let is_empty: bool =
            connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
        if (application_id, version) == (0, 0) && is_empty {
            return Ok(FileContent::Empty);
        }
        Ok(FileContent::Foreign { application_id })
    }

    /// Writes this format to the file's header.
    pub(crate) fn write(&self, connection: &Connection) -> Result<()> {
        connection.pragma_update(None, "application_id", self.application_id)?;
        connection.pragma_update(None, "user_version", self.version)
    }
}
