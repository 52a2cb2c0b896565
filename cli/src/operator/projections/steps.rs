//! `projections diff`, `promote`, `rollback` and `drop`: the steps of a rebuild, singly.

use chat_domain::operator_action::Generation;
use chat_operations::projections::compare::{self, Comparison};
use chat_operations::projections::drop_generations;
use chat_operations::projections::switch_over::{self, SwitchDirection, SwitchOverPlan};
use clap::Args;

use super::progress::Display;
use super::shown::{bytes, comparison, named, or_dash, switched};
use super::{Execution, Which, cancel, failure, open};
use crate::failure::Failure;
use crate::operator::Common;
use crate::operator::answer::{Answer, Severity};
use crate::operator::table::whole_table;

#[derive(Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct DropOptions {
    #[command(flatten)]
    which: Which,
    /// This one, also if a rollback would go back to it or it is being built [default: all that are left over]
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u32>,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    pub(super) common: Common,
}

const NOTHING_DONE: &str = "nothing was done; --execute does it";

pub(super) async fn diff(options: &Plain) -> Result<Answer, Failure> {
    let projections = open(&options.common).await?;
    let cancel = cancel()?;
    let display = Display::start();
    let compared = compare::diff(&projections, &options.which.names(), &display.progress, &cancel).await;
    drop(display);
    let compared = compared.map_err(failure)?;
    let differ = compared.iter().any(Comparison::has_findings);
    let text: String = compared.iter().map(comparison).collect();
    Ok(Answer::new(&compared, text)?.finding(differ))
}

pub(super) async fn promote(options: &Options) -> Result<Answer, Failure> {
    move_readers(options, SwitchDirection::Promote).await
}

pub(super) async fn roll_back(options: &Options) -> Result<Answer, Failure> {
    move_readers(options, SwitchDirection::RollBack).await
}

async fn move_readers(options: &Options, which: SwitchDirection) -> Result<Answer, Failure> {
    let names = options.which.names();
    if !options.execution.execute {
        let projections = open(&options.common).await?;
        let plan = switch_over::plan(&projections, which, &names).await.map_err(failure)?;
        return Ok(Answer::new(&plan, planned(&plan))?.note(Severity::Note, NOTHING_DONE));
    }
    let reason = options.execution.deed.reason()?;
    let operator = options.execution.deed.operator();
    let projections = open(&options.common).await?;
    let cancel = cancel()?;
    let display = Display::start();
    let done = switch_over::switch_over(&projections, &operator, reason, which, &names, &display.progress, &cancel);
    let done = done.await;
    drop(display);
    let done = done.map_err(failure)?;
    Answer::new(&done, switched(&done))
}

fn planned(plan: &SwitchOverPlan) -> String {
    let positions: Vec<_> = plan.positions.iter().map(|position| or_dash(*position)).collect();
    format!(
        "readers see {}, and would see {}, now at {} of {}",
        named(&plan.from),
        named(&plan.to),
        positions.join(" and "),
        plan.head
    )
}

pub(super) async fn remove(options: &DropOptions) -> Result<Answer, Failure> {
    let names = options.which.names();
    let generation = options.generation.map(Generation);
    let execution = &options.execution;
    let deed =
        if execution.execute { Some((execution.deed.operator(), execution.deed.reason()?)) } else { None };
    let projections = open(&options.common).await?;
    let deed = deed.as_ref().map(|(operator, reason)| (operator, reason.clone()));
    let dropped = drop_generations(&projections, &names, generation, deed).await.map_err(failure)?;
    if dropped.generations.is_empty() {
        return Answer::new(&dropped, "there is nothing to drop");
    }
    let rows: Vec<_> = dropped
        .generations
        .iter()
        .map(|generation| {
            [
                generation.named.name.as_str().to_owned(),
                generation.named.generation.0.to_string(),
                generation.standing.map_or("dropped", |standing| standing.as_str()).replace('_', " "),
                generation.place.clone(),
                bytes(generation.bytes),
            ]
        })
        .collect();
    let mut text = whole_table(["PROJECTION", "GENERATION", "STANDING", "PLACE", "DISK"], &rows);
    text += match dropped.position {
        Some(_) => "\ndropped",
        None => "\nwould be dropped",
    };
    let answer = Answer::new(&dropped, text)?;
    Ok(if dropped.position.is_none() { answer.note(Severity::Note, NOTHING_DONE) } else { answer })
}
