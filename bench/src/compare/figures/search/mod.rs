//! Figure 7: searches among many messages.

mod engines;
pub(super) mod queries;

use std::io;
use std::sync::Arc;

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Plot, PlotKind, Table};
use crate::compare::postgres;
use crate::compare::rounds::{Rounds, median};
use crate::compare::run_config::RunConfig;
use crate::compare::seeded_log::SeededLog;
use crate::compare::system_under_test::SystemUnderTest;
use crate::latency::Percentiles;

pub(super) use engines::query_chat_api;
use engines::{Fts5, PgTrgm, QueryResults};
use queries::{Query, QueryKind, RequestedResult, Scope};

/// The compared engines: first without the total number of hits, then in the same order with it.
const ENGINES: [&str; 6] =
    ["chat-api", "FTS5", "pg_trgm", "chat-api with total", "FTS5 with total", "pg_trgm with total"];

/// The results of all engines for queries of one kind and scope.
struct QueryClass {
    name: String,
    /// The results of each round, for each engine.
    rounds: [Vec<QueryResults>; ENGINES.len()],
}

/// Compares the chat API over HTTP with SQLite and Postgres called directly: the same messages and queries, one query
/// at a time.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let seeded_log = SeededLog::new(&config.texts, config.chats(), config.messages);
    let sample = |kind| Ok((kind, Query::sample(&seeded_log, kind, config.query_count())?.into()));
    let queries_by_kind: Vec<(QueryKind, Arc<[Query]>)> =
        QueryKind::ALL.into_iter().map(sample).collect::<io::Result<_>>()?;
    let folder = config.new_folder()?;
    seeded_log.write(folder.path()).await?;
    let system = SystemUnderTest::on_seeded_log(config, folder, &seeded_log).await?;
    let fts5_folder = config.new_folder()?;
    let fts5 = Fts5::new(&fts5_folder.path().join("fts5.db"), &seeded_log).await?;
    let server = postgres::start(config).await?;
    let mut pg_trgm = PgTrgm::new(&server, &seeded_log).await?;
    let mut classes = Vec::new();
    for scope in Scope::ALL {
        for (kind, queries) in &queries_by_kind {
            let mut class =
                QueryClass { name: format!("{} {}", kind.name(), scope.name()), rounds: Default::default() };
            // The first round fills the caches and is not counted.
            for round in 0..=config.rounds {
                for turn in 0..ENGINES.len() {
                    let engine = (round + turn) % ENGINES.len();
                    let (app, address) = (&system.app_token, &system.server.address);
                    let requested =
                        if engine < 3 { RequestedResult::Page } else { RequestedResult::PageAndTotal };
                    let query_results = match engine % 3 {
                        0 => query_chat_api(address, app, queries, scope, requested).await?,
                        1 => fts5.run_queries(app, queries, scope, requested).await?,
                        _ => pg_trgm.run_queries(app, queries, scope, requested).await?,
                    };
                    if round > 0 {
                        class.rounds[engine].push(query_results);
                    }
                }
            }
            classes.push(class);
        }
    }
    let bytes = [fts5.bytes().await?, pg_trgm.bytes().await?];
    pg_trgm.close().await?;
    let usage = system.stop().await?;
    let mut table = Table::new("Bytes a message, text included", &["", "bytes a message"]);
    let mut row = |name: &str, bytes: f64| {
        table.rows.push(vec![name.to_owned(), format!("{:.0}", bytes / config.messages as f64)]);
    };
    row("chat-api: read model and search index", usage.read_model + usage.index);
    row("of that, the search index", usage.index);
    row("SQLite: table and FTS5", bytes[0]);
    row("Postgres: table and indexes", bytes[1]);
    for requested in [RequestedResult::Page, RequestedResult::PageAndTotal] {
        results.figures.push(worst_class_figure(&classes, requested, "p50", |latencies| latencies.p50));
        results.figures.push(worst_class_figure(&classes, requested, "p99", |latencies| latencies.p99));
    }
    results.tables.push(details_table(&classes, config));
    results.tables.push(table);
    results.plots.push(percentile_plot(&classes, config.messages, "p50", |latencies| latencies.p50));
    results.plots.push(percentile_plot(&classes, config.messages, "p99", |latencies| latencies.p99));
    Ok(())
}

