//! Evidence of how far the log reached.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use chat_domain::Position;
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_files::log_anchor::LogAnchor;
use chat_ports::event_store::{EventStore, EventStoreError, LogId, LogLineage, LogMismatch};
use chat_projector::generations::GenerationSet;
use chat_sqlite::read_idempotency_checkpoint;
use tokio::time::timeout;

use crate::engines::{EventStoreLocation, StorageLocations};

/// How long one read from the storage of a projection may take. A witness that can't be read is ignored.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The advice of a command that finds no log, although there is evidence of one.
pub(crate) const MISSING_LOG_ADVICE: &str = "the log may be elsewhere: mount its disk, or set EVENT_STORE_URL and \
     --data-dir as the processes have them. If it is lost, see docs/operations/lost-events.md";

/// Data outside the log that records a position that was durable.
#[derive(Clone, Debug)]
struct Witness {
    /// The name of the data in a sentence, such as "the read model data/read-model.db".
    name: String,
    log: LogId,
    position: Position,
}

/// The witnesses of how far the log reached.
pub(crate) struct LogEvidence {
    witnesses: Vec<Witness>,
    /// For each projection, the stored generation with the highest checkpoint that could be read, and its checkpoint.
    furthest: Vec<(ProjectionGeneration, Position)>,
}

/// The kinds of problems of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProblemKind {
    /// There is no log where one was.
    Missing,
    /// The log has lost its last events.
    Truncated,
    /// The log is not the log of the evidence.
    OtherLog,
    /// The log was removed or replaced while it was open.
    Replaced,
}

/// Why the log does not take commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogProblem {
    kind: ProblemKind,
    /// One sentence, without a full stop.
    sentence: String,
    /// The names of the witnesses that contradict the log.
    witnesses: Vec<String>,
    /// The logs that witnesses name, except the checked log and those that it descends from or replaces.
    pub(crate) other_logs: Vec<LogId>,
}

impl LogProblem {
    /// The problem of a log that was removed or replaced while it was open.
    pub(crate) fn of_replaced_log(sentence: String) -> Self {
        Self { kind: ProblemKind::Replaced, sentence, witnesses: Vec::new(), other_logs: Vec::new() }
    }

    /// Whether the log has lost its last events.
    pub(crate) fn is_truncated_log(&self) -> bool {
        self.kind == ProblemKind::Truncated
    }

    /// Whether the log is not the log of the evidence.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_other_log(&self) -> bool {
        self.kind == ProblemKind::OtherLog
    }

    /// Whether two problems differ at most in positions, which change while other processes work.
    pub(super) fn is_same_apart_from_positions(&self, other: &Self) -> bool {
        let Self { kind, sentence, witnesses, other_logs } = self;
        let is_same_sentence = *kind != ProblemKind::Replaced || *sentence == other.sentence;
        *kind == other.kind
            && *witnesses == other.witnesses
            && *other_logs == other.other_logs
            && is_same_sentence
    }
}

impl fmt::Display for LogProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Error for LogProblem {}

