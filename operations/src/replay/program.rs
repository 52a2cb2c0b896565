//! Replaying to a program's standard input.
//!
//! The pipe may still contain the bytes written last, as many as its capacity. The program has read all earlier bytes.
//! Until the program has ended successfully, only the events in the earlier bytes count as delivered. Whether the
//! program has processed the events that it read is unknown.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use tokio::task::spawn_blocking;

use super::batch::{BatchLimits, ReplayBatch};
use super::error::ReplayError;
use super::stop_signal::{StatusCallback, StopSignal};
use super::target::{DeliveryProgress, ReplayTarget};

/// The capacity of a pipe: 16 pages, of 4 KiB on x86-64 and up to 64 KiB on other architectures. Too low if the program
/// enlarges its pipe.
const PIPE_BYTES: u64 = if cfg!(target_arch = "x86_64") { 64 << 10 } else { 1 << 20 };

/// The time within which a program must read a batch after a stop was requested, or exit after it closed its input.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// The interval at which the exit of the program is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The destination of the program's standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgramOutput {
    /// The standard output of this process.
    Inherit,
    /// The standard error of this process.
    Stderr,
}

/// The running program.
pub(super) struct Program {
    child: Child,
    /// `None` while a batch is being written, and after the last batch or a failure.
    stdin: Option<ChildStdin>,
    written_bytes: u64,
    /// The batches that may still be in the pipe: the number of bytes written up to the end of each batch, and the
    /// progress once the program has read the batch.
    unread: VecDeque<(u64, DeliveryProgress)>,
    /// The progress for which delivery is certain.
    delivered: DeliveryProgress,
    /// The number of events written in this run.
    written_events: u64,
}

impl Program {
    pub(super) fn start(command: &str, output: ProgramOutput, after: Position) -> Result<Self, ReplayError> {
        let mut program = Command::new("sh");
        program.arg("-c").arg(command).stdin(Stdio::piped());
        // Ctrl-C must reach only the replay, which then closes the program's input.
        program.process_group(0);
        if output == ProgramOutput::Stderr {
            program.stdout(Stdio::from(io::stderr()));
        }
        let mut child = program.spawn().map_err(ReplayError::Program)?;
        let stdin = child.stdin.take();
        let delivered = DeliveryProgress { position: after, events: 0, bytes: None };
        Ok(Self { child, stdin, written_bytes: 0, unread: VecDeque::new(), delivered, written_events: 0 })
    }

    /// Waits until the program exits.
    async fn wait_for_exit(&mut self) -> Result<std::process::ExitStatus, ReplayError> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(ReplayError::Program)? {
                return Ok(status);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Kills the program's process group: the program and the processes it started. Runs `kill` in the shell because
    /// the shell is certain to exist and has `kill` built in.
    fn kill_process_group(&mut self) {
        let group = format!("kill -s KILL -- -{}", self.child.id());
        let killed = Command::new("sh").arg("-c").arg(group).stderr(Stdio::null()).status();
        if !killed.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
    }

    /// Records the progress that is reached when the program has read all bytes written so far.
    fn record_written(&mut self, progress: DeliveryProgress) {
        match self.unread.back_mut() {
            // No bytes were written since the last batch, so this progress is reached together with that of the last
            // batch.
            Some((end, last)) if *end == self.written_bytes => *last = progress,
            None if self.written_bytes == 0 => self.delivered = progress,
            _ => self.unread.push_back((self.written_bytes, progress)),
        }
    }

    /// Determines why a write failed.
    async fn write_error(&mut self, error: io::Error) -> ReplayError {
        if error.kind() != io::ErrorKind::BrokenPipe {
            return ReplayError::Program(error);
        }
        // The program may have closed its input and still be running.
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
        _on_status: StatusCallback<'_>,
    ) -> Result<bool, ReplayError> {
        let Some(mut stdin) = self.stdin.take() else {
            return Err(ReplayError::Program(io::ErrorKind::BrokenPipe.into()));
        };
        let lines = batch.lines.clone();
        let mut writing = spawn_blocking(move || {
            let write_result = stdin.write_all(&lines).and_then(|()| stdin.flush());
            (stdin, write_result)
        });
        let outcome = tokio::select! {
            outcome = &mut writing => outcome,
            () = async { stop.requested().await; tokio::time::sleep(GRACE_PERIOD).await; } => {
                // The program does not read, so only killing it ends the write.
                self.kill_process_group();
                writing.await
            }
        };
        let (stdin, write_result) = outcome.map_err(|error| ReplayError::Program(io::Error::other(error)))?;
        if let Err(error) = write_result {
            return Err(self.write_error(error).await);
        }
        self.stdin = Some(stdin);
        self.written_bytes += batch.lines.len() as u64;
        self.written_events += batch.events;
        self.record_written(DeliveryProgress {
            position: batch.up_to,
            events: self.written_events,
            bytes: None,
        });
        Ok(true)
    }

    async fn flush(&mut self) -> Result<DeliveryProgress, ReplayError> {
        while let Some((end, progress)) = self.unread.front()
            && end + PIPE_BYTES <= self.written_bytes
        {
            self.delivered = *progress;
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
        if let Some((_, progress)) = self.unread.pop_back() {
            self.delivered = progress;
        }
        self.unread.clear();
        Ok(self.delivered)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that reads its input to the end can now end. `drop` can't wait for that.
        self.stdin = None;
        let _ = self.child.try_wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn kills_a_program_with_the_processes_it_started() {
        let mut program = Program::start("sleep 600 | cat", ProgramOutput::Stderr, Position::START).unwrap();
        let mut stdin = program.stdin.take().unwrap();
        program.kill_process_group();
        program.wait_for_exit().await.unwrap();
        // While one of the processes lives, this write blocks because nothing reads the pipe.
        let written = spawn_blocking(move || stdin.write_all(&vec![b'x'; 8 << 20])).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn empty_batches_advance_the_position_without_being_queued() {
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
