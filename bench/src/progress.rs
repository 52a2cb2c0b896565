//! Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Work under way, counted by any number of tasks.
pub struct Progress {
    done: Arc<AtomicU64>,
    display: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows progress towards `total` things of this name until it is dropped.
    pub fn start(what: &'static str, total: u64) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        if !std::io::stderr().is_terminal() {
            let display = tokio::spawn(write_lines(what, total, Arc::clone(&done)));
            return Self { done, display, bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = format!("{{bar:40}} {{human_pos}}/{{human_len}} {what}, {{per_sec}}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let display = tokio::spawn(draw_bar(bar.clone(), Arc::clone(&done)));
        Self { done, display, bar: Some(bar) }
    }

    /// Counts.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
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

async fn draw_bar(bar: ProgressBar, done: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(REDRAW_INTERVAL);
    loop {
        ticks.tick().await;
        bar.set_position(done.load(Ordering::Relaxed));
    }
}

async fn write_lines(what: &'static str, total: u64, done: Arc<AtomicU64>) {
    let start = Instant::now();
    loop {
        tokio::time::sleep(LINE_INTERVAL).await;
        let now = done.load(Ordering::Relaxed);
        let rate = now * 1_000 / u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let left =
            total.saturating_sub(now).checked_div(rate).map_or(String::new(), |s| format!(", {s} s left"));
        // Progress nobody can read is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{now} of {total} {what}, {rate}/s{left}");
    }
}
