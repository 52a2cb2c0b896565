//! The search index's projection: [`fold`] between the documents it looks up and the commit.

mod fold;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::operator_action::ProjectionName;
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::clock;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{LogId, RecordedEvent};
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::search_index::{IndexChanges, SearchError};
use chat_search::{TantivyIndex, TantivyIndexWriter};

use crate::dead_letters::{BlockedStreams, DeadLetters};
use crate::dead_letters::{DeadLetterQueue, RetryBatch, RetryOutcome};
use crate::decoded_batch::DecodedBatch;
use crate::heartbeats::HeartbeatPublisher;
use crate::projection::{BatchPacing, Projection, ProjectionError, ProjectionStore};

pub use fold::{documents_to_load, fold};

/// The search index in a folder.
#[derive(Clone, Debug)]
pub struct SearchIndexStore {
    /// The folder.
    pub dir: PathBuf,
}

/// The projection's name.
pub(crate) const NAME: &str = "search_index";

#[async_trait]
impl ProjectionStore for SearchIndexStore {
    type Projection = SearchProjection;

    fn name(&self) -> &'static str {
        NAME
    }

    fn pacing(&self) -> BatchPacing {
        // A commit writes and syncs a segment, whatever is in it, and segments have to be merged again: under load,
        // there is a rest after each, short at half of what the machine can do and long at the peak (decision 20). A
        // message that comes alone does not wait.
        BatchPacing {
            max_events: 65_536,
            max_bytes: 32 << 20,
            rest_factor: 0.5,
            max_rest: Duration::from_millis(100),
        }
    }

    async fn open(&self) -> Result<(Self::Projection, StorageOrigin), ProjectionError> {
        let dir = self.dir.clone();
        run_blocking(move || {
            let (writer, opened) = TantivyIndexWriter::open(&dir)?;
            Ok((SearchProjection::load(writer)?, opened))
        })
        .await
    }

    fn heartbeats(&self) -> Option<Box<dyn HeartbeatPublisher>> {
        Some(Box::new(FileHeartbeats::for_path(&self.dir)))
    }

    async fn recreate(&self) -> Result<Self::Projection, ProjectionError> {
        let dir = self.dir.clone();
        run_blocking(move || SearchProjection::load(TantivyIndexWriter::recreate(&dir)?)).await
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SearchError> + Send + 'static,
) -> Result<T, ProjectionError> {
    let ended = |error| ProjectionError::Unavailable(Box::new(error));
    Ok(tokio::task::spawn_blocking(work).await.map_err(ended)??)
}

/// The search index's projection.
pub struct SearchProjection {
    /// `None` while a stretch is at work with it, and after one that ended with a panic.
    sink: Option<CommitSink>,
    reader: TantivyIndex,
    checkpoint: ProjectionCheckpoint,
    blocked_streams: BlockedStreams,
}

/// Where commits go.
enum CommitSink {
    Index(Box<TantivyIndexWriter>),
    /// Nowhere: it is only to be seen what they would be.
    DryRun,
}

impl CommitSink {
    fn commit(&mut self, changes: IndexChanges) -> Result<(), SearchError> {
        match self {
            Self::Index(writer) => writer.commit(changes),
            Self::DryRun => Ok(()),
        }
    }
}

impl SearchProjection {
    /// Starts from where the index stands. Blocks.
    pub fn load(writer: TantivyIndexWriter) -> Result<Self, SearchError> {
        let parked = BlockedStreams::load(writer.blocked_streams()?, writer.reader().dead_letter_counts()?);
        let (reader, checkpoint) = (writer.reader(), writer.checkpoint());
        Ok(Self {
            sink: Some(CommitSink::Index(Box::new(writer))),
            reader,
            checkpoint,
            blocked_streams: parked,
        })
    }

    /// Folds without storing anything, beside whoever writes the index: to find out what an act would come to. What it
    /// reads does not change by what it folds, so it is good for one piece of a stream at a time.
    pub fn dry_run(reader: TantivyIndex) -> Self {
        let checkpoint = reader.checkpoint();
        Self {
            sink: Some(CommitSink::DryRun),
            reader,
            checkpoint,
            blocked_streams: BlockedStreams::default(),
        }
    }

