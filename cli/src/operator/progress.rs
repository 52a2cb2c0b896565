//! How far a long command has got, on standard error: a bar with rate and time left on a terminal, a plain line now and
//! then in a pipe.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// After how many events the clock is looked at.
const LOOK_EVERY: u64 = 64;

/// A long command's progress. It leaves nothing behind on a terminal.
pub(super) struct Progress {
    what: &'static str,
    started: Instant,
    total: Option<u64>,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { said: Instant, looked: u64 },
}

impl Progress {
    /// Of so many events, where that is known.
    pub(super) fn start(what: &'static str, total: Option<u64>) -> Self {
        let started = Instant::now();
        let shown = if stderr().is_terminal() {
            let template = match total {
                Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left",
                None => "{msg} {spinner} {human_pos} events, {per_sec}",
            };
            let bar = ProgressBar::new(total.unwrap_or_default()).with_message(what);
            // A template of ours that were wrong would show the usual bar.
            Shown::Bar(match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            })
        } else {
            Shown::Lines { said: started, looked: 0 }
        };
        Self { what, started, total, shown }
    }

    /// Tells how many are done.
    pub(super) fn at(&mut self, done: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines { said, looked } => {
                // Looking at the clock each time would cost more than the rest.
                if done.abs_diff(*looked) < LOOK_EVERY {
                    return;
                }
                *looked = done;
                if said.elapsed() >= LINE_EVERY {
                    *said = Instant::now();
                    let line = line(self.what, done, self.total, self.started.elapsed());
                    let _ = writeln!(stderr(), "{line}");
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = done / elapsed.as_secs().max(1);
    match total {
        Some(total) if rate > 0 => {
            let left = total.saturating_sub(done) / rate;
            format!("{what}: {done} of {total} events, {rate}/s, about {left} s left")
        }
        _ => format!("{what}: {done} events, {rate}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(
            line("Reading", 500, Some(2_000), elapsed),
            "Reading: 500 of 2000 events, 50/s, about 30 s left"
        );
        assert_eq!(line("Reading", 500, None, elapsed), "Reading: 500 events, 50/s");
    }
}
