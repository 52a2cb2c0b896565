//! Where a replay's events go.

use std::path::PathBuf;

use async_trait::async_trait;
use chat_domain::Position;

use super::batch::{BatchLimits, ReplayBatch};
use super::checkpoint::ReplayCheckpoint;
use super::endpoint::{Endpoint, EndpointOptions};
use super::file::LinesFile;
use super::program::{Program, ProgramOutput};
use super::{ReplayError, StatusCallback, StopSignal};

/// A destination.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A program, by its command line: it reads lines from its standard input.
    Program {
        /// For the shell.
        command: String,
        /// Whether what it prints goes to standard error.
        to_stderr: bool,
    },
    /// A file of lines, at whose end they are added.
    File(PathBuf),
    /// An HTTP endpoint that batches are sent to.
    Endpoint(EndpointOptions),
}

/// What was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryProgress {
    /// Everything up to here.
    pub(super) position: Position,
    /// How many events in this run.
    pub(super) events: u64,
    /// How long a file is.
    pub(super) bytes: Option<u64>,
}

/// Takes batches, one after the other.
#[async_trait]
pub(super) trait ReplayTarget: Send {
    /// How large it wants them.
    fn batch_limits(&self) -> BatchLimits;

    /// Hands a batch on, which may be empty; whether it has: not where it was to stop before. After a failure nothing more
    /// is handed on.
    async fn deliver(
        &mut self,
        batch: &ReplayBatch,
        stop: &mut StopSignal,
        tell: StatusCallback<'_>,
    ) -> Result<bool, ReplayError>;

    /// Up to where everything is surely delivered, when it has been made durable as far as that is in its hands.
    async fn flush(&mut self) -> Result<DeliveryProgress, ReplayError>;

    /// Says that there will be no more, and waits until all of it is taken.
    async fn finish(&mut self) -> Result<DeliveryProgress, ReplayError>;
}

impl Destination {
    /// Opens it, to go on after a position.
    pub(super) fn open(
        &self,
        checkpoint: Option<&ReplayCheckpoint>,
        after: Position,
    ) -> Result<Box<dyn ReplayTarget>, ReplayError> {
        Ok(match self {
            Self::Program { command, to_stderr } => {
                let output = if *to_stderr { ProgramOutput::Stderr } else { ProgramOutput::Inherit };
                Box::new(Program::start(command, output, after)?)
            }
            Self::File(path) => Box::new(LinesFile::open(path, checkpoint, after)?),
            Self::Endpoint(options) => Box::new(Endpoint::open(options, after)?),
        })
    }
}