impl QueryClass {
    /// Returns a percentile of an engine, one value for each round.
    fn round_values(&self, engine: usize, percentile: fn(&Percentiles) -> u64) -> Vec<f64> {
        self.rounds[engine].iter().map(|results| percentile(&results.latencies) as f64).collect()
    }

    /// Compares the chat API with the faster of the two other engines in each round. All return the `requested` result.
    fn ratio_to_fastest(&self, requested: RequestedResult, percentile: fn(&Percentiles) -> u64) -> Rounds {
        let engines = match requested {
            RequestedResult::Page => [0, 1, 2],
            RequestedResult::PageAndTotal => [3, 4, 5],
        };
        let [ours, fts5, pg_trgm] = engines.map(|engine| self.round_values(engine, percentile));
        let mut rounds = Rounds::default();
        for ((ours, fts5), pg_trgm) in ours.into_iter().zip(fts5).zip(pg_trgm) {
            rounds.push(ours, fts5.min(pg_trgm));
        }
        rounds
    }
}

/// Returns the figure of the class in which the chat API has the worst ratio.
fn worst_class_figure(
    classes: &[QueryClass],
    requested: RequestedResult,
    percentile_name: &str,
    percentile: fn(&Percentiles) -> u64,
) -> Figure {
    let rounds = |class: &QueryClass| class.ratio_to_fastest(requested, percentile);
    let worst = classes.iter().max_by(|a, b| median(&rounds(a).ratios).total_cmp(&median(&rounds(b).ratios)));
    let (class, rounds) = worst.map(|class| (class.name.as_str(), rounds(class))).unwrap_or_default();
    Figure {
        number: 7,
        name: format!("{percentile_name} of the search with the worst ratio: {class}"),
        against: match requested {
            RequestedResult::Page => {
                "the faster of FTS5 (trigram) and pg_trgm, called directly, without the total"
            }
            RequestedResult::PageAndTotal => {
                "the faster of FTS5 (trigram) and pg_trgm, called directly, with the total"
            }
        }
        .to_owned(),
        unit: "µs".to_owned(),
        goal: Goal::AtMost(1.0),
        measured: Measurements::Ratio(rounds),
    }
}

fn details_table(classes: &[QueryClass], config: &RunConfig) -> Table {
    let title = format!(
        "Searches among {} messages, in µs: p50 / p99, and how many of {} queries have hits",
        config.messages,
        config.query_count(),
    );
    let mut table = Table::new(title, &[""]);
    table.head.extend(ENGINES.map(str::to_owned));
    for class in classes {
        let mut row = vec![class.name.clone()];
        for (engine, rounds) in class.rounds.iter().enumerate() {
            let [p50, p99] = [
                class.round_values(engine, |latencies| latencies.p50),
                class.round_values(engine, |latencies| latencies.p99),
            ];
            let found = rounds.last().map_or(0, |results| results.queries_with_hits);
            row.push(format!("{:.0} / {:.0} ({found})", median(&p50), median(&p99)));
        }
        table.rows.push(row);
    }
    table
}

fn percentile_plot(
    classes: &[QueryClass],
    messages: u64,
    percentile_name: &str,
    percentile: fn(&Percentiles) -> u64,
) -> Plot {
    let value = |class: &QueryClass, engine| median(&class.round_values(engine, percentile)) / 1_000.0;
    let groups = classes
        .iter()
        .map(|class| (class.name.clone(), (0..ENGINES.len()).map(|engine| value(class, engine)).collect()));
    Plot {
        slug: format!("search-{percentile_name}"),
        title: format!("{percentile_name} of searches among {messages} messages"),
        kind: PlotKind::Bars {
            unit: "ms".to_owned(),
            legend: ENGINES.map(str::to_owned).to_vec(),
            groups: groups.collect(),
        },
    }
}
