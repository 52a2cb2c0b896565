//! The search index's projection: loads documents, folds a batch, commits the changes.

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::clock;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{LogId, RecordedEvent};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::search_index::{IndexChanges, SearchError};
use chat_search::{TantivyIndex, TantivyIndexWriter};

use super::fold::{documents_to_load, fold};
use crate::dead_letters::blocked_streams::{BlockedStreams, log_dead_letters};
use crate::dead_letters::{DeadLetterQueue, RetryBatch, RetryOutcome};
use crate::decoded_batch::DecodedBatch;
use crate::projection::blocking::run_blocking;
use crate::projection::{Projection, ProjectionError};

/// The search index's projection.
pub struct SearchProjection {
    /// `None` while a commit is made, and after a commit that failed or whose future was dropped.
    sink: Option<CommitSink>,
    reader: TantivyIndex,
    checkpoint: ProjectionCheckpoint,
    blocked_streams: BlockedStreams,
}

/// The destination of commits.
enum CommitSink {
    Index(Box<TantivyIndexWriter>),
    /// Drops the changes.
    DryRun,
}

impl CommitSink {
    fn commit(&mut self, changes: IndexChanges) -> Result<(), SearchError> {
        match self {
            Self::Index(writer) => writer.commit(changes),
            Self::DryRun => Ok(()),
        }
    }

    fn begin_live(&mut self) -> Result<(), SearchError> {
        match self {
            Self::Index(writer) => writer.begin_live(),
            Self::DryRun => Ok(()),
        }
    }

    fn adopt_log(&mut self, log: LogId) -> Result<(), SearchError> {
        match self {
            Self::Index(writer) => writer.adopt_log(log),
            Self::DryRun => Ok(()),
        }
    }
}

impl SearchProjection {
    /// Loads the checkpoint, the blocked streams and the counts of dead letters of an index. Blocks.
    pub fn load(writer: TantivyIndexWriter) -> Result<Self, SearchError> {
        let reader = writer.reader();
        let blocked_streams = BlockedStreams::load(writer.blocked_streams()?, reader.dead_letter_counts()?);
        let checkpoint = writer.checkpoint();
        Ok(Self { sink: Some(CommitSink::Index(Box::new(writer))), reader, checkpoint, blocked_streams })
    }

    /// Creates a projection that stores nothing, to preview operator actions while another process may write to the
    /// index. Later folds do not see the changes of earlier ones, so of the dead letters of a stream, only the first
    /// chunk that is retried can be previewed.
    pub fn dry_run(reader: TantivyIndex) -> Self {
        let checkpoint = reader.checkpoint();
        Self {
            sink: Some(CommitSink::DryRun),
            reader,
            checkpoint,
            blocked_streams: BlockedStreams::default(),
        }
    }

    fn take_sink(&mut self) -> Result<CommitSink, ProjectionError> {
        let lost =
            || ProjectionError::Unavailable("the index writer was lost when an earlier fold failed".into());
        self.sink.take().ok_or_else(lost)
    }

    /// Folds the batch that `make_batch` returns, lets `finish` complete the changes, and commits them, all on a
    /// blocking thread. Returns the result of `finish`.
    async fn fold_and_commit<T: Send + 'static>(
        &mut self,
        make_batch: impl FnOnce() -> DecodedBatch + Send + 'static,
        finish: impl FnOnce(&mut IndexChanges) -> T + Send + 'static,
    ) -> Result<T, ProjectionError> {
        let mut sink = self.take_sink()?;
        let reader = self.reader.clone();
        let (sink, finished) = run_blocking(move || {
            let batch = make_batch();
            let keys: Vec<_> = documents_to_load(&batch).into_iter().collect();
            let documents =
                if keys.is_empty() { Vec::new() } else { reader.documents(&keys)?.into_values().collect() };
            let mut changes = fold(batch, documents, clock::now());
            let finished = finish(&mut changes);
            sink.commit(changes)?;
            Ok::<_, SearchError>((sink, finished))
        })
        .await?;
        self.sink = Some(sink);
        Ok(finished)
    }
}

#[async_trait]
impl Projection for SearchProjection {
    fn checkpoint(&self) -> ProjectionCheckpoint {
        self.checkpoint
    }

    fn dead_letter_count(&self) -> u64 {
        self.blocked_streams.dead_letter_count()
    }

    fn discarded_count(&self) -> u64 {
        self.blocked_streams.discarded_count()
    }

    fn dead_letter_queue(&mut self) -> &mut dyn DeadLetterQueue {
        self
    }

    async fn verify_checkpoint(&mut self) -> Result<(), ProjectionError> {
        match &self.sink {
            Some(CommitSink::Index(writer)) if !writer.is_in_place() => Err(ProjectionError::Unavailable(
                "the index was removed or replaced while it was open".into(),
            )),
            _ => Ok(()),
        }
    }

    async fn begin_live(&mut self) -> Result<(), ProjectionError> {
        let mut sink = self.take_sink()?;
        self.sink = Some(run_blocking(move || sink.begin_live().map(|()| sink)).await?);
        Ok(())
    }

    async fn adopt_log(&mut self, log: LogId) -> Result<(), ProjectionError> {
        let mut sink = self.take_sink()?;
        self.sink = Some(run_blocking(move || sink.adopt_log(log).map(|()| sink)).await?);
        self.checkpoint.log = Some(log);
        Ok(())
    }

    async fn fold(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError> {
        let (from, blocked_streams) = (self.checkpoint.position, self.blocked_streams.clone());
        let decode = move || {
            let mut batch = DecodedBatch::decode(log, from, up_to, events);
            blocked_streams.mark(&mut batch);
            batch
        };
        let dead_letters = self.fold_and_commit(decode, |changes| changes.new_dead_letters.clone()).await?;
        log_dead_letters(ProjectionName::SearchIndex, &dead_letters);
        self.blocked_streams.record_dead_letters(&dead_letters);
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: up_to };
        Ok(())
    }
}

#[async_trait]
impl DeadLetterQueue for SearchProjection {
    fn projection(&self) -> ProjectionName {
        ProjectionName::SearchIndex
    }

    async fn dead_letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError> {
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

    async fn retry(&mut self, batch: RetryBatch) -> Result<RetryOutcome, ProjectionError> {
        let log = batch.log;
        let (batch, pending_retry) = batch.into_batch(self.checkpoint.position);
        let finish = move |changes: &mut IndexChanges| {
            let outcome = pending_retry.into_outcome(std::mem::take(&mut changes.new_dead_letters));
            changes.to = outcome.checkpoint_position;
            changes.resolved_dead_letters.clone_from(&outcome.applied);
            changes.changed_dead_letters.clone_from(&outcome.updated);
            outcome
        };
        let outcome = self.fold_and_commit(move || batch, finish).await?;
        self.blocked_streams.record_retry(&outcome);
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: outcome.checkpoint_position };
        Ok(outcome)
    }

    async fn advance_checkpoint(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError> {
        let is_acknowledgement = acknowledged.is_some();
        let empty_batch = DecodedBatch::decode(log, self.checkpoint.position, to, Vec::new());
        self.fold_and_commit(
            move || empty_batch,
            |changes| changes.changed_dead_letters = acknowledged.into_iter().collect(),
        )
        .await?;
        if is_acknowledgement {
            self.blocked_streams.record_acknowledgement();
        }
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: to };
        Ok(())
    }
}
