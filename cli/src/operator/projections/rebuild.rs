//! `projections rebuild`: builds new generations from the log, compares them with the live ones, and promotes them.

use std::fmt::Write as _;

use chat_domain::projection::ProjectionName;
use chat_domain::{Position, Timestamp};
use chat_operations::projections::rebuild::{self, RebuildEnd, RebuildOptions, RebuildPlan, RebuildReport};
use clap::Args;
use serde_json::json;

use super::common::{cancel_on_signal, open_projections_for_changes, projections_failure};
use super::progress::ProgressDisplay;
use super::render::{
    comparison_text, format_bytes, generation_list, or_dash, switch_over_text, with_switch_over_warning,
};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::common_args::{CommonArgs, ExecutionArgs};
use crate::operator::server::{self, ServerAction, ServerArgs};
use crate::operator::table::table_with_wrapped_last_column;
use crate::projection_name::ProjectionNameArg;

#[derive(Args)]
pub(crate) struct Options {
    /// Projection to rebuild
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<ProjectionNameArg>,
    /// All projections, promoted together
    #[arg(long)]
    all: bool,
    /// Discard an unfinished rebuild instead of resuming it
    #[arg(long)]
    from_scratch: bool,
    /// Build only up to a position or a time (RFC 3339), and do not promote
    #[arg(long, value_name = "POSITION|TIME", value_parser = parse_until)]
    until: Option<RebuildEnd>,
    /// Promote even if rows differ from those of the live generation, or the live one can't be read
    #[arg(long)]
    accept_differences: bool,
    #[command(flatten)]
    execution: ExecutionArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

fn parse_until(text: &str) -> Result<RebuildEnd, String> {
    if let Ok(position) = text.parse() {
        return Ok(RebuildEnd::Position(Position::new(position)));
    }
    let time = Timestamp::parse_rfc3339(text).map(RebuildEnd::Time);
    time.ok_or_else(|| "neither a position nor a time such as 2026-11-24T12:00:00Z".to_owned())
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let rebuild_options = RebuildOptions {
        names: options.name.map_or_else(|| ProjectionName::ALL.to_vec(), |name| vec![name.into()]),
        from_scratch: options.from_scratch,
        until: options.until,
        accept_differences: options.accept_differences,
    };
    let until = rebuild_options.until.map(|until| match until {
        RebuildEnd::Position(position) => position.to_string(),
        RebuildEnd::Time(time) => time.to_string(),
    });
    let at_server = ServerAction {
        path: "projections/rebuilds",
        options: json!({
            "projections": server::projection_names(&rebuild_options.names),
            "from_scratch": rebuild_options.from_scratch,
            "accept_differences": rebuild_options.accept_differences,
            "until": until,
        }),
        dry_run_text: |plan: &RebuildPlan| plan_text(plan, &rebuild_options),
        report_text: outcome_text,
    };
    if let Some(answer) = options.server.act(at_server, &options.execution).await {
        return answer;
    }
    if !options.execution.execute {
        let projections = open_projections_for_changes(&options.common, &rebuild_options.names).await?;
        let plan = rebuild::plan(&projections, &rebuild_options).await.map_err(projections_failure)?;
        return Ok(Answer::new(&plan, plan_text(&plan, &rebuild_options))?
            .with_finding_if_log_is_closed(&*projections.log)
            .with_diagnostic(Severity::Note, "nothing was done; --execute does it"));
    }
    let reason = options.execution.action.reason()?;
    let operator = options.execution.action.operator();
    let projections = open_projections_for_changes(&options.common, &rebuild_options.names).await?;
    let cancel = cancel_on_signal()?;
    let display = ProgressDisplay::start();
    let report =
        rebuild::rebuild(&projections, &operator, reason, &rebuild_options, &display.progress, &cancel).await;
    drop(display);
    let report = report.map_err(projections_failure)?;
    let mut answer = Answer::new(&report, outcome_text(&report))?.with_finding(report.has_findings());
    if let Some(promoted) = &report.promoted {
        return Ok(with_switch_over_warning(answer, promoted));
    }
    if report.has_findings() {
        let finding = if report.differs() {
            "the new generations differ from the live ones. If the differences are intended"
        } else {
            "a live generation can't be read, so the new one was not compared with it. To use the new generations \
             nevertheless"
        };
        answer = answer.with_diagnostic(
            Severity::Warning,
            format!(
                "not promoted: {finding}, run `projections promote` or the same command with --accept-differences"
            ),
        );
    }
    Ok(answer)
}

fn plan_text(plan: &RebuildPlan, rebuild_options: &RebuildOptions) -> String {
    let rows: Vec<_> = plan
        .generations
        .iter()
        .map(|generation| {
            [
                generation.named.projection.as_str().to_owned(),
                generation.named.generation.0.to_string(),
                or_dash(generation.resumes_at),
                or_dash(generation.events),
                format_bytes(generation.live_bytes),
                generation.location.clone(),
            ]
        })
        .collect();
    let headings = ["PROJECTION", "GENERATION", "RESUMES AT", "EVENTS", "DISK (ESTIMATE)", "LOCATION"];
    let mut text = table_with_wrapped_last_column(headings, &rows);
    // Writing to a String can't fail.
    let _ = write!(text, "\nwould fold the log up to position {}", plan.until);
    if let Some(seconds) = plan.estimated_seconds {
        let _ = write!(text, ", in about {seconds} s");
    }
    text += if rebuild_options.until.is_some() {
        ", and stop there"
    } else if rebuild_options.accept_differences {
        ", compare, and promote"
    } else {
        ", compare, and promote unless rows differ"
    };
    text
}

fn outcome_text(report: &RebuildReport) -> String {
    let mut text: String = report.comparisons.iter().map(comparison_text).collect();
    if let Some(promoted) = &report.promoted {
        return text + &switch_over_text(promoted);
    }
    let positions: Vec<_> = report.positions.iter().map(ToString::to_string).collect();
    let _ = write!(text, "built {}, up to {}", generation_list(&report.generations), positions.join(" and "));
    text
}
