//! Figure 7: searching among many messages.

mod engines;
pub(super) mod queries;

use std::io;
use std::sync::Arc;

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Plot, PlotKind, Table};
use crate::compare::postgres;
use crate::compare::rounds::{Rounds, median};
use crate::compare::run_config::RunConfig;
use crate::compare::seeded_log::SeededLog;
use crate::compare::system_under_test::Stage;
use crate::latency::Percentiles;

pub(super) use engines::ours;
use engines::{Fts5, PgTrgm, QueryResults};
use queries::{Query, QueryKind, RequestedResult, Scope};

/// Who is asked: the others both for no more than the page, and for the total too, which is in each of our answers.
const ENGINES: [&str; 5] = ["chat-api", "FTS5", "pg_trgm", "FTS5 with total", "pg_trgm with total"];

/// What the engines needed for queries of one kind, round by round.
struct QueryClass {
    name: String,
    rounds: [Vec<QueryResults>; ENGINES.len()],
}

/// The chat API over HTTP against SQLite and Postgres without it, on the same texts with the same queries, one at a
/// time.
pub(super) async fn measure(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let seed = SeededLog::new(&setting.texts, setting.chats(), setting.messages);
    let draw = |kind| Ok((kind, Query::draw(&seed, kind, setting.query_count())?.into()));
    let drawn: Vec<(QueryKind, Arc<[Query]>)> =
        QueryKind::ALL.into_iter().map(draw).collect::<io::Result<_>>()?;
    let folder = setting.new_folder()?;
    seed.write(folder.path()).await?;
    let stage = Stage::on_seeded_log(setting, folder, &seed).await?;
    let beside = setting.new_folder()?;
    let fts5 = Fts5::new(&beside.path().join("fts5.db"), &seed).await?;
    let server = postgres::start(setting).await?;
    let mut pg_trgm = PgTrgm::new(&server, &seed).await?;
    let mut classes = Vec::new();
    for scope in Scope::ALL {
        for (kind, queries) in &drawn {
            let mut class =
                QueryClass { name: format!("{} {}", kind.name(), scope.name()), rounds: Default::default() };
            // The first round is not counted: what is read from the disk once is not what is measured.
            for round in 0..=setting.rounds {
                for turn in 0..ENGINES.len() {
                    let engine = (round + turn) % ENGINES.len();
                    let app = &stage.app;
                    let answers = match engine {
                        0 => ours(&stage.server.address, app, queries, scope).await?,
                        1 => fts5.ask(app, queries, scope, RequestedResult::Page).await?,
                        2 => pg_trgm.ask(app, queries, scope, RequestedResult::Page).await?,
                        3 => fts5.ask(app, queries, scope, RequestedResult::PageAndTotal).await?,
                        _ => pg_trgm.ask(app, queries, scope, RequestedResult::PageAndTotal).await?,
                    };
                    if round > 0 {
                        class.rounds[engine].push(answers);
                    }
                }
            }
            classes.push(class);
        }
    }
    let bytes = [fts5.bytes().await?, pg_trgm.bytes().await?];
    pg_trgm.close().await?;
    let ours = stage.stop().await?;
    let mut table = Table::new("Bytes a message, text included", &["", "bytes a message"]);
    let mut row = |name: &str, bytes: f64| {
        table.rows.push(vec![name.to_owned(), format!("{:.0}", bytes / setting.messages as f64)]);
    };
    row("chat-api: read model and search index", ours.read_model + ours.index);
    row("of that, the search index", ours.index);
    row("SQLite: table and FTS5", bytes[0]);
    row("Postgres: table and indexes", bytes[1]);
    for wanted in [RequestedResult::Page, RequestedResult::PageAndTotal] {
        findings.figures.push(worst_class(&classes, wanted, "p50", |took| took.p50));
        findings.figures.push(worst_class(&classes, wanted, "p99", |took| took.p99));
    }
    findings.tables.push(details_table(&classes, setting));
    findings.tables.push(table);
    findings.plots.push(percentile_plot(&classes, setting.messages, "p50", |took| took.p50));
    findings.plots.push(percentile_plot(&classes, setting.messages, "p99", |took| took.p99));
    Ok(())
}

impl QueryClass {
    /// The values of an engine's rounds.
    fn round_values(&self, engine: usize, percentile: fn(&Percentiles) -> u64) -> Vec<f64> {
        self.rounds[engine].iter().map(|answers| percentile(&answers.took) as f64).collect()
    }

    /// Ours against the faster of the other two, round by round.
    fn ratio_to_fastest(&self, wanted: RequestedResult, percentile: fn(&Percentiles) -> u64) -> Rounds {
        let engines = match wanted {
            RequestedResult::Page => [0, 1, 2],
            RequestedResult::PageAndTotal => [0, 3, 4],
        };
        let [ours, fts5, pg_trgm] = engines.map(|engine| self.round_values(engine, percentile));
        let mut rounds = Rounds::default();
        for ((ours, fts5), pg_trgm) in ours.into_iter().zip(fts5).zip(pg_trgm) {
            rounds.push(ours, fts5.min(pg_trgm));
        }
        rounds
    }
}

/// The class in which the chat API does worst.
fn worst_class(
    classes: &[QueryClass],
    wanted: RequestedResult,
    name: &str,
    percentile: fn(&Percentiles) -> u64,
) -> Figure {
    let rounds = |class: &QueryClass| class.ratio_to_fastest(wanted, percentile);
    let worst = classes.iter().max_by(|a, b| median(&rounds(a).ratios).total_cmp(&median(&rounds(b).ratios)));
    let (class, rounds) = worst.map(|class| (class.name.as_str(), rounds(class))).unwrap_or_default();
    Figure {
        number: 7,
        name: format!("{name} of a search, where it does worst: {class}"),
        against: match wanted {
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

fn details_table(classes: &[QueryClass], setting: &RunConfig) -> Table {
    let title = format!(
        "Searches among {} messages, in µs: p50 / p99, and how many of {} found something",
        setting.messages,
        setting.query_count(),
    );
    let mut table = Table::new(title, &["", ENGINES[0], ENGINES[1], ENGINES[2], ENGINES[3], ENGINES[4]]);
    for class in classes {
        let mut row = vec![class.name.clone()];
        for (engine, rounds) in class.rounds.iter().enumerate() {
            let [p50, p99] =
                [class.round_values(engine, |took| took.p50), class.round_values(engine, |took| took.p99)];
            let found = rounds.last().map_or(0, |answers| answers.found);
            row.push(format!("{:.0} / {:.0} ({found})", median(&p50), median(&p99)));
        }
        table.rows.push(row);
    }
    table
}

fn percentile_plot(
    classes: &[QueryClass],
    messages: u64,
    name: &str,
    percentile: fn(&Percentiles) -> u64,
) -> Plot {
    let value = |class: &QueryClass, engine| median(&class.round_values(engine, percentile)) / 1_000.0;
    let groups = classes
        .iter()
        .map(|class| (class.name.clone(), (0..ENGINES.len()).map(|engine| value(class, engine)).collect()));
    Plot {
        slug: format!("search-{name}"),
        title: format!("{name} of searches among {messages} messages"),
        shape: PlotKind::Bars {
            unit: "ms".to_owned(),
            legend: ENGINES.map(str::to_owned).to_vec(),
            groups: groups.collect(),
        },
    }
}
