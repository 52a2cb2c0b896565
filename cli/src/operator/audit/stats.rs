//! `audit stats`: counts events by type, app, actor, stream and hour.

use chat_domain::StreamId;
use chat_operations::audit::{Counts, HourCount, Stats, stats};
use chat_operations::counted::counted;
use clap::Args;

use super::super::answer::Answer;
use super::super::filter::warn_of_unmatched_names;
use super::super::progress::Progress;
use super::super::table::{key_value_lines, table};
use super::super::terminal_text::{escaped, truncated};
use super::filter::AuditFilterArgs;
use super::render;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};

/// The maximum number of hours in the chart.
const CHART_HOURS: usize = 24;

/// The width of the chart's longest bar, in columns.
const MAX_BAR_COLUMNS: u64 = 40;

/// The maximum width of a type, app, actor or stream in the tables, in columns.
const MAX_NAME_COLUMNS: usize = 48;

/// Arguments of `audit stats`.
#[derive(Args)]
pub(crate) struct StatsArgs {
    /// Maximum number of entries in each list: types, apps, actors, biggest and fastest growing streams
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    top: u64,
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    filter: AuditFilterArgs,
}

pub(super) async fn run(arguments: &StatsArgs) -> Result<Answer, Failure> {
    arguments.filter.check()?;
    let context = CommandContext::open(&arguments.common).await?;
    let filter = arguments.filter.parse(&*context.event_store).await?;
    let max_keys = usize::try_from(arguments.top).unwrap_or(usize::MAX);
    let max_scanned_events = u64::MAX;
    let mut progress = Progress::start("Counting", None);
    let result = stats(&*context.event_store, filter.clone(), max_keys, max_scanned_events, |scanned| {
        progress.set_done(scanned);
    })
    .await;
    drop(progress);
    let stats = result.map_err(event_store_failure)?;
    let answer = Answer::from_report(&stats, stats_text(&stats))?;
    if stats.events > 0 {
        return Ok(answer);
    }
    warn_of_unmatched_names(answer, &*context.event_store, &filter).await
}

fn stats_text(stats: &Stats) -> String {
    let mut text = key_value_lines(&[
        ("events", stats.events.to_string()),
        ("bytes", stats.bytes.to_string()),
        ("first at", stats.first_at.clone().unwrap_or_else(|| "-".to_owned())),
        ("last at", stats.last_at.clone().unwrap_or_else(|| "-".to_owned())),
    ]);
    if stats.events == 0 {
        return text;
    }
    text.push_str(&counts_table("TYPE", &stats.types, escaped));
    text.push_str(&counts_table("APP", &stats.apps, render::abbreviated_token));
    text.push_str(&counts_table("BY", &stats.actors, escaped));
    text.push_str(&counts_table("BIGGEST STREAM", &stats.biggest_streams, stream_label));
    text.push_str(&counts_table(
        "FASTEST GROWING STREAM, LAST HOUR",
        &stats.fastest_growing_streams,
        stream_label,
    ));
    text.push_str(&hours_chart(&stats.hours));
    text
}

fn stream_label(name: &str) -> String {
    if StreamId::parse(name).is_ok() { render::abbreviated_stream(name) } else { escaped(name) }
}

fn counts_table(title: &'static str, counts: &Counts, label: impl Fn(&str) -> String) -> String {
    if counts.most.is_empty() {
        return String::new();
    }
    let mut rows: Vec<[String; 2]> = Vec::new();
    for count in &counts.most {
        let may_be_too_high = count.at_most_too_high > 0;
        let qualifier = if may_be_too_high { "at most " } else { "" };
        rows.push([truncated(&label(&count.key), MAX_NAME_COLUMNS), format!("{qualifier}{}", count.events)]);
    }
    if counts.others > 0 {
        rows.push([format!("({})", counted(counts.others as u64, "other")), String::new()]);
    }
    format!("\n{}", table([title, "EVENTS"], &rows))
}

/// Formats a chart of the events by hour, for the last hours with events.
fn hours_chart(hours: &[HourCount]) -> String {
    let last_hours = &hours[hours.len().saturating_sub(CHART_HOURS)..];
    let max_events = last_hours.iter().map(|hour| hour.events).max().unwrap_or_default().max(1);
    let row = |hour: &HourCount| {
        let length = (hour.events * MAX_BAR_COLUMNS).div_ceil(max_events);
        let bar = "█".repeat(usize::try_from(length).unwrap_or_default());
        // 16 characters are the date and the time up to the minutes.
        let time = hour.hour.to_string().replace('T', " ");
        [time.get(..16).unwrap_or(&time).to_owned(), hour.events.to_string(), bar]
    };
    let rows: Vec<[String; 3]> = last_hours.iter().map(row).collect();
    format!("\n{}", table(["HOUR (UTC)", "EVENTS", ""], &rows))
}
