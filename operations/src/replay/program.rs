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

use super::batch::{Batch, Size};
use super::target::{Settled, Target};
use super::{ReplayError, Stop, Tell};

/// What a pipe holds at most, unless its reader makes it larger: 16 pages, which have 4 KiB on x86-64 and up to 64 KiB
/// elsewhere.
const PIPE_BYTES: u64 = if cfg!(target_arch = "x86_64") { 64 << 10 } else { 1 << 20 };

/// How long a program that has been told to end by its closed input may take after the replay was stopped while it did
/// not read.
const GRACE: Duration = Duration::from_secs(5);

/// How often an ending program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Where the program's standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// To that of this process.
    Own,
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
    unread: VecDeque<(u64, Settled)>,
    settled: Settled,
    events: u64,
}

impl Program {
    pub(super) fn start(command: &str, output: Output, after: Position) -> Result<Self, ReplayError> {
        let mut program = Command::new("sh");
        program.arg("-c").arg(command).stdin(Stdio::piped());
        // Ctrl-C is for the replay, which then closes the program's input.
        program.process_group(0);
        if output == Output::Stderr {
            program.stdout(Stdio::from(io::stderr()));
        }
        let mut child = program.spawn().map_err(ReplayError::Program)?;
        let stdin = child.stdin.take();
        let settled = Settled { position: after, events: 0, bytes: None };
        Ok(Self { child, stdin, written: 0, unread: VecDeque::new(), settled, events: 0 })
    }

    /// Waits for the program's end.
    async fn end(&mut self) -> Result<std::process::ExitStatus, ReplayError> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(ReplayError::Program)? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the program and whatever it has started, which is its process group. The shell is the one program that is
    /// surely there, and `kill` is part of it.
    fn kill(&mut self) {
        let group = format!("kill -s KILL -- -{}", self.child.id());
        let killed = Command::new("sh").arg("-c").arg(group).stderr(Stdio::null()).status();
        if !killed.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
    }

    /// Notes what a batch ends with.
    fn note(&mut self, settled: Settled) {
        match self.unread.back_mut() {
            // Nothing was written since: what holds for the one before holds for this.
            Some((end, last)) if *end == self.written => *last = settled,
            None if self.written == 0 => self.settled = settled,
            _ => self.unread.push_back((self.written, settled)),
        }
    }

    /// Why it takes no more.
    async fn gone(&mut self, error: io::Error) -> ReplayError {
        if error.kind() != io::ErrorKind::BrokenPipe {
            return ReplayError::Program(error);
        }
        // It may have closed its input and go on.
        match tokio::time::timeout(GRACE, self.end()).await {
            Ok(Ok(status)) => ReplayError::ProgramEnded(status),
            _ => ReplayError::Program(error),
        }
    }
}

#[async_trait]
impl Target for Program {
    fn size(&self) -> Size {
        Size { events: u64::MAX, bytes: 16 << 10 }
    }

    async fn deliver(
        &mut self,
        batch: &Batch,
        stop: &mut Stop,
        _tell: Tell<'_>,
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
            () = async { stop.asked().await; tokio::time::sleep(GRACE).await; } => {
                // It does not read: nothing else ends the write.
                self.kill();
                writing.await
            }
        };
        let (stdin, written) = outcome.map_err(|error| ReplayError::Program(io::Error::other(error)))?;
        if let Err(error) = written {
            return Err(self.gone(error).await);
        }
        self.stdin = Some(stdin);
        self.written += batch.lines.len() as u64;
        self.events += batch.events;
        let settled = Settled { position: batch.up_to, events: self.events, bytes: None };
        self.note(settled);
        Ok(true)
    }

    async fn settle(&mut self) -> Result<Settled, ReplayError> {
        while let Some((end, settled)) = self.unread.front()
            && end + PIPE_BYTES <= self.written
        {
            self.settled = *settled;
            self.unread.pop_front();
        }
        if self.stdin.is_some()
            && let Some(status) = self.child.try_wait().map_err(ReplayError::Program)?
        {
            self.stdin = None;
            return Err(ReplayError::ProgramEnded(status));
        }
        Ok(self.settled)
    }

    async fn finish(&mut self) -> Result<Settled, ReplayError> {
        self.stdin = None;
        let status = self.end().await?;
        if !status.success() {
            return Err(ReplayError::ProgramFailed(status));
        }
        if let Some((_, settled)) = self.unread.pop_back() {
            self.settled = settled;
        }
        self.unread.clear();
        Ok(self.settled)
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
        let mut program = Program::start("sleep 600 | cat", Output::Stderr, Position::START).unwrap();
        let mut stdin = program.stdin.take().unwrap();
        program.kill();
        program.end().await.unwrap();
        // As long as one of them lives, this is read by nobody and never ends.
        let written = spawn_blocking(move || stdin.write_all(&vec![b'x'; 8 << 20])).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_is_not_wanted_moves_the_checkpoint_and_is_not_kept() {
        let mut program = Program::start("cat", Output::Stderr, Position::START).unwrap();
        let (_sender, mut stop) = Stop::new();
        for position in 1..=100 {
            let batch = Batch::after(Position::new(position));
            assert!(program.deliver(&batch, &mut stop, &|_| {}).await.unwrap());
        }
        assert_eq!(program.unread.len(), 0);
        assert_eq!(program.settle().await.unwrap().position, Position::new(100));
        assert_eq!(program.finish().await.unwrap().position, Position::new(100));
    }
}
