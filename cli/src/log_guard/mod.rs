//! Detection of a log that has lost acknowledged events, is another log than before, or was removed or replaced
//! while it was open.
//!
//! Projections, idempotency keys and the log anchor are stored outside the log. Each holds the log's id and a position
//! that was durable. [`LogEvidence`] reads these ids and positions. If one of the ids is that of another log, or the
//! log ends before one of the positions, no command is taken until an operator has decided.

mod anchor;
mod evidence;
mod gate;
mod missing_log;
mod opened_log;

pub(crate) use anchor::{AnchorTask, AnchorWriter};
pub(crate) use evidence::{LogEvidence, LogProblem, MISSING_LOG_ADVICE};
pub(crate) use gate::LogGate;
pub(crate) use opened_log::{OpenedLog, find_problem, open_existing_log, wait_for_decision};