impl LogEvidence {
    /// Reads the evidence at the locations. Changes nothing. Call it before reading the head of the log: evidence that
    /// is read later may be ahead of that head.
    pub(crate) async fn read(locations: &StorageLocations) -> Self {
        let (mut witnesses, mut furthest) = (Vec::new(), Vec::new());
        match LogAnchor::read(&locations.log_anchor) {
            Ok(anchor) => witnesses.extend(anchor.map(|LogAnchor { log, position }| Witness {
                name: format!("the anchor {}", locations.log_anchor.display()),
                log,
                position,
            })),
            Err(error) => warn_unreadable("the log anchor", &error),
        }
        match read_idempotency_checkpoint(&locations.idempotency_keys) {
            Ok(read) => witnesses.extend(read.and_then(|checkpoint| {
                let name = format!("the idempotency keys {}", locations.idempotency_keys.display());
                Some(Witness { name, log: checkpoint.log?, position: checkpoint.position })
            })),
            Err(error) => warn_unreadable("the file of idempotency keys", &error),
        }
        let projections = locations.projection_locations();
        for projection in ProjectionName::ALL {
            let stored = match timeout(READ_TIMEOUT, projections.stored_generations(projection)).await {
                Ok(Ok(stored)) => stored,
                Ok(Err(error)) => {
                    warn_unreadable("the list of a projection's generations", &error);
                    continue;
                }
                Err(_) => {
                    tracing::warn!(
                        projection = projection.as_str(),
                        "the storage of a projection does not answer, and says nothing about the log"
                    );
                    continue;
                }
            };
            let mut furthest_stored: Option<(ProjectionGeneration, Position)> = None;
            for generation in stored {
                let id = ProjectionGeneration { projection, generation };
                let store = projections.store(id);
                match timeout(READ_TIMEOUT, store.checkpoint()).await {
                    Ok(Ok(checkpoint)) => {
                        if furthest_stored.is_none_or(|(_, position)| checkpoint.position > position) {
                            furthest_stored = Some((id, checkpoint.position));
                        }
                        let kind = match projection {
                            ProjectionName::ReadModel => "read model",
                            ProjectionName::SearchIndex => "search index",
                        };
                        witnesses.extend(checkpoint.log.map(|log| Witness {
                            name: format!("the {kind} {store}"),
                            log,
                            position: checkpoint.position,
                        }));
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%store, error = &error as &dyn Error, "a projection says nothing about the log");
                    }
                    Err(_) => {
                        tracing::warn!(%store, "a projection could not be asked how far the log reached");
                    }
                }
            }
            furthest.extend(furthest_stored);
        }
        // Position 0 says nothing about events.
        witnesses.retain(|witness| witness.position > Position::START);
        Self { witnesses, furthest }
    }

    /// The names of the data that say how far the log reached.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.witnesses.iter().map(|witness| &*witness.name).collect()
    }

    /// The generation of each projection that is folded furthest. Queries are answered from these generations while the
    /// log can't say which ones are live.
    pub(crate) fn furthest_generations(&self) -> GenerationSet {
        let furthest_of = |projection| {
            let found = self.furthest.iter().find(|(id, _)| id.projection == projection);
            found.map_or(Generation::FIRST, |(id, _)| id.generation)
        };
        GenerationSet {
            read_model: furthest_of(ProjectionName::ReadModel),
            search_index: furthest_of(ProjectionName::SearchIndex),
        }
    }

    /// The log of the furthest witness.
    pub(crate) fn furthest_log(&self) -> Option<LogId> {
        self.furthest_witness(|_| true).map(|witness| witness.log)
    }

    /// The problem of a log that is not there: its file is missing or empty, and the evidence is of a log with events.
    pub(crate) fn problem_of_missing_log(&self, location: &EventStoreLocation) -> Option<LogProblem> {
        let EventStoreLocation::Sqlite(path) = location else { return None };
        let state = match missing_kind(path)? {
            MissingKind::NoFile => "there is no event log at",
            MissingKind::Empty => "nothing is in the event log",
        };
        self.problem_of_no_log(&format!("{state} {}", path.display()))
    }

    /// The problem of a log that is not there, if the evidence is of a log with events. `missing` says what is missing.
    pub(crate) fn problem_of_no_log(&self, missing: &str) -> Option<LogProblem> {
        let Witness { name, log, position } = self.furthest_witness(|_| true)?;
        let sentence =
            format!("{missing}, but {name} was written up to position {position} of log {}", log.0);
        let witnesses = self.witnesses.iter().map(|witness| witness.name.clone()).collect();
        Some(LogProblem { kind: ProblemKind::Missing, sentence, witnesses, other_logs: self.logs() })
    }

    /// The problem of a log that is not the log of the evidence, or that ends before a position of the evidence.
    pub(crate) async fn problem_of_log(
        &self,
        event_store: &dyn EventStore,
    ) -> Result<Option<LogProblem>, EventStoreError> {
        let lineage = event_store.lineage().await?;
        let head = event_store.head().await?;
        Ok(self.problem(&lineage, head, event_store.has_contiguous_positions()))
    }

    pub(super) fn problem(
        &self,
        lineage: &LogLineage,
        head: Position,
        has_contiguous_positions: bool,
    ) -> Option<LogProblem> {
        let mismatch = |witness: &Witness| lineage.check(witness.log, witness.position, head).err();
        let is_other = |witness: &Witness| matches!(mismatch(witness), Some(LogMismatch::OtherLog { .. }));
        let is_beyond = |witness: &Witness| matches!(mismatch(witness), Some(LogMismatch::Truncated { .. }));
        let others = self.witnesses.iter().filter(|witness| is_other(witness)).map(|witness| witness.log);
        let other_logs = others.collect::<BTreeSet<_>>().into_iter().collect();
        let (kind, sentence) = if let Some(Witness { name, position, .. }) = self.furthest_witness(is_beyond)
        {
            let distance = position.get() - head.get();
            let missing = match (has_contiguous_positions, distance) {
                (false, _) => "acknowledged events are missing".to_owned(),
                (true, 1) => "1 acknowledged event is missing".to_owned(),
                (true, events) => format!("{events} acknowledged events are missing"),
            };
            let sentence = format!(
                "the log ends at position {head}, but {name} was written up to position {position}: {missing}"
            );
            (ProblemKind::Truncated, sentence)
        } else {
            let Witness { name, log, position } = self.furthest_witness(is_other)?;
            // A server creates a log in an empty database, also if it was given the wrong one.
            let advice = if head == Position::START {
                format!("this log has no events: is it the right one? If so, move {name} away")
            } else {
                format!("if this is the right log, move {name} away")
            };
            let sentence = format!(
                "the log is {}, but {name} was written up to position {position} of another log, {}; {advice}",
                lineage.current().0,
                log.0
            );
            (ProblemKind::OtherLog, sentence)
        };
        let contradicting = self.witnesses.iter().filter(|witness| is_other(witness) || is_beyond(witness));
        let witnesses = contradicting.map(|witness| witness.name.clone()).collect();
        Some(LogProblem { kind, sentence, witnesses, other_logs })
    }

    fn furthest_witness(&self, is_wanted: impl Fn(&Witness) -> bool) -> Option<&Witness> {
        self.witnesses.iter().filter(|witness| is_wanted(witness)).max_by_key(|witness| witness.position)
    }

    fn logs(&self) -> Vec<LogId> {
        self.witnesses.iter().map(|witness| witness.log).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// How a log is missing.
enum MissingKind {
    NoFile,
    Empty,
}

/// Returns how the log in a file is missing: there is no file, or the file is empty and has no WAL. `None` if the file
/// may hold a log.
fn missing_kind(path: &Path) -> Option<MissingKind> {
    match std::fs::metadata(path) {
        Ok(file) => (file.len() == 0 && !has_wal(path)).then_some(MissingKind::Empty),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(MissingKind::NoFile),
        // Opening the file reports the error.
        Err(_) => None,
    }
}

/// Whether the file has a WAL that is not empty. All events of a new log may be in the WAL.
fn has_wal(path: &Path) -> bool {
    let wal = chat_files::durable_fs::path_with_suffix(path, "-wal");
    std::fs::metadata(wal).is_ok_and(|wal| wal.len() > 0)
}

fn warn_unreadable(evidence: &str, error: &(dyn Error + 'static)) {
    tracing::warn!(error, "{evidence} can't be read, and says nothing about the log");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use chat_domain::Timestamp;
    use chat_ports::event_store::NewIncarnation;
    use uuid::Uuid;

    pub(in super::super) fn log(number: u128) -> LogId {
        LogId(Uuid::from_u128(number))
    }

    /// The evidence of witnesses, each with its name, the number of its log, and its position.
    pub(in super::super) fn evidence(witnesses: &[(&str, u128, u64)]) -> LogEvidence {
        let witness = |(name, number, position): &(&str, u128, u64)| Witness {
            name: (*name).to_owned(),
            log: log(*number),
            position: Position::new(*position),
        };
        LogEvidence { witnesses: witnesses.iter().map(witness).collect(), furthest: Vec::new() }
    }

    #[test]
    fn a_log_has_lost_events_if_it_ends_before_the_evidence() {
        let evidence = evidence(&[("the read model", 1, 401), ("the anchor", 1, 390), ("the index", 1, 14)]);
        let problem =
            |head| evidence.problem(&LogLineage::new(log(1), Vec::new()), Position::new(head), true);
        assert_eq!(problem(401), None);
        assert_eq!(problem(500), None);
        assert_eq!(
            problem(14).unwrap().to_string(),
            "the log ends at position 14, but the read model was written up to position 401: 387 acknowledged events \
             are missing"
        );
    }

    #[test]
    fn a_log_without_events_is_not_taken_for_the_right_one() {
        let evidence = evidence(&[("the read model", 2, 401)]);
        let advice = |head| {
            let problem = evidence.problem(&LogLineage::new(log(1), Vec::new()), Position::new(head), true);
            problem.unwrap().to_string().rsplit_once("; ").unwrap().1.to_owned()
        };
        assert_eq!(advice(1), "if this is the right log, move the read model away");
        assert_eq!(advice(0), "this log has no events: is it the right one? If so, move the read model away");
    }

    #[test]
    fn the_furthest_log_is_chosen_by_position_and_not_by_id() {
        let evidence = evidence(&[("the index", 1, 7), ("the read model", 2, 401)]);
        assert_eq!(evidence.furthest_log(), Some(log(2)));
    }

    #[test]
    fn evidence_of_an_accepted_loss_is_no_problem_and_evidence_of_another_log_is_one() {
        let incarnation = NewIncarnation {
            log: log(2),
            began_at: Timestamp::from_millis(0),
            reason: String::new(),
            replaces: vec![log(3)],
        };
        let lineage = LogLineage::new(log(1), vec![incarnation.begun_after(Position::new(14))]);
        let head = Position::new(15);
        let accepted = evidence(&[("the read model", 1, 401), ("the index", 3, 7)]);
        assert_eq!(accepted.problem(&lineage, head, true), None);
        let unknown = evidence(&[("the read model", 1, 401), ("the index", 4, 7)]);
        assert_eq!(unknown.problem(&lineage, head, true).unwrap().other_logs, [log(4)]);
    }
}
