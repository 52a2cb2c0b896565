//! `projections verify`: compares the live generation with a scratch build from the log.

use chat_operations::projections::verify::{VerificationReport, full, sample};
use clap::Args;

use super::common::{cancel_on_signal, open_projections, projections_failure};
use super::progress::ProgressDisplay;
use super::render::differences_text;
use crate::failure::Failure;
use crate::operator::answer::Answer;
use crate::operator::common_args::CommonArgs;
use crate::projection_name::ProjectionNameArg;

/// Number of chats in a sample without `--sample`.
const DEFAULT_SAMPLE_CHATS: usize = 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Projection to verify
    name: ProjectionNameArg,
    /// Number of random chats to compare [default: 20]
    #[arg(long, value_name = "CHATS", conflicts_with = "full")]
    sample: Option<usize>,
    /// Rebuild from the whole log, and compare everything; needs as much disk as the projection
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let projections = open_projections(&options.common).await?;
    let cancel = cancel_on_signal()?;
    let name = options.name.into();
    let display = ProgressDisplay::start();
    let report = if options.full {
        full(&projections, name, &display.progress, &cancel).await
    } else {
        sample(&projections, name, options.sample.unwrap_or(DEFAULT_SAMPLE_CHATS), &cancel).await
    };
    drop(display);
    let report = report.map_err(projections_failure)?;
    Ok(Answer::new(&report, report_text(&report))?.with_finding(report.drifted > 0))
}

fn report_text(report: &VerificationReport) -> String {
    let VerificationReport { name, generation, position, compared, drifted, shown } = report;
    let verdict = match drifted {
        0 => "all agree with the log".to_owned(),
        1 => "1 differs from the log".to_owned(),
        count => format!("{count} differ from the log"),
    };
    let (name, generation) = (name.as_str(), generation.0);
    format!("{name} {generation}: {compared} rows compared at position {position}; {verdict}\n")
        + &differences_text(shown, *drifted)
}
