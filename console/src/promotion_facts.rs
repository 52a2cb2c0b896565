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
        let dead_letters = match found.and_then(|listed| listed.pending_dead_letters) {
            None => Cell::Text("unknown".to_owned()),
            Some(0) => Cell::Badge("ok", "none".to_owned()),
            Some(count) => Cell::Badge("warn", counted(count, "event")),
        };
        rows.push(vec![Cell::Text(generation_name(id)), dead_letters, comparison_cell(console, id).await?]);
    }
    let columns =
        &["New generation", "Dead letters and events behind them", "Compared with the live one when built"];
    Ok(ReportTable { title: "About the new generations".to_owned(), columns, rows })
}

/// The generation that an object of a report names by `projection` and `generation`.
fn generation_id(named: &Value) -> Option<ProjectionGeneration> {
    let name = named["projection"].as_str()?;
    let projection = ProjectionName::ALL.into_iter().find(|known| known.as_str() == name)?;
    let generation = u32::try_from(named["generation"].as_u64()?).ok().map(Generation)?;
    Some(ProjectionGeneration { projection, generation })
}

/// How a generation compared with the live one when a job built it. The cell links to the page of the job.
async fn comparison_cell(console: &Console, id: ProjectionGeneration) -> Result<Cell, ConsoleError> {
    let unavailable = |error| ConsoleError::unavailable(&error);
    let jobs = console.ports.jobs.list(None, MAX_JOBS).await.map_err(unavailable)?;
    for job in jobs.iter().filter(|job| job.kind == "projections.rebuild" && job.state.is_ended()) {
        let Some(job_id) = chat_operations::jobs::JobId::parse(&job.id) else { continue };
        // A job in a list has no report.
        let whole_job = console.ports.jobs.get(job_id).await.map_err(unavailable)?;
        let Some(report) = whole_job.and_then(|job| job.report) else { continue };
        let mut generations = report["generations"].as_array().into_iter().flatten();
        if generations.any(|built| generation_id(built) == Some(id)) {
            return Ok(Cell::Link {
                text: comparison_result(&report, id.projection),
                path: job_path(&job.id),
            });
        }
    }
    Ok(Cell::Text("unknown: no recent job built it".to_owned()))
}

/// The result of a rebuild's comparison of a projection.
fn comparison_result(report: &Value, projection: ProjectionName) -> String {
    let mut comparisons = report["comparisons"].as_array().into_iter().flatten();
    let comparison = comparisons.find(|comparison| comparison["projection"] == projection.as_str());
    // A rebuild up to an earlier position compares nothing.
    let Some(comparison) = comparison else { return "not compared".to_owned() };
    match (comparison["unreadable"].is_string(), comparison["differing"].as_u64()) {
        (true, _) => "not compared: the live one was unreadable".to_owned(),
        (false, Some(0)) => "no row differed".to_owned(),
        (false, Some(rows)) => format!("{} differed", counted(rows, "row")),
        (false, None) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_comparison_result_says_how_many_rows_differed_or_that_nothing_was_compared() {
        let result = |comparisons| {
            comparison_result(&json!({ "comparisons": comparisons }), ProjectionName::ReadModel)
        };
        let comparison = |unreadable, differing| json!([{ "projection": "read_model", "unreadable": unreadable, "differing": differing }]);
        assert_eq!(result(json!([])), "not compared");
        assert_eq!(result(json!([{ "projection": "search_index", "differing": 0 }])), "not compared");
        assert_eq!(result(comparison(Some("damaged"), 0)), "not compared: the live one was unreadable");
        assert_eq!(result(comparison(None, 0)), "no row differed");
        assert_eq!(result(comparison(None, 1)), "1 row differed");
        assert_eq!(result(comparison(None, 1_200)), "1200 rows differed");
    }
}
