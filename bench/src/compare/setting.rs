//! What all figures share.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::blast::{Outcome, Source, blast};
use super::requests::Posts;
use super::texts::Texts;

/// Keep-alive connections of a load.
pub const CONNECTIONS: usize = 64;

/// Messages of a page, as the API gives them unless asked otherwise.
pub const PAGE: u64 = 50;

/// What is measured with, and how long.
pub struct Setting {
    /// The chat API.
    pub program: PathBuf,
    /// Where data folders are made: an absolute path.
    pub folder: PathBuf,
    /// What messages say.
    pub texts: Texts,
    /// Rounds of each figure.
    pub rounds: usize,
    /// How long one side of a round is measured.
    pub duration: Duration,
    /// Messages where a figure is about many of them.
    pub messages: u64,
    /// The most messages where a figure is about growth.
    pub largest: u64,
}

impl Setting {
    /// Chats that messages are spread over: a thousand, unless so few messages are asked for that a chat would have less
    /// than a page of them.
    pub fn chats(&self) -> u64 {
        (self.messages / PAGE).clamp(1, 1_000)
    }

    /// Queries of each kind: a few hundred, unless little is asked for.
    pub fn queries(&self) -> usize {
        usize::try_from(self.messages / 20).unwrap_or(usize::MAX).clamp(10, 300)
    }

    /// Posts as fast as it goes for as long as a side of a round lasts.
    pub async fn posts(&self, address: &str, paths: &[String]) -> io::Result<Outcome> {
        self.at_full_speed(address, 201, self.endless(paths)).await
    }

    /// Messages without an end to these paths.
    pub fn endless(&self, paths: &[String]) -> Arc<Posts> {
        Arc::new(Posts::new(paths.to_vec(), self.texts.corpus(), u64::MAX))
    }

    /// Sends as fast as it goes for as long as a side of a round lasts.
    pub async fn at_full_speed(
        &self,
        address: &str,
        expected: u16,
        source: Arc<dyn Source>,
    ) -> io::Result<Outcome> {
        all_answered(blast(address, expected, CONNECTIONS, self.duration, source).await?)
    }

    /// Posts so many messages as fast as it goes.
    pub async fn post_all(&self, address: &str, paths: &[String], messages: u64) -> io::Result<()> {
        let source = Arc::new(Posts::new(paths.to_vec(), self.texts.corpus(), messages));
        all_answered(blast(address, 201, CONNECTIONS, Duration::MAX, source).await?).map(|_| ())
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

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, duration, messages, largest, .. } = self;
        write!(
            f,
            "{rounds} {} of {} s a side, {CONNECTIONS} connections, {messages} messages, growth up to {largest}",
            if *rounds == 1 { "round" } else { "rounds" },
            duration.as_secs_f64()
        )
    }
}

/// A load of which something was refused measures something else.
fn all_answered(outcome: Outcome) -> io::Result<Outcome> {
    if outcome.refused > 0 {
        return Err(io::Error::other(format!("{} requests were refused", outcome.refused)));
    }
    Ok(outcome)
}
