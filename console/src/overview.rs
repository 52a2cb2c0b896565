//! The first page: problems, load, and the state of the projections.

use askama::Template;
use axum::extract::State;
use chat_domain::projection::ProjectionName;
use chat_domain::{Position, Timestamp};
use chat_operations::audit::event_rate;
use chat_operations::counted::counted;
use chat_operations::projections::list::{ListedGeneration, ListedProjectorState, list};
use chat_ports::clock;
use chat_projector::generations::GenerationState;
use chat_web::system_routes::{Part, Status};

use crate::chart::{self, BarChart, BarValue, LineChart};
use crate::console::Console;
use crate::metric_values::MetricValues;
use crate::operator_action_view::projection_title;
use crate::page::{Page, PageResult, Section, render};
use crate::session::Session;
use crate::text::{self, Time};

/// The span of time of a bar in the chart of events.
const BAR_MS: i64 = 15 * 60_000;

/// The number of bars in the chart of events: those of a day.
const BARS: usize = 96;

/// The number of lag samples that fill the width of a chart: those of an hour.
const LAG_SLOTS: usize = 240;

/// Something that needs attention.
struct Finding {
    is_down: bool,
    title: String,
    detail: String,
    /// The path and the title of the page on which an operator resolves it.
    link: Option<(&'static str, &'static str)>,
}

/// A part that `/readyz` reports.
struct PartRow {
    name: String,
    status: &'static str,
    /// The CSS class of the status.
    class: &'static str,
    reason: String,
}

/// A projection's live generation.
struct ProjectionRow {
    name: &'static str,
    /// The number of the generation.
    generation: String,
    state: &'static str,
    /// The CSS class of the state.
    state_class: &'static str,
    lag: String,
    rate: String,
    dead_letters: u64,
    chart: LineChart,
    chart_label: String,
}

/// A number with its name.
struct Tile {
    name: &'static str,
    value: String,
    note: String,
    link: Option<&'static str>,
    is_warning: bool,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    page: Page,
    findings: Vec<Finding>,
    any_down: bool,
    tiles: Vec<Tile>,
    /// The events of the last 24 hours; `None` if they can't be counted.
    event_chart: Option<BarChart>,
    /// Why there is no chart of events; empty if there is one.
    no_chart: String,
    events_total: String,
    chart_start: Time,
    projections: Vec<ProjectionRow>,
    projections_error: Option<String>,
    parts: Vec<PartRow>,
    /// The names and sizes of stored contents and of free disk space.
    sizes: Vec<(String, String)>,
}

/// `GET /console`
pub(crate) async fn show(session: Session, State(console): State<Console>) -> PageResult {
    let now = clock::now();
    let parts = console.ports.readiness.parts().await;
    let head = console.log().head().await;
    let generations = list(&console.ports.projections).await;
    let (generations, projections_error) = match generations {
        Ok(generations) => (generations, None),
        Err(error) => (Vec::new(), Some(chat_ports::error_chain(&error))),
    };
    let permit = console.acquire_scan_permit().await?;
    let (counts, no_chart) = match event_rate(console.log(), now, BAR_MS, BARS).await {
        Ok(Some(counts)) => (Some(counts), String::new()),
        Ok(None) => (
            None,
            "No chart: positions of this event store have gaps, so they do not count events.".to_owned(),
        ),
        Err(error) => {
            (None, format!("No chart: the log can’t be read now: {}.", chat_ports::error_chain(&error)))
        }
    };
    drop(permit);
    let metrics = MetricValues::parse(&console.ports.metrics.render());
    let projections = projection_rows(&console, &generations);
    let dead_letters: u64 = projections.iter().map(|row| row.dead_letters).sum();
    let tiles = tiles(&metrics, head.ok().map(Position::get), counts.as_deref(), dead_letters);
    let events_total = counts.as_ref().map_or(0, |counts| counts.iter().sum());
    let event_chart = counts.map(|counts| event_chart(&counts, now));
    let mut findings = findings(&parts);
    findings.sort_by_key(|finding| !finding.is_down);
    let template = OverviewPage {
        page: Page::new(Section::Overview, "Overview", &session),
        any_down: findings.iter().any(|finding| finding.is_down),
        findings,
        tiles,
        event_chart,
        no_chart,
        events_total: text::number(events_total),
        chart_start: Time(Timestamp::from_millis(now.millis() - BAR_MS * i64::try_from(BARS).unwrap_or(0))),
        projections,
        projections_error,
        parts: parts.iter().map(part_row).collect(),
        sizes: sizes(&metrics),
    };
    render(&template)
}

/// The parts with problems, with links to the pages on which an operator resolves them.
fn findings(parts: &[Part]) -> Vec<Finding> {
    let not_ok = parts.iter().filter(|part| part.status != Status::Ok);
    not_ok
        .map(|part| {
            let has_dead_letters = part
                .projection
                .as_ref()
                .is_some_and(|projection| projection.pending_dead_letters > 0 || projection.discarded > 0);
            let link = match part.name.as_str() {
                _ if has_dead_letters => Some(("/console/dead-letters", "Dead letters")),
                "read_model" | "search_index" => Some(("/console/projections", "Projections")),
                // Events that can't be decoded are dead letters, and the part is degraded. Lost events are not dead
                // letters, and the part is down.
                "event_log" if part.status == Status::Degraded => {
                    Some(("/console/dead-letters?all=true", "Dead letters"))
                }
                _ => None,
            };
            Finding {
                is_down: part.status == Status::Down,
                title: text::in_words(&part.name),
                detail: part.reason.clone().unwrap_or_default(),
                link,
            }
        })
        .collect()
}

