//! Progress on stderr: a bar on a terminal, otherwise a line every few seconds.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A progress display that shows a shared counter until it is dropped.
pub struct Progress {
    finished_items: Arc<AtomicU64>,
    display: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts a display of progress towards `total` items of this name.
    pub fn start(items: &'static str, total: u64) -> Self {
        let finished_items = Arc::new(AtomicU64::new(0));
        if !std::io::stderr().is_terminal() {
            let display = tokio::spawn(write_lines(items, total, Arc::clone(&finished_items)));
            return Self { finished_items, display, bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = format!("{{bar:40}} {{human_pos}}/{{human_len}} {items}, {{per_sec}}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let display = tokio::spawn(draw_bar(bar.clone(), Arc::clone(&finished_items)));
        Self { finished_items, display, bar: Some(bar) }
    }

    /// Returns the counter of finished items.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.finished_items)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.display.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn draw_bar(bar: ProgressBar, finished_items: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(REDRAW_INTERVAL);
    loop {
        ticks.tick().await;
        bar.set_position(finished_items.load(Ordering::Relaxed));
    }
}

async fn write_lines(items: &'static str, total: u64, finished_items: Arc<AtomicU64>) {
    let start = Instant::now();
    loop {
        tokio::time::sleep(LINE_INTERVAL).await;
        let finished = finished_items.load(Ordering::Relaxed);
        let rate = finished * 1_000 / u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let time_left = total
            .saturating_sub(finished)
            .checked_div(rate)
            .map_or(String::new(), |seconds| format!(", {seconds} s left"));
        // A closed stderr does not stop the run.
        let _ = writeln!(std::io::stderr(), "{finished} of {total} {items}, {rate}/s{time_left}");
    }
}
