//! `chat-bench compare`: how fast the chat API is against what the machine can do.
//!
//! Most figures are ratios of two things measured in turn in the same run, the median of several rounds: a machine that
//! is shared with others, or that changes its clock rate, is the same for both.

#![expect(clippy::cast_precision_loss, reason = "counts and microseconds of a run are far below 2^52")]

mod baseline_server;
mod closed_loop;
mod disk_usage;
mod figure;
mod figures;
mod machine;
mod open_loop;
mod postgres;
mod raw_http;
mod report;
mod requests;
mod rounds;
mod run_config;
mod seeded_log;
mod server_process;
mod system_under_test;
mod text_generator;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::corpus::Corpus;
use crate::{Failure, Verdict};

pub use baseline_server::{Arguments as BareArguments, run as run_bare};
use figure::{Figure, FigureResults, ReportSection};
use report::Report;
use run_config::RunConfig;
use text_generator::TextGenerator;

/// What to compare, and for how long.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The corpus whose messages are posted: JSON lines of {"app","chat","body"}.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// The program under test [default: chat-api beside this program]
    #[arg(long, value_name = "FILE")]
    chat_api: Option<PathBuf>,
    /// Where the servers keep their data: on the disk that is to be measured.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Only these figures, as in 1,2,5 [default: all there are]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    only: Vec<u32>,
    /// Rounds of each figure.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Seconds that each side of a round is measured.
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Messages where a figure is about many of them.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,
    /// The most messages where a figure is about growth: 10,000 and each tenfold of it up to this.
    #[arg(long, value_name = "MESSAGES", default_value_t = 10_000_000)]
    largest: u64,
    /// Try everything out in a few minutes: one round of a second each, and few messages. Says little about speed.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "messages", "largest"])]
    quick: bool,
    /// Where to write the report, with the plots and the raw figures beside it. It is written after each figure, and
    /// keeps those that are not measured anew.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Measures, until all is measured or Ctrl-C ends it. What it started ends and its folders go either way; what was
/// measured to its end is in the report.
pub async fn run(arguments: Arguments) -> Result<Verdict, Failure> {
    tokio::select! {
        verdict = measure(arguments) => verdict,
        pressed = tokio::signal::ctrl_c() => {
            let interrupted = io::Error::from(io::ErrorKind::Interrupted);
            Err(Failure::Environment(pressed.err().unwrap_or(interrupted)))
        }
    }
}

/// Measures, prints each figure as it comes, and writes the report where one is asked for.
async fn measure(arguments: Arguments) -> Result<Verdict, Failure> {
    let corpus = Corpus::read(&arguments.corpus, None)?;
    let setting = arguments.setting(corpus).map_err(Failure::Environment)?;
    let machine = machine::describe(setting.folder());
    let mut report = Report::open(arguments.report.clone(), machine).map_err(Failure::Environment)?;
    if let Some(machine) = &report.other_machine {
        let said = "its figures go when the first one is measured";
        // Where stderr is gone, that is no reason to measure nothing.
        let _ = writeln!(io::stderr(), "The report is of another machine, and {said}: {machine}");
    }
    let mut verdict = Verdict::Fine;
    for number in figures::ALL.into_iter().filter(|number| arguments.wants(*number)) {
        let mut findings = FigureResults::default();
        let measured = figures::measure(number, &setting, &mut findings).await;
        for figure in &findings.figures {
            crate::write_stdout(&report::figure_line(figure)).map_err(Failure::Output)?;
        }
        let failed = measured.err().map(|error| error.to_string());
        if let Some(failed) = &failed {
            crate::write_stdout(&format!("{number:>2}  not measured to the end: {failed}\n"))
                .map_err(Failure::Output)?;
        }
        if failed.is_some() || !findings.figures.iter().all(Figure::meets_goal) {
            verdict = Verdict::FigureResults;
        }
        let measured_at =
            OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let measured_at = measured_at.format(&Rfc3339).unwrap_or_default();
        let failed = failed.is_some();
        let chapter = ReportSection { number, measured_at, setting: setting.to_string(), failed, findings };
        report.add(chapter).map_err(Failure::Output)?;
    }
    Ok(verdict)
}

impl Arguments {
    fn setting(&self, corpus: Corpus) -> io::Result<RunConfig> {
        let beside = std::env::current_exe()?.with_file_name("chat-api");
        let quick = |given, quick| if self.quick { quick } else { given };
        Ok(RunConfig {
            program: self.chat_api.as_ref().unwrap_or(&beside).canonicalize()?,
            folder: self.folder.canonicalize()?,
            texts: TextGenerator::new(corpus.chats.into_iter().flat_map(|chat| chat.bodies).collect()),
            rounds: usize::from(if self.quick { 1 } else { self.rounds }),
            duration: if self.quick { Duration::from_secs(1) } else { self.seconds },
            messages: quick(self.messages, 20_000),
            max_growth_messages: quick(self.largest, 10_000),
        })
    }

    /// Growth is measured once for figures 10 and 11.
    fn wants(&self, number: u32) -> bool {
        self.only.is_empty() || self.only.contains(&number) || (number == 11 && self.only.contains(&10))
    }
}

/// Seconds, such as `5` or `0.2`.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "not a number of seconds above 0".to_owned())
}
