//! What all figures share.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::closed_loop::{LoadOutcome, RequestSource, run_closed_loop};
use super::requests::Posts;
use super::text_generator::TextGenerator;

/// Keep-alive connections of a load.
pub const CONNECTIONS: usize = 64;

/// Messages of a page, as the API gives them unless asked otherwise.
pub const PAGE_SIZE: u64 = 50;

/// What is measured with, and how long.
pub struct RunConfig {
    /// The chat API.
    pub program: PathBuf,
    /// Where data folders are made: an absolute path.
    pub folder: PathBuf,
    /// What messages say.
    pub texts: TextGenerator,
    /// Rounds of each figure.
    pub rounds: usize,
    /// How long one side of a round is measured.
    pub duration: Duration,
    /// Messages where a figure is about many of them.
    pub messages: u64,
    /// The most messages where a figure is about growth.
    pub max_growth_messages: u64,
}

impl RunConfig {
    /// Chats that messages are spread over: a thousand, unless so few messages are asked for that a chat would have less
    /// than a page of them.
    pub fn chats(&self) -> u64 {
        (self.messages / PAGE_SIZE).clamp(1, 1_000)
    }

    /// Queries of each kind: a few hundred, unless little is asked for.
    pub fn query_count(&self) -> usize {
        usize::try_from(self.messages / 20).unwrap_or(usize::MAX).clamp(10, 300)
    }

    /// Posts as fast as it goes for as long as a side of a round lasts.
    pub async fn posts(&self, address: &str, paths: &[String]) -> io::Result<LoadOutcome> {
        self.send_at_full_speed(address, 201, self.endless_posts(paths)).await
    }

    /// Messages without an end to these paths.
    pub fn endless_posts(&self, paths: &[String]) -> Arc<Posts> {
        Arc::new(Posts::new(paths.to_vec(), self.texts.corpus(), u64::MAX))
    }

    /// Sends as fast as it goes for as long as a side of a round lasts.
    pub async fn send_at_full_speed(
        &self,
        address: &str,
        expected: u16,
        source: Arc<dyn RequestSource>,
    ) -> io::Result<LoadOutcome> {
        require_all_answered(run_closed_loop(address, expected, CONNECTIONS, self.duration, source).await?)
    }

    /// Posts so many messages as fast as it goes.
    pub async fn post_all(&self, address: &str, paths: &[String], messages: u64) -> io::Result<()> {
        let source = Arc::new(Posts::new(paths.to_vec(), self.texts.corpus(), messages));
        require_all_answered(run_closed_loop(address, 201, CONNECTIONS, Duration::MAX, source).await?)
            .map(|_| ())
    }

    /// A new folder on the disk that is measured.
    pub fn new_folder(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix("bench-").tempdir_in(&self.folder)
    }

    /// Where to write something for a server to read.
    pub fn file(&self, name: &str, content: &[u8]) -> io::Result<(TempDir, PathBuf)> {
        let folder = self.new_folder()?;
        let path = folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok((folder, path))
    }

    /// The folder whose disk is measured.
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

/// A load of which something was refused measures something else.
fn require_all_answered(outcome: LoadOutcome) -> io::Result<LoadOutcome> {
    if outcome.refused > 0 {
        return Err(io::Error::other(format!("{} requests were refused", outcome.refused)));
    }
    Ok(outcome)
}
