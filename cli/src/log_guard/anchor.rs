//! Writes the log anchor beside the appends.

use std::path::PathBuf;
use std::time::Duration;

use chat_command_api::writer::PositionReader;
use chat_domain::Position;
use chat_files::log_anchor::LogAnchor;
use chat_ports::event_store::LogId;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::gate::LogGate;

/// The interval at which a position that has moved is written. Appends never wait for it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the anchor of a process that appends.
#[derive(Clone)]
pub(crate) struct AnchorWriter {
    pub(crate) path: PathBuf,
    pub(crate) log: LogId,
    pub(crate) position: PositionReader,
    pub(crate) gate: LogGate,
}

impl AnchorWriter {
    /// Writes the anchor at once, and then whenever the position has moved.
    pub(crate) fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut written = None;
            let mut failed = false;
            loop {
                ticks.tick().await;
                let position = self.position.position();
                if written == Some(position) {
                    continue;
                }
                match self.write(position).await {
                    Ok(()) => (written, failed) = (Some(position), false),
                    // The anchor before it stays, and is true as well.
                    Err(error) if !failed => {
                        failed = true;
                        tracing::warn!(%error, path = %self.path.display(), "the log anchor can't be written");
                    }
                    Err(_) => {}
                }
            }
        })
    }

    /// Writes the anchor for the last time.
    pub(crate) async fn finish(self) {
        let position = self.position.position();
        if let Err(error) = self.write(position).await {
            tracing::warn!(%error, path = %self.path.display(), "the log anchor can't be written");
        }
    }

    async fn write(&self, position: Position) -> std::io::Result<()> {
        // The folder may be another one.
        if self.gate.problem().is_some() {
            return Ok(());
        }
        let (anchor, path) = (LogAnchor { log: self.log, position }, self.path.clone());
        tokio::task::spawn_blocking(move || anchor.write(&path))
            .await
            .unwrap_or_else(|ended| Err(ended.into()))
    }
}
