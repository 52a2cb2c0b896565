//! Digests of projections: as they are, and as a rebuild from the log alone makes them.

use std::fs;
use std::path::Path;

use chat_ports::read_model::ReadModel;
use chat_search::TantivyIndex;
use chat_sqlite::SqliteReadModel;

use crate::harness::deployment::folder;
use crate::harness::process::ProcessOptions;

/// What projections hold, and up to where.
#[derive(Debug)]
pub struct Digests {
    /// Both have folded the log up to here. Where positions count other things than this system's events, the same
    /// content may be told to stand at several.
    pub position: u64,
    /// The digests.
    pub content: Content,
}

/// The digests of what projections hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    read_model: String,
    search_index: String,
}

/// The digests of the projections in a folder that no process writes to.
pub async fn from_folder(folder: &Path) -> Digests {
    of(&SqliteReadModel::new(folder.join("read-model.db")), &folder.join("search-index")).await
}

/// The digests of projections that no process writes to.
pub async fn of(read_model: &dyn ReadModel, search_index: &Path) -> Digests {
    let read_model = read_model.digest().await.expect("the read model's digest");
    let search_index = TantivyIndex::open(search_index).expect("the search index");
    let (position, search_index) = search_index.digest().expect("the search index's digest");
    let content =
        Content { read_model: read_model.value.to_string(), search_index: search_index.to_string() };
    Digests { position: read_model.position.min(position).get(), content }
}

/// The digests of projections folded anew from a copy of the folder's log, as far as `live` has got.
pub async fn from_rebuild(source: &Path, live: &Digests) -> Digests {
    let rebuilt = folder();
    for entry in fs::read_dir(source).expect("the folder") {
        let entry = entry.expect("a folder entry");
        // The log, and what SQLite keeps beside it.
        if entry.file_name().to_string_lossy().starts_with("events.db") {
            fs::copy(entry.path(), rebuilt.path().join(entry.file_name())).expect("a copy of the log");
        }
    }
    from_projector(&ProcessOptions::new("projector", rebuilt.path()), rebuilt.path(), live).await
}

/// The digests of what a projector makes of its log in a new folder, as far as `live` has got.
pub async fn from_projector(projector: &ProcessOptions, folder: &Path, live: &Digests) -> Digests {
    let projector = projector.start().await;
    projector.wait_until_folded(live.position).await;
    projector.end().await;
    from_folder(folder).await
}
