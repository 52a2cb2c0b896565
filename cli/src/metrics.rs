//! The metrics of a serving process, and those of its data on this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chat_domain::projection::ProjectionName;
use chat_files::durable_fs::{parent_dir, path_with_suffix};
use chat_files::{generation_path, last_backup, stored_generations};
use chat_operations::log_checker;
use chat_web::metrics::Metrics;
use metrics::{Unit, describe_gauge, gauge};
use rustix::fs::statvfs;

use crate::engines::{EventStoreLocation, ReadModelLocation, StorageLocations};
use crate::failure::Failure;
use crate::serve_options::Role;

/// How often files and disks are measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(10);

/// Installs the recorder, and registers the metrics of the role, so that they exist from the first scrape.
pub(crate) fn install(role: Role, locations: &StorageLocations) -> Result<Metrics, Failure> {
    let metrics = Metrics::install(&chat_command_api::metrics::HISTOGRAM_BUCKETS)
        .map_err(|error| Failure::because("metrics could not be set up", &error))?;
    if role.takes_commands() {
        chat_command_api::metrics::register();
        log_checker::register_metrics();
        if matches!(locations.event_store, EventStoreLocation::Sqlite(_)) {
            chat_sqlite::register_metrics();
        }
    }
    #[cfg(feature = "kurrentdb")]
    chat_kurrentdb::register_metrics();
    if role.answers_queries() {
        chat_query_api::metrics::register();
        chat_projector::search::register_tail_metrics();
    }
    for projection in ProjectionName::ALL.into_iter().filter(|projection| role.runs_projector_of(*projection))
    {
        chat_projector::status::register_metrics(projection);
    }
    let data = LocalData::new(role, locations);
    data.register();
    data.measure();
    tokio::spawn(data.measure_repeatedly());
    Ok(metrics)
}

/// The data of a role on this machine.
#[derive(Clone, Debug)]
struct LocalData {
    /// For each kind of data, the value of the metric label `content`, and the files.
    contents: Vec<(&'static str, Files)>,
    /// The folders that contain the files of `contents`.
    folders: Vec<PathBuf>,
    /// The SQLite log, of which `chat-api backup` makes backups. `None` for a role that takes no commands, and for a
    /// log in another engine.
    log: Option<PathBuf>,
}

/// The files of one kind of data.
#[derive(Clone, Debug)]
enum Files {
    /// A SQLite database with its write-ahead log.
    Database(PathBuf),
    /// The files or folders of all generations of a projection, by the path of the first generation.
    Generations(PathBuf),
}

impl LocalData {
    fn new(role: Role, locations: &StorageLocations) -> Self {
        let mut contents = Vec::new();
        let mut log = None;
        if role.takes_commands() {
            if let EventStoreLocation::Sqlite(path) = &locations.event_store {
                contents.push(("event_log", Files::Database(path.clone())));
                log = Some(path.clone());
            }
            contents.push(("idempotency_keys", Files::Database(locations.idempotency_keys.clone())));
        }
        if role.runs_projector_of(ProjectionName::ReadModel)
            && let ReadModelLocation::Sqlite(path) = &locations.read_model
        {
            contents.push(("read_model", Files::Generations(path.clone())));
        }
        if role.runs_projector_of(ProjectionName::SearchIndex) {
            contents.push(("search_index", Files::Generations(locations.search_index.clone())));
        }
        let mut folders: Vec<PathBuf> = contents.iter().map(|(_, files)| parent_dir(files.path())).collect();
        folders.sort_unstable();
        folders.dedup();
        Self { contents, folders, log }
    }

