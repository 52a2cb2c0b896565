//! `chat-bench compare`: compares the chat API with a bare handler, Postgres and SQLite on the same machine.
//!
//! Most figures are ratios: the median of the rounds' ratios. Except where sizes are compared (figures 10 and 11), each
//! round measures both sides one after the other, so that other load on the machine and changes of its clock rate
//! affect both.

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
mod versions;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::corpus::Corpus;
use crate::error::RunError;
use crate::output::write_stdout;
use crate::verdict::Verdict;

pub use baseline_server::{BaselineArgs, run as run_baseline};
use figure::{Figure, FigureResults, ReportSection};
use report::Report;
use run_config::RunConfig;
use text_generator::TextGenerator;
pub use versions::{CompareVersionsArgs, run as run_versions};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The corpus whose messages are posted: JSON lines of {"app","chat","body"}.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// The program under test [default: chat-api in the folder of this program]
    #[arg(long, value_name = "FILE")]
    chat_api: Option<PathBuf>,
    /// The folder for the data of the servers, on the disk to measure.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// The figures to measure, such as 1,2,5 [default: all]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = parse_figure)]
    only: Vec<u32>,
    /// The rounds of each figure.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// The seconds for which each side of a round is measured.
    #[arg(long, default_value = "5", value_parser = parse_seconds)]
    seconds: Duration,
    /// The number of messages in figures that need many messages.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,
    /// The highest number of messages of the figures about growth: figure 11 measures 10,000 messages and each power of
    /// ten up to this, and figure 14 posts this many.
    #[arg(long, value_name = "MESSAGES", default_value_t = 10_000_000)]
    largest: u64,
    /// Try everything out in a few minutes, with one round of one second and few messages. Not representative.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "messages", "largest"])]
    quick: bool,
    /// The report to write, with the plots and the raw figures in files beside it. It is written after each figure.
    /// Earlier figures of the same machine that are not measured again stay. Without a report, the tables are printed.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Measures until all selected figures are measured or Ctrl-C is pressed. In both cases the servers are stopped, their
/// folders are removed, and the report, if there is one, has the results of the measurements that ended.
pub async fn run(arguments: CompareArgs) -> Result<Verdict, RunError> {
    tokio::select! {
        verdict = measure(arguments) => verdict,
        signal = tokio::signal::ctrl_c() => {
            let interrupted = io::Error::from(io::ErrorKind::Interrupted);
            Err(RunError::Environment(signal.err().unwrap_or(interrupted)))
        }
    }
}

/// Measures and prints each figure, and writes the report if there is one.
async fn measure(arguments: CompareArgs) -> Result<Verdict, RunError> {
    let corpus = Corpus::read(&arguments.corpus, None)?;
    let config = arguments.run_config(corpus).map_err(RunError::Environment)?;
    let machine = machine::describe(config.folder());
    let mut report = Report::open(arguments.report.clone(), machine).map_err(RunError::Environment)?;
    if let Some(machine) = &report.other_machine {
        // A closed stderr does not stop the run.
        let _ = writeln!(
            io::stderr(),
            "The report is from another machine ({machine}). Its figures are replaced when the first figure is measured."
        );
    }
    let mut verdict = Verdict::Passed;
    for number in figures::ALL.into_iter().filter(|number| arguments.includes(*number)) {
        let mut results = FigureResults::default();
        let measured = figures::measure(number, &config, &mut results).await;
        for figure in &results.figures {
            write_stdout(&report::figure_line(figure)).map_err(RunError::Output)?;
        }
        if arguments.report.is_none() {
            for table in &results.tables {
                write_stdout(&format!("\n{}", report::table_markdown(table))).map_err(RunError::Output)?;
            }
        }
        let failed = measured.is_err();
        if let Err(error) = measured {
            write_stdout(&format!("{number:>2}  not measured to the end: {error}\n"))
                .map_err(RunError::Output)?;
        }
        if failed || !results.figures.iter().all(Figure::meets_goal) {
            verdict = Verdict::Failed;
        }
        let measured_at =
            OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let measured_at = measured_at.format(&Rfc3339).unwrap_or_default();
        let section = ReportSection { number, measured_at, config: config.to_string(), failed, results };
        report.add(section).map_err(RunError::Output)?;
    }
    Ok(verdict)
}

impl CompareArgs {
    fn run_config(&self, corpus: Corpus) -> io::Result<RunConfig> {
        let default_program = std::env::current_exe()?.with_file_name("chat-api");
        let message_count = |given, when_quick| if self.quick { when_quick } else { given };
        Ok(RunConfig {
            program: self.chat_api.as_ref().unwrap_or(&default_program).canonicalize()?,
            folder: self.folder.canonicalize()?,
            texts: TextGenerator::new(corpus.chats.into_iter().flat_map(|chat| chat.bodies).collect()),
            rounds: usize::from(if self.quick { 1 } else { self.rounds }),
            duration: if self.quick { Duration::from_secs(1) } else { self.seconds },
            messages: message_count(self.messages, 20_000),
            max_growth_messages: message_count(self.largest, 10_000),
        })
    }

    /// Returns whether the arguments select a figure. The measurement of figure 11 includes a part of figure 10.
    fn includes(&self, number: u32) -> bool {
        self.only.is_empty() || self.only.contains(&number) || (number == 11 && self.only.contains(&10))
    }
}

/// Parses the number of a figure.
fn parse_figure(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| figures::ALL.contains(number));
    number.ok_or_else(|| {
        let known = figures::ALL.map(|number| number.to_string());
        format!("there is no such figure; the figures are {}", known.join(", "))
    })
}

/// Parses seconds, such as `5` or `0.2`.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "not a number of seconds above 0".to_owned())
}
