//! Digests of projections: of the live ones, and of a rebuild from the log.

use std::fs;
use std::path::Path;

use chat_ports::read_model::ReadModel;
use chat_search::TantivyIndex;
use chat_sqlite::SqliteReadModel;

use crate::harness::deployment::folder;
use crate::harness::process::ProcessOptions;

/// The digests of projections, and the position up to which they are folded.
#[derive(Debug)]
pub struct Digests {
    /// The lower one of the two projections' positions. The positions may differ without a difference in content: where
    /// the log's positions have a gap, one projection may be at the position before it, and the other at one within it.
    pub position: u64,
    pub content: Content,
}

/// The digests of the content of both projections.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    read_model: String,
    search_index: String,
}

/// Computes the digests of the projections in a folder that no process writes to.
pub async fn from_folder(folder: &Path) -> Digests {
    compute(&SqliteReadModel::new(folder.join("read-model.db")), &folder.join("search-index")).await
}

/// Computes the digests of projections that no process writes to.
pub async fn compute(read_model: &dyn ReadModel, search_index: &Path) -> Digests {
    let read_model = read_model.digest().await.expect("the read model's digest");
    let index = TantivyIndex::open(search_index).expect("the search index");
    let (index_position, index_digest) = index.digest().expect("the search index's digest");
    let content =
        Content { read_model: read_model.value.to_string(), search_index: index_digest.to_string() };
    Digests { position: read_model.position.min(index_position).get(), content }
}

/// Rebuilds the projections from a copy of the log in `source`, at least to the position of `live`, and computes their
/// digests.
pub async fn from_rebuild(source: &Path, live: &Digests) -> Digests {
    let rebuild_folder = folder();
    for entry in fs::read_dir(source).expect("the folder") {
        let entry = entry.expect("a folder entry");
        // The log, and the files that SQLite keeps beside it.
        if entry.file_name().to_string_lossy().starts_with("events.db") {
            fs::copy(entry.path(), rebuild_folder.path().join(entry.file_name())).expect("a copy of the log");
        }
    }
    from_projector(&ProcessOptions::new("projector", rebuild_folder.path()), rebuild_folder.path(), live)
        .await
}

/// Lets a projector build its projections in a new folder, at least to the position of `live`, and computes their
/// digests.
pub async fn from_projector(projector: &ProcessOptions, folder: &Path, live: &Digests) -> Digests {
    let projector = projector.start().await;
    projector.wait_until_folded(live.position).await;
    projector.shut_down().await;
    from_folder(folder).await
}