    fn register(&self) {
        describe_gauge!(
            "chat_storage_bytes",
            Unit::Bytes,
            "Size of the files of this process's data, by content."
        );
        describe_gauge!(
            "chat_disk_available_bytes",
            Unit::Bytes,
            "Space that this process may still use on the disk of a folder."
        );
        describe_gauge!("chat_disk_size_bytes", Unit::Bytes, "Size of the disk of a folder.");
        if self.log.is_some() {
            describe_gauge!(
                "chat_backup_timestamp_seconds",
                Unit::Seconds,
                "When the last verified backup of the log was begun, in seconds since 1970; 0 if there is none."
            );
        }
        for (content, _) in &self.contents {
            gauge!("chat_storage_bytes", "content" => *content).set(0.0);
        }
        for folder in &self.folders {
            let folder = folder.display().to_string();
            gauge!("chat_disk_available_bytes", "folder" => folder.clone()).set(0.0);
            gauge!("chat_disk_size_bytes", "folder" => folder).set(0.0);
        }
        if self.log.is_some() {
            gauge!("chat_backup_timestamp_seconds").set(0.0);
        }
    }

    async fn measure_repeatedly(self) {
        loop {
            tokio::time::sleep(MEASURE_INTERVAL).await;
            let data = self.clone();
            // The panic hook reports a panic. The gauges keep their last values then.
            let _ = tokio::task::spawn_blocking(move || data.measure()).await;
        }
    }

    /// Updates the gauges. If a value can't be measured, its gauge stays as it is. Blocks.
    fn measure(&self) {
        for (content, files) in &self.contents {
            if let Ok(bytes) = files.size() {
                gauge!("chat_storage_bytes", "content" => *content).set(as_f64(bytes));
            }
        }
        for folder in &self.folders {
            // A folder that does not exist yet is created on the disk of its parent.
            let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
            if let Ok(disk) = statvfs(existing) {
                let folder = folder.display().to_string();
                gauge!("chat_disk_available_bytes", "folder" => folder.clone())
                    .set(as_f64(disk.f_bavail.saturating_mul(disk.f_frsize)));
                gauge!("chat_disk_size_bytes", "folder" => folder)
                    .set(as_f64(disk.f_blocks.saturating_mul(disk.f_frsize)));
            }
        }
        if let Some(log) = &self.log
            && let Ok(began_at) = last_backup::read(log)
        {
            let millis = began_at.map_or(0, chat_domain::Timestamp::millis);
            gauge!("chat_backup_timestamp_seconds").set(as_f64(u64::try_from(millis / 1_000).unwrap_or(0)));
        }
    }
}

impl Files {
    fn path(&self) -> &Path {
        match self {
            Self::Database(path) | Self::Generations(path) => path,
        }
    }

    fn size(&self) -> io::Result<u64> {
        match self {
            Self::Database(path) => size_with_wal(path),
            Self::Generations(first) => stored_generations(first)?
                .into_iter()
                .map(|generation| size_with_wal(&generation_path(first, generation)))
                .sum(),
        }
    }
}

/// The size of a file or folder, and of the write-ahead log beside it.
fn size_with_wal(path: &Path) -> io::Result<u64> {
    Ok(size(path)? + size(&path_with_suffix(path, "-wal"))?)
}

/// The size of a file, or of the files in a folder; zero if it does not exist.
fn size(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        metadata => metadata?,
    };
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating-point; 2^53 bytes are enough")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_include_write_ahead_logs_and_all_generations() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("search-index/part")).unwrap();
        for (name, bytes) in [
            ("events.db", 100),
            ("events.db-wal", 20),
            ("read-model.db", 1),
            ("read-model.2.db", 2),
            ("read-model.2.db-wal", 4),
            ("read-model.db.damaged-7", 1_000),
            ("search-index/a", 10),
            ("search-index/part/b", 5),
        ] {
            fs::write(path(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(Files::Database(path("events.db")).size().unwrap(), 120);
        assert_eq!(Files::Generations(path("read-model.db")).size().unwrap(), 7);
        assert_eq!(Files::Generations(path("search-index")).size().unwrap(), 15);
        assert_eq!(Files::Database(path("missing.db")).size().unwrap(), 0);
    }
}