    /// Folds a stretch and commits what becomes of it.
    async fn fold_and_commit<T: Send + 'static>(
        &mut self,
        stretch: impl FnOnce() -> DecodedBatch + Send + 'static,
        finish: impl FnOnce(&mut IndexChanges) -> T + Send + 'static,
    ) -> Result<T, ProjectionError> {
        let gone = || ProjectionError::Unavailable("an earlier stretch did not give the writer back".into());
        let mut kept = self.sink.take().ok_or_else(gone)?;
        let reader = self.reader.clone();
        let (kept, finished) = run_blocking(move || {
            let stretch = stretch();
            let keys: Vec<_> = documents_to_load(&stretch).into_iter().collect();
            let documents =
                if keys.is_empty() { Vec::new() } else { reader.documents(&keys)?.into_values().collect() };
            let mut changes = fold(stretch, documents, clock::now());
            let finished = finish(&mut changes);
            kept.commit(changes)?;
            Ok((kept, finished))
        })
        .await?;
        self.sink = Some(kept);
        Ok(finished)
    }
}

#[async_trait]
impl Projection for SearchProjection {
    fn checkpoint(&self) -> ProjectionCheckpoint {
        self.checkpoint
    }

    fn dead_letter_count(&self) -> u64 {
        self.blocked_streams.events()
    }

    fn discarded_count(&self) -> u64 {
        self.blocked_streams.discarded_count()
    }

    fn dead_letter_queue(&mut self) -> &mut dyn DeadLetterQueue {
        self
    }

    async fn fold(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError> {
        let (from, parked) = (self.checkpoint.position, self.blocked_streams.clone());
        let stretch = move || {
            let mut stretch = DecodedBatch::decode(log, from, up_to, events);
            stretch.mark_blocked_streams(&parked);
            stretch
        };
        let letters =
            self.fold_and_commit(stretch, |changes| DeadLetters(changes.new_dead_letters.clone())).await?;
        letters.log_warnings(NAME);
        self.blocked_streams.record_dead_letters(&letters);
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: up_to };
        Ok(())
    }
}

#[async_trait]
impl DeadLetterQueue for SearchProjection {
    fn projection(&self) -> ProjectionName {
        ProjectionName::SearchIndex
    }

    async fn letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError> {
        let reader = self.reader.clone();
        run_blocking(move || reader.dead_letter(position)).await
    }

    async fn dead_letters_of_stream(
        &mut self,
        stream: &str,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ProjectionError> {
        let (reader, stream) = (self.reader.clone(), stream.to_owned());
        run_blocking(move || reader.dead_letters_of_stream(&stream, limit)).await
    }

    async fn retry(&mut self, again: RetryBatch) -> Result<RetryOutcome, ProjectionError> {
        let log = again.log;
        let (stretch, piece) = again.into_batch(self.checkpoint.position);
        let settle = move |changes: &mut IndexChanges| {
            let settled = piece.into_outcome(std::mem::take(&mut changes.new_dead_letters));
            changes.to = settled.checkpoint_position;
            changes.resolved_dead_letters.clone_from(&settled.applied);
            changes.changed_dead_letters.clone_from(&settled.updated);
            settled
        };
        let settled = self.fold_and_commit(move || stretch, settle).await?;
        self.blocked_streams.record_retry(&settled);
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: settled.checkpoint_position };
        Ok(settled)
    }

    async fn advance_checkpoint(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError> {
        let marks = acknowledged.is_some();
        let nothing = DecodedBatch::decode(log, self.checkpoint.position, to, Vec::new());
        self.fold_and_commit(move || nothing, |changes| changes.changed_dead_letters = acknowledged.into_iter().collect())
            .await?;
        if marks {
            self.blocked_streams.record_acknowledgement();
        }
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: to };
        Ok(())
    }
}
