//! Facts about generations before their promotion: their dead letters, and the differences that a rebuild found.

use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_operations::counted::counted;
use chat_operations::projections::list::list;
use serde_json::Value;

use crate::console::Console;
use crate::dead_letters::projections_error;
use crate::operator_action_view::{generation_name, job_path};
use crate::page::ConsoleError;
use crate::report_view::{Cell, ReportTable};

/// The number of newest jobs that are searched for the rebuild of a generation.
const MAX_JOBS: usize = 100;

/// Returns a table of facts about the generations in a promotion's dry run.
pub(crate) async fn promotion_facts(console: &Console, report: &Value) -> Result<ReportTable, ConsoleError> {
    let listed = list(&console.ports.projections).await.map_err(projections_error)?;
    let mut rows = Vec::new();
    for target in report["to"].as_array().into_iter().flatten() {
        let Some(id) = generation_id(target) else { continue };
        let found = listed
            .iter()
            .find(|listed| listed.projection == id.projection && listed.generation == id.generation);
        let dead_letters = match found.and_then(|listed| listed.parked) {
            None => Cell::Text("unknown".to_owned()),
            Some(0) => Cell::Badge("ok", "none".to_owned()),
            Some(count) => Cell::Badge("warn", counted(count, "event")),
        };
        let differences = match differences(console, id).await? {
            None => Cell::Text("unknown: no listed job built it".to_owned()),
            Some((0, path)) => Cell::Link { text: "no row differed".to_owned(), path },
            Some((1, path)) => Cell::Link { text: "1 row differed".to_owned(), path },
            Some((rows, path)) => Cell::Link { text: format!("{rows} rows differed"), path },
        };
        rows.push(vec![Cell::Text(generation_name(id)), dead_letters, differences]);
    }
    let columns =
        &["New generation", "Dead letters and events behind them", "Compared with the live one when built"];
    Ok(ReportTable { title: "About the new generations".to_owned(), columns, rows })
}

fn generation_id(named: &Value) -> Option<ProjectionGeneration> {
    let name = named["projection"].as_str()?;
    let projection = ProjectionName::ALL.into_iter().find(|known| known.as_str() == name)?;
    let generation = u32::try_from(named["generation"].as_u64()?).ok().map(Generation)?;
    Some(ProjectionGeneration { projection, generation })
}

/// The number of rows that differed when a job built a generation, and the page of the job.
async fn differences(
    console: &Console,
    id: ProjectionGeneration,
) -> Result<Option<(u64, String)>, ConsoleError> {
    let unavailable = |error| ConsoleError::unavailable(&error);
    let jobs = console.ports.jobs.list(None, MAX_JOBS).await.map_err(unavailable)?;
    for job in jobs.iter().filter(|job| job.kind == "projections.rebuild" && job.state.is_ended()) {
        let Some(job_id) = chat_operations::jobs::JobId::parse(&job.id) else { continue };
        let report = console.ports.jobs.get(job_id).await.map_err(unavailable)?.and_then(|job| job.report);
        let Some(report) = report else { continue };
        let generations = report["generations"].as_array().into_iter().flatten();
        if !generations.filter_map(generation_id).any(|built| built == id) {
            continue;
        }
        let comparisons = report["comparisons"].as_array().into_iter().flatten();
        let of_projection =
            comparisons.filter(|comparison| comparison["projection"] == id.projection.as_str());
        let differing = of_projection.filter_map(|comparison| comparison["differing"].as_u64());
        return Ok(Some((differing.sum(), job_path(&job.id))));
    }
    Ok(None)
}
