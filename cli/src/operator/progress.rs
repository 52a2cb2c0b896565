//! Progress of a long command on standard error: a bar on a terminal, a plain line about every ten seconds in a pipe,
//! with the rate, and with the time left if the total is known.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use chat_operations::counted::counted;
use indicatif::{ProgressBar, ProgressStyle};

/// Minimum time between two lines if standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum number of events between two reads of the clock.
const EVENTS_PER_CLOCK_CHECK: u64 = 64;

/// Progress of a long command. Dropping it clears the bar from the terminal.
pub(super) struct Progress {
    activity: &'static str,
    started: Instant,
    total: Option<u64>,
    output: ProgressOutput,
}

enum ProgressOutput {
    Bar(ProgressBar),
    Lines { last_written: Instant, done_at_last_check: u64 },
}

impl Progress {
    /// Starts the display. `total` is the number of events, if it is known.
    pub(super) fn start(activity: &'static str, total: Option<u64>) -> Self {
        let started = Instant::now();
        let output = if stderr().is_terminal() {
            let bar = ProgressBar::new(total.unwrap_or_default()).with_message(activity);
            ProgressOutput::Bar(bar.with_style(bar_style(total)))
        } else {
            ProgressOutput::Lines { last_written: started, done_at_last_check: 0 }
        };
        Self { activity, started, total, output }
    }

    /// Sets the number of events, which may become known or grow later.
    pub(super) fn set_total(&mut self, total: Option<u64>) {
        if self.total == total {
            return;
        }
        self.total = total;
        if let ProgressOutput::Bar(bar) = &self.output {
            bar.set_style(bar_style(total));
            bar.set_length(total.unwrap_or_default());
        }
    }

    /// Sets the number of processed events.
    pub(super) fn set_done(&mut self, done: u64) {
        match &mut self.output {
            ProgressOutput::Bar(bar) => bar.set_position(done),
            ProgressOutput::Lines { last_written, done_at_last_check } => {
                // Reading the clock for every event would slow the work down.
                if done.abs_diff(*done_at_last_check) < EVENTS_PER_CLOCK_CHECK {
                    return;
                }
                *done_at_last_check = done;
                if last_written.elapsed() >= LINE_INTERVAL {
                    *last_written = Instant::now();
                    let line = progress_line(self.activity, done, self.total, self.started.elapsed());
                    let _ = writeln!(stderr(), "{line}");
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let ProgressOutput::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
    }
}

fn bar_style(total: Option<u64>) -> ProgressStyle {
    let template = match total {
        Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left",
        None => "{msg} {spinner} {human_pos} events, {per_sec}",
    };
    // The template is a valid constant, so the fallback is never used.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn progress_line(activity: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = done / elapsed.as_secs().max(1);
    match total {
        Some(total) if rate > 0 => {
            let left = total.saturating_sub(done) / rate;
            format!("{activity}: {done} of {}, {rate}/s, about {left} s left", counted(total, "event"))
        }
        _ => format!("{activity}: {}, {rate}/s", counted(done, "event")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_rate_and_also_the_time_left_if_the_total_is_known() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(
            progress_line("Reading", 500, Some(2_000), elapsed),
            "Reading: 500 of 2000 events, 50/s, about 30 s left"
        );
        assert_eq!(progress_line("Reading", 500, None, elapsed), "Reading: 500 events, 50/s");
    }
}
