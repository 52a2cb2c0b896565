//! How far long work is: on a terminal as it moves, elsewhere in a line now and then. On standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use chat_operations::projections::{Phase, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How often a terminal is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(200);
/// How often a line is written elsewhere.
const WRITTEN_EVERY: Duration = Duration::from_secs(5);

/// Shows progress until it is dropped.
pub(super) struct Display {
    pub(super) progress: watch::Sender<Progress>,
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Display {
    pub(super) fn start() -> Self {
        let (progress, watched) = watch::channel(Progress::new());
        if !std::io::stderr().is_terminal() {
            return Self { progress, task: tokio::spawn(write(watched)), bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        Self { progress, task: tokio::spawn(draw(watched, bar.clone())), bar: Some(bar) }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Where a fold was when it was looked at first: the rate is told from there.
struct Pace {
    since: Instant,
    from: u64,
}

impl Pace {
    fn of(progress: &Progress) -> Self {
        Self { since: Instant::now(), from: folded(progress) }
    }

    fn rate(&self, progress: &Progress) -> u64 {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        folded(progress).saturating_sub(self.from).saturating_mul(1_000) / millis
    }
}

fn folded(progress: &Progress) -> u64 {
    progress.generations.iter().map(|(_, status)| status.events_processed).sum()
}

/// Positions that are folded, of those that are to be.
fn done(progress: &Progress) -> (u64, u64) {
    progress.generations.iter().fold((0, 0), |(done, all), (_, status)| {
        (done + status.position.get(), all + status.head.get().max(status.position.get()))
    })
}

async fn draw(mut watched: watch::Receiver<Progress>, bar: ProgressBar) {
    // The template is a constant of this program.
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let pace = Pace::of(&watched.borrow_and_update().clone());
    loop {
        let progress = watched.borrow_and_update().clone();
        let (done, all) = done(&progress);
        bar.set_length(all);
        bar.set_position(done);
        bar.set_message(format!("{} {}/s", progress.phase.as_str(), pace.rate(&progress)));
        sleep(DRAWN_EVERY).await;
    }
}

async fn write(mut watched: watch::Receiver<Progress>) {
    let pace = Pace::of(&watched.borrow_and_update().clone());
    let mut said: Option<(Phase, Instant)> = None;
    while watched.changed().await.is_ok() {
        let progress = watched.borrow_and_update().clone();
        let due = said.is_none_or(|(phase, at)| phase != progress.phase || at.elapsed() >= WRITTEN_EVERY);
        if !due {
            continue;
        }
        said = Some((progress.phase, Instant::now()));
        // Where standard error is closed nobody reads it.
        let _ = writeln!(std::io::stderr(), "{}", line(&progress, pace.rate(&progress)));
    }
}

/// `folding: read_model 2 at 5000 of 20000, search_index 2 at 4000 of 20000; 9000/s, 3 s left`
fn line(progress: &Progress, rate: u64) -> String {
    let copies: Vec<_> = progress
        .generations
        .iter()
        .map(|(copy, status)| {
            let (name, generation) = (copy.projection.as_str(), copy.generation.0);
            format!("{name} {generation} at {} of {}", status.position, status.head)
        })
        .collect();
    let (done, all) = done(progress);
    let left = match (progress.phase, all - done, rate) {
        (_, 0, _) | (_, _, 0) => String::new(),
        (Phase::Folding, left, rate) => format!("; {rate}/s, {} s left", left.div_ceil(rate)),
        (_, _, rate) => format!("; {rate}/s"),
    };
    format!("{}: {}{left}", progress.phase.as_str(), copies.join(", "))
}
