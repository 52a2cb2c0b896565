//! Progress of projectors on standard error: a bar on a terminal, a line every few seconds in a pipe.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use chat_domain::Position;
use chat_operations::projections::{Phase, Progress};
use chat_projector::ProjectorStatus;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The time between two redraws of the bar.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
/// The time between two lines in a pipe.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress until it is dropped.
pub(super) struct ProgressDisplay {
    pub(super) progress: watch::Sender<Progress>,
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl ProgressDisplay {
    pub(super) fn start() -> Self {
        let (progress, watched) = watch::channel(Progress::new());
        if !std::io::stderr().is_terminal() {
            return Self { progress, task: tokio::spawn(write_lines(watched)), bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        Self { progress, task: tokio::spawn(draw_bar(watched, bar.clone())), bar: Some(bar) }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Measures the mean speed of folding since the meter was started.
struct RateMeter {
    started: Instant,
    events_at_start: u64,
    positions_at_start: u64,
}

impl RateMeter {
    fn start(progress: &Progress) -> Self {
        let (positions_at_start, _) = folded_positions(progress);
        Self { started: Instant::now(), events_at_start: folded_events(progress), positions_at_start }
    }

    fn rate(&self, progress: &Progress) -> u64 {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        folded_events(progress).saturating_sub(self.events_at_start).saturating_mul(1_000) / millis
    }

    /// Returns the seconds left, or `None` if nothing was folded since the start. Estimated from positions: they may
    /// have gaps, so the number of events left is unknown.
    fn seconds_left(&self, progress: &Progress) -> Option<u64> {
        let (folded, total) = folded_positions(progress);
        let folded_since_start = u128::from(folded.saturating_sub(self.positions_at_start));
        let left = u128::from(total - folded);
        let millis_left = (left * self.started.elapsed().as_millis()).checked_div(folded_since_start)?;
        u64::try_from(millis_left.div_ceil(1_000)).ok()
    }
}

fn folded_events(progress: &Progress) -> u64 {
    progress.generations.iter().map(|(_, status)| status.events_processed).sum()
}

/// Returns the number of folded positions and the number of all positions, summed over the generations.
fn folded_positions(progress: &Progress) -> (u64, u64) {
    progress.generations.iter().fold((0, 0), |(folded, total), (_, status)| {
        (folded + status.position.get(), total + status.head.get().max(status.position.get()))
    })
}

/// Whether there are projectors and all of them know the head of the log. Until then, there is nothing to show.
fn has_positions(progress: &Progress) -> bool {
    let knows_head = |status: &ProjectorStatus| status.head > Position::START;
    !progress.generations.is_empty() && progress.generations.iter().all(|(_, status)| knows_head(status))
}

async fn draw_bar(mut watched: watch::Receiver<Progress>, bar: ProgressBar) {
    // The template is a valid constant, so the fallback is never used.
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let rate_meter = RateMeter::start(&watched.borrow_and_update().clone());
    loop {
        let progress = watched.borrow_and_update().clone();
        // A bar of length 0 would be drawn as full.
        if has_positions(&progress) {
            let (folded, total) = folded_positions(&progress);
            bar.set_length(total);
            bar.set_position(folded);
            bar.set_message(format!("{} {}/s", progress.phase.as_str(), rate_meter.rate(&progress)));
        }
        sleep(REDRAW_INTERVAL).await;
    }
}

async fn write_lines(mut watched: watch::Receiver<Progress>) {
    let mut rate_meter: Option<RateMeter> = None;
    let mut last_written: Option<(Phase, Instant)> = None;
    while watched.changed().await.is_ok() {
        let progress = watched.borrow_and_update().clone();
        let due = last_written.is_none_or(|(phase, written_at)| {
            phase != progress.phase || written_at.elapsed() >= LINE_INTERVAL
        });
        if !due || !has_positions(&progress) {
            continue;
        }
        last_written = Some((progress.phase, Instant::now()));
        // The meter starts when the first positions are known: what a resumed build folded earlier does not count.
        let rate_meter = rate_meter.get_or_insert_with(|| RateMeter::start(&progress));
        // Standard error may be closed.
        let _ = writeln!(std::io::stderr(), "{}", progress_line(&progress, rate_meter));
    }
}

/// Formats a line such as `folding: read_model 2 at 5000 of 20000, search_index 2 at 4000 of 20000; 9000/s, 4 s left`.
fn progress_line(progress: &Progress, rate_meter: &RateMeter) -> String {
    let generations: Vec<_> = progress
        .generations
        .iter()
        .map(|(id, status)| {
            let (name, generation) = (id.projection.as_str(), id.generation.0);
            format!("{name} {generation} at {} of {}", status.position, status.head)
        })
        .collect();
    let (folded, total) = folded_positions(progress);
    let rate_and_time = match (progress.phase, rate_meter.rate(progress), rate_meter.seconds_left(progress)) {
        (_, 0, _) => String::new(),
        _ if folded == total => String::new(),
        (Phase::Folding | Phase::CatchingUp, rate, Some(seconds)) => format!("; {rate}/s, {seconds} s left"),
        (_, rate, _) => format!("; {rate}/s"),
    };
    format!("{}: {}{rate_and_time}", progress.phase.as_str(), generations.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};

    #[tokio::test(start_paused = true)]
    async fn the_time_left_is_right_for_positions_with_gaps() {
        let id =
            ProjectionGeneration { projection: ProjectionName::ReadModel, generation: Generation::FIRST };
        let progress_at = |position, events_processed| {
            let (position, head) = (Position::new(position), Position::new(30_000));
            let status =
                ProjectorStatus { position, head, events_processed, ..ProjectorStatus::new("read_model") };
            Progress { generations: vec![(id, status)], ..Progress::new() }
        };
        let rate_meter = RateMeter::start(&progress_at(10_000, 0));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(
            progress_line(&progress_at(20_000, 50), &rate_meter),
            "folding: read_model 1 at 20000 of 30000; 5/s, 10 s left"
        );
    }

    #[test]
    fn nothing_is_shown_before_every_projector_knows_its_positions() {
        let id =
            ProjectionGeneration { projection: ProjectionName::ReadModel, generation: Generation::FIRST };
        let mut progress = Progress::new();
        assert!(!has_positions(&progress));
        let status = ProjectorStatus::new("read_model");
        progress.generations.push((id, status.clone()));
        assert!(!has_positions(&progress));
        progress.generations[0].1 = ProjectorStatus { head: Position::new(7), ..status };
        assert!(has_positions(&progress));
        assert_eq!(progress_line(&progress, &RateMeter::start(&progress)), "folding: read_model 1 at 0 of 7");
        let other = ProjectionGeneration { projection: ProjectionName::SearchIndex, ..id };
        progress.generations.push((other, ProjectorStatus::new("search_index")));
        assert!(!has_positions(&progress));
    }
}
