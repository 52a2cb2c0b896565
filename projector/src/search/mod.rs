//! The search index's projection: [`fold`] between the documents it looks up and the commit.

mod fold;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::operation::ProjectionName;
use chat_files::notice::FileNotices;
use chat_ports::checkpoint::{Checkpoint, Opened};
use chat_ports::clock;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{LogId, RecordedEvent};
use chat_ports::search_index::{IndexChanges, SearchError};
use chat_search::{SearchIndex, SearchIndexWriter};

use crate::letters::{Again, LetterBox, Settled};
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
        // there is a rest after each, short at half of what the machine can do and long at the peak (decision 20). A
        // message that comes alone does not wait.
        Pace { max_events: 65_536, max_bytes: 32 << 20, rest: 0.5, max_rest: Duration::from_millis(100) }
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
    kept: Option<Kept>,
    reader: SearchIndex,
    checkpoint: Checkpoint,
    parked: Parked,
}

/// Where commits go.
enum Kept {
    Written(Box<SearchIndexWriter>),
    /// Nowhere: it is only to be seen what they would be.
    TriedOut,
}

impl Kept {
    fn commit(&mut self, changes: IndexChanges) -> Result<(), SearchError> {
        match self {
            Self::Written(writer) => writer.commit(changes),
            Self::TriedOut => Ok(()),
        }
    }
}

impl SearchProjection {
    /// Starts from where the index stands. Blocks.
    pub fn load(writer: SearchIndexWriter) -> Result<Self, SearchError> {
        let parked = Parked::load(writer.parked_streams()?, writer.reader().letter_counts()?);
        let (reader, checkpoint) = (writer.reader(), writer.checkpoint());
        Ok(Self { kept: Some(Kept::Written(Box::new(writer))), reader, checkpoint, parked })
    }

    /// Folds without storing anything, beside whoever writes the index: to find out what an act would come to. What it
    /// reads does not change by what it folds, so it is good for one piece of a stream at a time.
    pub fn try_out(reader: SearchIndex) -> Self {
        let checkpoint = reader.checkpoint();
        Self { kept: Some(Kept::TriedOut), reader, checkpoint, parked: Parked::default() }
    }

    /// Folds a stretch and commits what becomes of it.
    async fn fold_and_commit<T: Send + 'static>(
        &mut self,
        stretch: impl FnOnce() -> Stretch + Send + 'static,
        finish: impl FnOnce(&mut IndexChanges) -> T + Send + 'static,
    ) -> Result<T, ProjectionError> {
        let gone = || ProjectionError::Unavailable("an earlier stretch did not give the writer back".into());
        let mut kept = self.kept.take().ok_or_else(gone)?;
        let reader = self.reader.clone();
        let (kept, finished) = blocking(move || {
            let stretch = stretch();
            let keys: Vec<_> = wanted(&stretch).into_iter().collect();
            let documents =
                if keys.is_empty() { Vec::new() } else { reader.documents(&keys)?.into_values().collect() };
            let mut changes = fold(stretch, documents, clock::now());
            let finished = finish(&mut changes);
            kept.commit(changes)?;
            Ok((kept, finished))
        })
        .await?;
        self.kept = Some(kept);
        Ok(finished)
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

    fn discarded(&self) -> u64 {
        self.parked.discarded()
    }

    fn letter_box(&mut self) -> &mut dyn LetterBox {
        self
    }

    async fn fold(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError> {
        let (from, parked) = (self.checkpoint.position, self.parked.clone());
        let stretch = move || {
            let mut stretch = Stretch::read(log, from, up_to, events);
            stretch.mark(&parked);
            stretch
        };
        let letters = self.fold_and_commit(stretch, |changes| Letters(changes.park.clone())).await?;
        letters.log(NAME);
        self.parked.add(&letters);
        self.checkpoint = Checkpoint { log: Some(log), position: up_to };
        Ok(())
    }
}

#[async_trait]
impl LetterBox for SearchProjection {
    fn projection(&self) -> ProjectionName {
        ProjectionName::SearchIndex
    }

    async fn letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError> {
        let reader = self.reader.clone();
        blocking(move || reader.letter(position)).await
    }

    async fn parked_of(&mut self, stream: &str, limit: usize) -> Result<Vec<DeadLetter>, ProjectionError> {
        let (reader, stream) = (self.reader.clone(), stream.to_owned());
        blocking(move || reader.parked_of(&stream, limit)).await
    }

    async fn fold_again(&mut self, again: Again) -> Result<Settled, ProjectionError> {
        let log = again.log;
        let (stretch, piece) = again.open(self.checkpoint.position);
        let settle = move |changes: &mut IndexChanges| {
            let settled = piece.settle(std::mem::take(&mut changes.park));
            changes.to = settled.to;
            changes.unpark.clone_from(&settled.unparked);
            changes.mark.clone_from(&settled.marked);
            settled
        };
        let settled = self.fold_and_commit(move || stretch, settle).await?;
        self.parked.settle(&settled);
        self.checkpoint = Checkpoint { log: Some(log), position: settled.to };
        Ok(settled)
    }

    async fn pass(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError> {
        let marks = acknowledged.is_some();
        let nothing = Stretch::read(log, self.checkpoint.position, to, Vec::new());
        self.fold_and_commit(move || nothing, |changes| changes.mark = acknowledged.into_iter().collect())
            .await?;
        if marks {
            self.parked.acknowledge();
        }
        self.checkpoint = Checkpoint { log: Some(log), position: to };
        Ok(())
    }
}
