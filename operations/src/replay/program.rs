//! Replaying to a program's standard input.
//!
//! What was written may still lie in the pipe, unread. A pipe holds so much and no more, so what lies further back than
//! that has been read: only that counts as delivered, until the program has ended well. What it did with it, nobody
//! knows but the program.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use tokio::task::spawn_blocking;

use super::batch::{BatchLimits, ReplayBatch};
use super::target::{DeliveryProgress, ReplayTarget};
use super::{ReplayError, StatusCallback, StopSignal};

/// What a pipe holds at most, unless its reader makes it larger: 16 pages, which have 4 KiB on x86-64 and up to 64 KiB
/// elsewhere.
const PIPE_BYTES: u64 = if cfg!(target_arch = "x86_64") { 64 << 10 } else { 1 << 20 };

/// How long a program that has been told to end by its closed input may take after the replay was stopped while it did
/// not read.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// How often an ending program is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Where the program's standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgramOutput {
    /// To that of this process.
    Inherit,
    /// To standard error.
    Stderr,
}

/// The program, while it runs.
pub(super) struct Program {
    child: Child,
    /// `None` while a batch is being written, and at the end.
    stdin: Option<ChildStdin>,
    written: u64,
    /// What may be in the pipe yet: where each batch ends, in bytes and in the log.
    unread: VecDeque<(u64, DeliveryProgress)>,
    delivered: DeliveryProgress,
    events: u64,
}

impl Program {
    pub(super) fn start(command: &str, output: ProgramOutput, after: Position) -> Result<Self, ReplayError> {
        let mut program = Command::new("sh");
        program.arg("-c").arg(command).stdin(Stdio::piped());
        // Ctrl-C is for the replay, which then closes the program's input.
        program.process_group(0);
        if output == ProgramOutput::Stderr {
            program.stdout(Stdio::from(io::stderr()));
        }
        let mut child = program.spawn().map_err(ReplayError::Program)?;
        let stdin = child.stdin.take();
        let settled = DeliveryProgress { position: after, events: 0, bytes: None };
        Ok(Self { child, stdin, written: 0, unread: VecDeque::new(), delivered: settled, events: 0 })
    }

    /// Waits for the program's end.
    async fn wait_for_exit(&mut self) -> Result<std::process::ExitStatus, ReplayError> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(ReplayError::Program)? {
                return Ok(status);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Ends the program and whatever it has started, which is its process group. The shell is the one program that is
    /// surely there, and `kill` is part of it.
    fn kill_process_group(&mut self) {
        let group = format!("kill -s KILL -- -{}", self.child.id());
        let killed = Command::new("sh").arg("-c").arg(group).stderr(Stdio::null()).status();
        if !killed.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
    }

    /// Notes what a batch ends with.
    fn record_written(&mut self, settled: DeliveryProgress) {
        match self.unread.back_mut() {
            // Nothing was written since: what holds for the one before holds for this.
            Some((end, last)) if *end == self.written => *last = settled,
            None if self.written == 0 => self.delivered = settled,
            _ => self.unread.push_back((self.written, settled)),
        }
    }

    /// Why it takes no more.
    async fn write_error(&mut self, error: io::Error) -> ReplayError {
        if error.kind() != io::ErrorKind::BrokenPipe {
            return ReplayError::Program(error);
        }
        // It may have closed its input and go on.
        match tokio::time::timeout(GRACE_PERIOD, self.wait_for_exit()).await {
            Ok(Ok(status)) => ReplayError::ProgramEnded(status),
            _ => ReplayError::Program(error),
        }
    }
}

#[async_trait]
impl ReplayTarget for Program {
    fn batch_limits(&self) -> BatchLimits {
        BatchLimits { max_events: u64::MAX, max_bytes: 16 << 10 }
    }

    async fn deliver(
        &mut self,
        batch: &ReplayBatch,
        stop: &mut StopSignal,
        _tell: StatusCallback<'_>,
    ) -> Result<bool, ReplayError> {
        let Some(mut stdin) = self.stdin.take() else {
            return Err(ReplayError::Program(io::ErrorKind::BrokenPipe.into()));
        };
        let lines = batch.lines.clone();
        let mut writing = spawn_blocking(move || {
            let written = stdin.write_all(&lines).and_then(|()| stdin.flush());
            (stdin, written)
        });
        let outcome = tokio::select! {
            outcome = &mut writing => outcome,
            () = async { stop.requested().await; tokio::time::sleep(GRACE_PERIOD).await; } => {
                // It does not read: nothing else ends the write.
                self.kill_process_group();
                writing.await
            }
        };
        let (stdin, written) = outcome.map_err(|error| ReplayError::Program(io::Error::other(error)))?;
        if let Err(error) = written {
            return Err(self.write_error(error).await);
        }
        self.stdin = Some(stdin);
        self.written += batch.lines.len() as u64;
        self.events += batch.events;
        let settled = DeliveryProgress { position: batch.up_to, events: self.events, bytes: None };
        self.record_written(settled);
        Ok(true)
    }

    async fn flush(&mut self) -> Result<DeliveryProgress, ReplayError> {
        while let Some((end, settled)) = self.unread.front()
            && end + PIPE_BYTES <= self.written
        {
            self.delivered = *settled;
            self.unread.pop_front();
        }
        if self.stdin.is_some()
            && let Some(status) = self.child.try_wait().map_err(ReplayError::Program)?
        {
            self.stdin = None;
            return Err(ReplayError::ProgramEnded(status));
        }
        Ok(self.delivered)
    }

    async fn finish(&mut self) -> Result<DeliveryProgress, ReplayError> {
        self.stdin = None;
        let status = self.wait_for_exit().await?;
        if !status.success() {
            return Err(ReplayError::ProgramFailed(status));
        }
        if let Some((_, settled)) = self.unread.pop_back() {
            self.delivered = settled;
        }
        self.unread.clear();
        Ok(self.delivered)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Without its input it ends by itself; one that was left behind is not waited for.
        self.stdin = None;
        let _ = self.child.try_wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_killed_with_what_it_has_started() {
        let mut program = Program::start("sleep 600 | cat", ProgramOutput::Stderr, Position::START).unwrap();
        let mut stdin = program.stdin.take().unwrap();
        program.kill_process_group();
        program.wait_for_exit().await.unwrap();
        // As long as one of them lives, this is read by nobody and never ends.
        let written = spawn_blocking(move || stdin.write_all(&vec![b'x'; 8 << 20])).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_is_not_wanted_moves_the_checkpoint_and_is_not_kept() {
        let mut program = Program::start("cat", ProgramOutput::Stderr, Position::START).unwrap();
        let (_sender, mut stop) = StopSignal::channel();
        for position in 1..=100 {
            let batch = ReplayBatch::empty_after(Position::new(position));
            assert!(program.deliver(&batch, &mut stop, &|_| {}).await.unwrap());
        }
        assert_eq!(program.unread.len(), 0);
        assert_eq!(program.flush().await.unwrap().position, Position::new(100));
        assert_eq!(program.finish().await.unwrap().position, Position::new(100));
    }
}
