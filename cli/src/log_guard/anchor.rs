//! Writes the log anchor about once a second while the log grows, independently of the appends.

use std::path::PathBuf;
use std::time::Duration;

use chat_command_api::writer::PositionReader;
use chat_domain::Position;
use chat_files::log_anchor::LogAnchor;
use chat_ports::event_store::LogId;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::gate::LogGate;

/// The interval at which the position is written if it has moved. Appends never wait for a write.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the anchor of a process that appends.
pub(crate) struct AnchorWriter {
    pub(crate) path: PathBuf,
    pub(crate) log: LogId,
    pub(crate) position_reader: PositionReader,
    pub(crate) gate: LogGate,
}

/// The task that writes the anchor.
pub(crate) struct AnchorTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl AnchorWriter {
    /// Starts a task that writes the anchor at once, and again when the position has moved, except while the gate is
    /// closed.
    pub(crate) fn spawn(self) -> AnchorTask {
        let (stop, stopped) = oneshot::channel();
        AnchorTask { stop, task: tokio::spawn(self.run(stopped)) }
    }

    async fn run(self, mut stopped: oneshot::Receiver<()>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = None;
        let mut failed = false;
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                _ = &mut stopped => true,
            };
            let position = self.position_reader.position();
            // While the gate is closed, the folder may have been replaced, so the file in it may be the anchor of
            // another log.
            if written != Some(position) && self.gate.problem().is_none() {
                match self.write(position).await {
                    Ok(()) => (written, failed) = (Some(position), false),
                    // The earlier anchor stays valid: the log did reach the position in it. Of failures in a row, only
                    // the first is logged, and that of the task's last write.
                    Err(error) if !failed || is_last => {
                        failed = true;
                        self.warn(&error);
                    }
                    Err(_) => {}
                }
            }
            if is_last {
                return;
            }
        }
    }

    fn warn(&self, error: &std::io::Error) {
        tracing::warn!(%error, path = %self.path.display(), "the log anchor can't be written");
    }

    async fn write(&self, position: Position) -> std::io::Result<()> {
        let (anchor, path) = (LogAnchor { log: self.log, position }, self.path.clone());
        tokio::task::spawn_blocking(move || anchor.write(&path))
            .await
            .unwrap_or_else(|join_error| Err(join_error.into()))
    }
}

impl AnchorTask {
    /// Ends the task, after a write that is under way. Writes the anchor once more if the position has moved and the
    /// gate is open.
    pub(crate) async fn finish(self) {
        // An abort would not end the write under way, which runs on a thread of its own. That write could then replace
        // an anchor that is written later.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}
