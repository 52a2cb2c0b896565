//! `chat-bench compare`: how fast the chat API is against what the machine can do.
//!
//! Every figure is a ratio of two things measured in turn in the same run, the median of several rounds: a machine that
//! is shared with others, or that changes its clock rate, is the same for both.

#![expect(clippy::cast_precision_loss, reason = "counts and microseconds of a run are far below 2^52")]

mod bare;
mod blast;
mod figures;
mod process;
mod report;
mod requests;
mod rounds;
mod setting;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::corpus::Corpus;
use crate::{Failure, Verdict};

pub use bare::{Arguments as BareArguments, run as run_bare};
use rounds::Rounds;

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
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Messages where a figure is about many of them.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,
    /// Where to write the report, with the plots and the raw figures beside it.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// A figure: what it is, what came out, and what it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its number in the report.
    number: u32,
    /// What is measured.
    name: &'static str,
    /// Against what.
    against: &'static str,
    /// The unit of the measurements.
    unit: &'static str,
    /// What the ratio should be at least, or at most.
    goal: Goal,
    /// The measurements.
    rounds: Rounds,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    fn reached(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

/// Measures, prints a table, and writes the report where one is asked for.
pub async fn run(arguments: Arguments) -> Result<Verdict, Failure> {
    let corpus = Corpus::read(&arguments.corpus, None)?;
    let texts: Vec<String> = corpus.chats.iter().flat_map(|chat| chat.bodies.iter().cloned()).collect();
    let beside = std::env::current_exe().map_err(Failure::Environment)?.with_file_name("chat-api");
    let setting = setting::Setting {
        program: arguments.chat_api.unwrap_or(beside),
        folder: arguments.folder,
        texts,
        rounds: usize::from(arguments.rounds),
        duration: Duration::from_secs(arguments.seconds),
        messages: arguments.messages,
    };
    let wanted = |number| arguments.only.is_empty() || arguments.only.contains(&number);
    let mut figures = Vec::new();
    for number in figures::ALL.into_iter().filter(|number| wanted(*number)) {
        let measured = figures::measure(number, &setting).await.map_err(Failure::Environment)?;
        for figure in measured {
            crate::say(&report::line(&figure)).map_err(Failure::Output)?;
            figures.push(figure);
        }
    }
    if let Some(path) = &arguments.report {
        report::write(path, &figures, &setting).map_err(Failure::Output)?;
    }
    let all = figures.iter().all(|figure| figure.goal.reached(figure.rounds.ratio()));
    Ok(if all { Verdict::Fine } else { Verdict::Findings })
}
