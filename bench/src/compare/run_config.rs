//! The configuration of a comparison, and the loads that the figures share.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::closed_loop::{LoadOutcome, RequestSource, run_closed_loop};
use super::requests::Posts;
use super::text_generator::TextGenerator;

/// The number of keep-alive connections of a load.
pub const CONNECTIONS: usize = 64;

/// The default page size of the API, in messages.
pub const PAGE_SIZE: u64 = 50;

/// The configuration of a comparison.
pub struct RunConfig {
    /// The path of the chat API's program.
    pub program: PathBuf,
    /// The parent of all data folders, on the disk to measure: an absolute path.
    pub folder: PathBuf,
    /// The texts of the messages.
    pub texts: TextGenerator,
    /// The number of rounds of each figure.
    pub rounds: usize,
    /// The time for which one side of a round is measured.
    pub duration: Duration,
    /// The number of messages of figures that need many messages.
    pub messages: u64,
    /// The highest number of messages of the figures about growth.
    pub max_growth_messages: u64,
}

impl RunConfig {
    /// Returns the number of chats that messages are spread over: a thousand, or fewer so that each has at least a page
    /// of messages.
    pub fn chats(&self) -> u64 {
        (self.messages / PAGE_SIZE).clamp(1, 1_000)
    }

    /// Returns the number of queries of each kind: 300, or fewer with few messages.
    pub fn query_count(&self) -> usize {
        usize::try_from(self.messages / 20).unwrap_or(usize::MAX).clamp(10, 300)
    }

    /// Posts messages in a closed loop for the time of one side of a round.
    pub async fn post_for_duration(&self, address: &str, paths: &[String]) -> io::Result<LoadOutcome> {
        self.run_closed_loop(address, 201, self.endless_posts(paths)).await
    }

    /// Returns posts of messages to these paths, without an end.
    pub fn endless_posts(&self, paths: &[String]) -> Arc<Posts> {
        Arc::new(Posts::new(paths.to_vec(), self.texts.corpus(), u64::MAX))
    }

    /// Sends requests in a closed loop for the time of one side of a round.
    pub async fn run_closed_loop(
        &self,
        address: &str,
        expected_status: u16,
        source: Arc<dyn RequestSource>,
    ) -> io::Result<LoadOutcome> {
        require_no_refusals(
            run_closed_loop(address, expected_status, CONNECTIONS, self.duration, source).await?,
        )
    }

    /// Posts this many messages in a closed loop.
    pub async fn post_all(&self, address: &str, paths: &[String], messages: u64) -> io::Result<()> {
        let source = Arc::new(Posts::new(paths.to_vec(), self.texts.corpus(), messages));
        require_no_refusals(run_closed_loop(address, 201, CONNECTIONS, Duration::MAX, source).await?)
            .map(|_| ())
    }

    /// Creates a temporary folder on the disk to measure.
    pub fn new_folder(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix("bench-").tempdir_in(&self.folder)
    }

    /// Writes a file for a server to read. The file is removed when the returned folder is dropped.
    pub fn temporary_file(&self, name: &str, content: &[u8]) -> io::Result<(TempDir, PathBuf)> {
        let folder = self.new_folder()?;
        let path = folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok((folder, path))
    }

    /// Returns the folder on the disk to measure.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl fmt::Display for RunConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, duration, messages, max_growth_messages: largest, .. } = self;
        write!(
            f,
            "{rounds} {} of {} s a side, {CONNECTIONS} connections, {messages} messages, growth up to {largest}",
            if *rounds == 1 { "round" } else { "rounds" },
            duration.as_secs_f64()
        )
    }
}

/// Fails if the server refused a request: a refusal takes less work than the measured request.
fn require_no_refusals(outcome: LoadOutcome) -> io::Result<LoadOutcome> {
    if outcome.refused > 0 {
        return Err(io::Error::other(format!("{} requests were refused", outcome.refused)));
    }
    Ok(outcome)
}
