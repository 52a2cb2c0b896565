//! The search index's projection: [`fold`] between the documents it looks up and the commit.

mod fold;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_infra::checkpoint::{Checkpoint, Opened};
use chat_infra::clock;
use chat_infra::event_store::{LogId, RecordedEvent};
use chat_infra::notice::FileNotices;
use chat_infra::search_index::{SearchError, SearchIndexWriter};

use crate::notices::Board;
use crate::parking::{Letters, Parked};
use crate::projection::{Pace, Projection, ProjectionError, Target};
use crate::stretch::Stretch;

pub use fold::{fold, wanted};

/// The search index in a folder.
#[derive(Clone, Debug)]
pub struct SearchIndexTarget {
    /// The folder.
    pub dir: PathBuf,
}

/// The projection's name.
pub(crate) const NAME: &str = "search_index";

#[async_trait]
impl Target for SearchIndexTarget {
    type Projection = SearchProjection;

    fn name(&self) -> &'static str {
        NAME
    }

    fn pace(&self) -> Pace {
        // A commit writes and syncs a segment, whatever is in it, and segments have to be merged again: under load,
        // commits take a fifth of the time at most. A message that comes alone does not wait.
        Pace { max_events: 32_768, max_bytes: 32 << 20, rest: 4, max_rest: Duration::from_millis(200) }
    }

    async fn open(&self) -> Result<(Self::Projection, Opened), ProjectionError> {
        let dir = self.dir.clone();
        blocking(move || {
            let (writer, opened) = SearchIndexWriter::open(&dir)?;
            Ok((SearchProjection::load(writer)?, opened))
        })
        .await
    }

    fn board(&self) -> Option<Box<dyn Board>> {
        Some(Box::new(FileNotices::beside(&self.dir)))
    }

    async fn open_fresh(&self) -> Result<Self::Projection, ProjectionError> {
        let dir = self.dir.clone();
        blocking(move || SearchProjection::load(SearchIndexWriter::reset(&dir)?)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SearchError> + Send + 'static,
) -> Result<T, ProjectionError> {
    let ended = |error| ProjectionError::Unavailable(Box::new(error));
    Ok(tokio::task::spawn_blocking(work).await.map_err(ended)??)
}

/// The search index's projection.
pub struct SearchProjection {
    /// `None` while a stretch is at work with it, and after one that ended with a panic.
    writer: Option<SearchIndexWriter>,
    checkpoint: Checkpoint,
    parked: Parked,
}

impl SearchProjection {
    /// Starts from where the index stands. Blocks.
    pub fn load(writer: SearchIndexWriter) -> Result<Self, SearchError> {
        let checkpoint = writer.checkpoint();
        let (_, events) = writer.dead_letters(0)?;
        let parked = Parked::load(writer.parked_streams()?, events);
        Ok(Self { writer: Some(writer), checkpoint, parked })
    }
}

#[async_trait]
impl Projection for SearchProjection {
    fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    fn parked(&self) -> u64 {
        self.parked.events()
    }

    async fn apply(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError> {
        let gone = || ProjectionError::Unavailable("an earlier stretch did not give the writer back".into());
        let mut writer = self.writer.take().ok_or_else(gone)?;
        let (from, parked) = (self.checkpoint.position, self.parked.clone());
        let (writer, letters) = blocking(move || {
            let mut stretch = Stretch::read(log, from, up_to, events);
            stretch.mark(&parked);
            let keys: Vec<_> = wanted(&stretch).into_iter().collect();
            let documents =
                if keys.is_empty() { Vec::new() } else { writer.documents(&keys)?.into_values().collect() };
            let changes = fold(stretch, documents, clock::now());
            let letters = Letters(changes.park.clone());
            writer.commit(changes)?;
            Ok((writer, letters))
        })
        .await?;
        letters.log(NAME);
        self.writer = Some(writer);
        self.parked.add(&letters);
        self.checkpoint = Checkpoint { log: Some(log), position: up_to };
        Ok(())
    }
}