fn part_row(part: &Part) -> PartRow {
    let (status, class) = match part.status {
        Status::Ok => ("ok", "ok"),
        Status::Degraded => ("degraded", "warn"),
        Status::Down => ("down", "error"),
    };
    PartRow {
        name: text::in_words(&part.name),
        status,
        class,
        reason: part.reason.clone().unwrap_or_default(),
    }
}

fn projection_rows(console: &Console, generations: &[ListedGeneration]) -> Vec<ProjectionRow> {
    let samples = console.samples.all();
    let live = generations.iter().filter(|generation| generation.generation_state == GenerationState::Live);
    live.map(|generation| {
        let index = ProjectionName::ALL.iter().position(|name| *name == generation.projection).unwrap_or(0);
        let lag: Vec<Option<u64>> = samples.iter().map(|sample| sample.lag_ms[index]).collect();
        let chart = LineChart::new(&lag, LAG_SLOTS);
        let worst = lag.iter().flatten().max().copied().unwrap_or(0);
        ProjectionRow {
            name: projection_title(generation.projection),
            generation: generation.generation.0.to_string(),
            state: state_name(generation.state),
            state_class: state_class(generation.state),
            lag: generation.lag_ms.map_or_else(|| "unknown".to_owned(), text::duration),
            rate: generation.events_per_second.map_or_else(|| "–".to_owned(), text::number),
            dead_letters: generation.pending_dead_letters.unwrap_or(0),
            chart_label: format!("Lag of the last hour, at most {}", text::duration(worst)),
            chart,
        }
    })
    .collect()
}

/// The name of a projector's state on a page.
pub(crate) fn state_name(state: ListedProjectorState) -> &'static str {
    match state {
        ListedProjectorState::HasDeadLetters => "has blocked streams",
        state => state.as_str(),
    }
}

/// The CSS class of a projector's state.
pub(crate) fn state_class(state: ListedProjectorState) -> &'static str {
    match state {
        ListedProjectorState::Live => "ok",
        ListedProjectorState::CatchingUp | ListedProjectorState::Rebuilding => "info",
        ListedProjectorState::HasDeadLetters => "warn",
        ListedProjectorState::Waiting | ListedProjectorState::NotRunning | ListedProjectorState::Missing => {
            "error"
        }
    }
}

/// The tiles of the page. `counts` has the number of events of each bar of the chart, the newest last.
fn tiles(metrics: &MetricValues, head: Option<u64>, counts: Option<&[u64]>, dead_letters: u64) -> Vec<Tile> {
    let tile = |name, value: Option<u64>| Tile {
        name,
        value: value.map_or_else(|| "unknown".to_owned(), text::number),
        note: String::new(),
        link: None,
        is_warning: false,
    };
    let last = counts.and_then(|counts| counts.last().copied());
    let refused = metrics.sum("chat_command_streams_refused");
    let repairs = metrics.sum("chat_counter_repairs_total");
    vec![
        Tile {
            note: "position of the last event".to_owned(),
            link: Some("/console/events"),
            ..tile("Head of the log", head)
        },
        Tile {
            note: "average of the last 15 minutes".to_owned(),
            value: last.map_or_else(
                || "unknown".to_owned(),
                |events| format!("{}.{}", events / 15, events % 15 * 10 / 15),
            ),
            ..tile("Events a minute", last)
        },
        Tile {
            note: "events that a projection could not apply".to_owned(),
            link: Some("/console/dead-letters"),
            is_warning: dead_letters > 0,
            ..tile("Dead letters", Some(dead_letters))
        },
        Tile {
            note: "streams that refuse commands: an event can’t be read, or the stream was truncated"
                .to_owned(),
            link: Some("/console/dead-letters"),
            is_warning: refused.is_some_and(|refused| refused > 0),
            ..tile("Refused streams", refused)
        },
        Tile { note: "since this process started".to_owned(), ..tile("Counter repairs", repairs) },
    ]
}

fn event_chart(counts: &[u64], now: Timestamp) -> BarChart {
    let bars = counts.iter().enumerate().map(|(index, count)| {
        let newer_bars = i64::try_from(BARS - 1 - index).unwrap_or(0);
        let end = Time(Timestamp::from_millis(now.millis() - BAR_MS * newer_bars));
        let label = format!("{} in the 15 minutes to {}", counted(*count, "event"), end.time_of_day());
        BarValue { value: *count, end, label }
    });
    BarChart::new(bars.collect())
}

fn sizes(metrics: &MetricValues) -> Vec<(String, String)> {
    let values = |name: &str, label: &str| metrics.labelled(name, label).collect::<Vec<_>>();
    let contents = values("chat_storage_bytes", "content").into_iter();
    let disks = values("chat_disk_available_bytes", "folder").into_iter();
    let contents = contents.map(|(content, bytes)| (text::in_words(&content), text::bytes(bytes)));
    let disks = disks.map(|(folder, bytes)| (format!("Free on the disk of {folder}"), text::bytes(bytes)));
    let mut sizes: Vec<_> = contents.chain(disks).collect();
    // The metrics have no order.
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_that_cannot_be_decoded_link_to_the_dead_letters() {
        let link = |status| {
            let part = Part { name: "event_log".to_owned(), status, reason: None, projection: None };
            findings(&[part])[0].link
        };
        assert_eq!(link(Status::Degraded), Some(("/console/dead-letters?all=true", "Dead letters")));
        assert_eq!(link(Status::Down), None);
    }
}
