//! `projections verify`: compares live generations with a scratch build from the log.

use chat_operations::counted::counted;
use chat_operations::projections::verify::{self, VerificationReport};
use clap::Args;
use serde_json::json;

use super::common::{
    ProjectionSelection, cancel_on_signal, open_projections_for_changes, projections_failure,
};
use super::progress::ProgressDisplay;
use super::render::differences_text;
use crate::engines::EngineOptions;
use crate::failure::Failure;
use crate::operator::answer::Answer;
use crate::operator::common_args::{CommonArgs, OutputFormat};

/// Number of chats to compare if neither `--sample` nor `--full` is given.
const DEFAULT_SAMPLE_CHATS: usize = 20;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    selection: ProjectionSelection,
    /// Number of random chats to compare [default: 20]
    #[arg(long, value_name = "CHATS", conflicts_with = "full")]
    sample: Option<usize>,
    /// Rebuild from the whole log, and compare everything; needs as much disk as the projection. Unlike `--full` of
    /// other commands, it does not show whole app tokens; `-o json` does
    #[arg(long)]
    full: bool,
    // Not `CommonArgs`: its `--full` has another meaning.
    #[command(flatten)]
    engines: EngineOptions,
    /// Format of the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: OutputFormat,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let common = CommonArgs { engines: options.engines.clone(), output: options.output, full_text: false };
    let names = options.selection.names();
    let projections = open_projections_for_changes(&common, &names).await?;
    let cancel = cancel_on_signal()?;
    let display = ProgressDisplay::start();
    let mut reports = Vec::new();
    for name in names {
        let report = if options.full {
            verify::full(&projections, name, &display.progress, &cancel).await
        } else {
            verify::sample(&projections, name, options.sample.unwrap_or(DEFAULT_SAMPLE_CHATS), &cancel).await
        };
        reports.push(report.map_err(projections_failure)?);
    }
    drop(display);
    let differ = reports.iter().any(|report| report.differing > 0);
    let text: String = reports.iter().map(report_text).collect();
    Ok(Answer::new(&json!({ "verifications": reports }), text)?.with_finding(differ))
}

fn report_text(report: &VerificationReport) -> String {
    let VerificationReport { projection, generation, position, compared, differing, shown } = report;
    let verdict = match differing {
        0 if *compared == 1 => "it agrees with the log".to_owned(),
        0 => "all agree with the log".to_owned(),
        1 => "1 differs from the log".to_owned(),
        count => format!("{count} differ from the log"),
    };
    let (name, generation) = (projection.as_str(), generation.0);
    let compared = counted(*compared as u64, "row");
    format!("{name} {generation}: {compared} compared at position {position}; {verdict}\n")
        + &differences_text(shown, *differing)
}
