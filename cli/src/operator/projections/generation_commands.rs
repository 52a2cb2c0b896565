//! `projections diff`, `promote`, `rollback` and `drop`: compare generations, make one live, and remove old ones.

use std::fmt::Write as _;

use chat_domain::projection::{Generation, ProjectionName};
use chat_operations::projections::compare::{self, Comparison};
use chat_operations::projections::switch_over::{self, SwitchDirection, SwitchOverPlan};
use chat_operations::projections::{
    DropReport, DroppedGeneration, GenerationName, Projections, drop_generations,
};
use chat_projector::generations::GenerationState;
use clap::Args;
use serde_json::json;

use super::common::{
    ProjectionSelection, SwitchOverSelection, cancel_on_signal, ensure_located, open_projections,
    open_projections_for_changes, projections_failure,
};
use super::progress::ProgressDisplay;
use super::render::{
    comparison_text, format_bytes, generation_list, switch_over_text, with_switch_over_warning,
};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::common_args::{CommonArgs, ExecutionArgs};
use crate::operator::server::{self, ServerAction, ServerArgs};
use crate::operator::table::table_with_wrapped_last_column;

#[derive(Args)]
pub(crate) struct DiffOptions {
    #[command(flatten)]
    selection: SwitchOverSelection,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct SwitchOverOptions {
    #[command(flatten)]
    selection: SwitchOverSelection,
    #[command(flatten)]
    execution: ExecutionArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct DropOptions {
    #[command(flatten)]
    selection: ProjectionSelection,
    /// Drop this generation, even if a rollback needs it or it is being built [default: all left-over ones]
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u32>,
    #[command(flatten)]
    execution: ExecutionArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const NOTHING_DONE: &str = "nothing was done; --execute does it";

pub(super) async fn diff(options: &DiffOptions) -> Result<Answer, Failure> {
    let projections = open_projections(&options.common).await?;
    let names = match options.selection.names() {
        Some(names) => names,
        None => compare::default_projections(&projections).await.map_err(projections_failure)?,
    };
    ensure_located(&options.common, &projections, &names).await?;
    let cancel = cancel_on_signal()?;
    let display = ProgressDisplay::start();
    let comparisons = compare::diff(&projections, &names, &display.progress, &cancel).await;
    drop(display);
    let comparisons = comparisons.map_err(projections_failure)?;
    let differ = comparisons.iter().any(Comparison::has_findings);
    let text: String = comparisons.iter().map(comparison_text).collect();
    Ok(Answer::new(&json!({ "comparisons": comparisons }), text)?.with_finding(differ))
}

pub(super) async fn promote(options: &SwitchOverOptions) -> Result<Answer, Failure> {
    switch_over(options, SwitchDirection::Promote).await
}

pub(super) async fn roll_back(options: &SwitchOverOptions) -> Result<Answer, Failure> {
    switch_over(options, SwitchDirection::RollBack).await
}

async fn switch_over(options: &SwitchOverOptions, direction: SwitchDirection) -> Result<Answer, Failure> {
    let path = match direction {
        SwitchDirection::Promote => "projections/promotions",
        SwitchDirection::RollBack => "projections/rollbacks",
    };
    let at_server = ServerAction {
        path,
        options: match options.selection.names() {
            Some(names) => json!({ "projections": server::projection_names(&names) }),
            None => json!({}),
        },
        dry_run_text: plan_text,
        report_text: switch_over_text,
    };
    if let Some(answer) = options.server.act(at_server, &options.execution).await {
        return answer;
    }
    if !options.execution.execute {
        let (projections, names) = open_selected(options, direction).await?;
        let plan =
            switch_over::plan(&projections, direction, Some(&names)).await.map_err(projections_failure)?;
        let answer = Answer::new(&plan, plan_text(&plan))?.with_diagnostics(plan.diagnostics());
        return Ok(answer
            .with_finding_if_log_is_closed(&*projections.log)
            .with_diagnostic(Severity::Note, NOTHING_DONE));
    }
    let reason = options.execution.action.reason()?;
    let operator = options.execution.action.operator();
    let (projections, names) = open_selected(options, direction).await?;
    let cancel = cancel_on_signal()?;
    let display = ProgressDisplay::start();
    let switched = switch_over::switch_over(
        &projections,
        &operator,
        reason,
        direction,
        Some(&names),
        &display.progress,
        &cancel,
    );
    let switched = switched.await;
    drop(display);
    let switched = switched.map_err(projections_failure)?;
    let answer = Answer::new(&switched, switch_over_text(&switched))?.with_finding(switched.has_findings());
    Ok(with_switch_over_warning(answer, &switched))
}

/// Opens the projections for a switch-over, and returns the names of those that it switches. The others need no location.
async fn open_selected(
    options: &SwitchOverOptions,
    direction: SwitchDirection,
) -> Result<(Projections, Vec<ProjectionName>), Failure> {
    let projections = open_projections(&options.common).await?;
    let names = if let Some(names) = options.selection.names() {
        names
    } else {
        let generations = projections.generations().await.map_err(projections_failure)?;
        switch_over::default_projections(&generations, direction).map_err(projections_failure)?
    };
    ensure_located(&options.common, &projections, &names).await?;
    Ok((projections, names))
}

fn plan_text(plan: &SwitchOverPlan) -> String {
    let positions: Vec<_> = plan
        .positions
        .iter()
        .map(|position| position.map_or_else(|| "none (missing)".to_owned(), |position| position.to_string()))
        .collect();
    format!(
        "readers see {}, and would see {}, now at {} of {}",
        generation_list(&plan.from),
        generation_list(&plan.to),
        positions.join(" and "),
        plan.head
    )
}

pub(super) async fn remove(options: &DropOptions) -> Result<Answer, Failure> {
    let names = options.selection.names();
    let generation = options.generation.map(Generation);
    let execution = &options.execution;
    let at_server = ServerAction {
        path: "projections/drops",
        options: json!({ "projections": server::projection_names(&names), "generation": generation }),
        dry_run_text: drop_text,
        report_text: drop_text,
    };
    if let Some(answer) = options.server.act(at_server, execution).await {
        return answer;
    }
    let executed_by = if execution.execute {
        Some((execution.action.operator(), execution.action.reason()?))
    } else {
        None
    };
    let projections = open_projections_for_changes(&options.common, &names).await?;
    let executed_by = executed_by.as_ref().map(|(operator, reason)| (operator, reason.clone()));
    let dropped =
        drop_generations(&projections, &names, generation, executed_by).await.map_err(projections_failure)?;
    let answer = Answer::new(&dropped, drop_text(&dropped))?;
    let was_executed = dropped.position.is_some();
    if dropped.generations.is_empty() || was_executed {
        return Ok(answer);
    }
    Ok(answer
        .with_diagnostics(dropped.diagnostics())
        .with_finding_if_log_is_closed(&*projections.log)
        .with_diagnostic(Severity::Note, NOTHING_DONE)
        .with_finding(dropped.has_findings()))
}

/// Lists the generations that are dropped, or would be, and those that stay.
fn drop_text(dropped: &DropReport) -> String {
    let mut text = if dropped.generations.is_empty() {
        "there is nothing to drop\n".to_owned()
    } else {
        dropped_generations_text(dropped)
    };
    for kept in &dropped.kept {
        let GenerationName { projection, generation } = kept.named;
        // Without the name, the command would drop the generation of each projection.
        let projection = projection.as_str().replace('_', "-");
        let drop_it = format!("`projections drop {projection} --generation {}` drops it", generation.0);
        let reason = match kept.generation_state {
            GenerationState::Live => "it is live".to_owned(),
            GenerationState::Previous if kept.beyond_log => {
                format!("it has events that the log has lost and can't be used; {drop_it}")
            }
            GenerationState::Previous => format!("a rollback returns to it; {drop_it} nevertheless"),
            GenerationState::Building => format!("it is being built; {drop_it} nevertheless"),
            GenerationState::LeftOver => "it is left over".to_owned(),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "{} stays: {reason}", generation_list(&[kept.named]));
    }
    text
}

fn dropped_generations_text(dropped: &DropReport) -> String {
    let row = |generation: &DroppedGeneration| {
        [
            generation.named.projection.as_str().to_owned(),
            generation.named.generation.0.to_string(),
            generation.generation_state.map_or("dropped", |state| state.as_str()).replace('_', " "),
            format_bytes(generation.bytes),
            generation.location.clone(),
        ]
    };
    let rows: Vec<_> = dropped.generations.iter().map(row).collect();
    let table =
        table_with_wrapped_last_column(["PROJECTION", "GENERATION", "STATE", "DISK", "LOCATION"], &rows);
    let names: Vec<_> = dropped.generations.iter().map(|generation| generation.named).collect();
    let names = generation_list(&names);
    let bytes = dropped.generations.iter().filter_map(|generation| generation.bytes).sum();
    let bytes = format_bytes(Some(bytes));
    match dropped.position {
        Some(position) => {
            format!("{table}\ndropped {names}, recorded at position {position}; removed {bytes}\n")
        }
        None => {
            format!("{table}\n--execute would record the drop of {names} in the log, and remove {bytes}\n")
        }
    }
}
