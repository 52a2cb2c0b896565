//! Figure 11, and the part of figure 10 about stored messages: the cost of growth. A size is a number of stored
//! messages.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::memory::{memory_row, read_and_search};
use super::posts::posts_against_baseline;
use super::reads::{gets_against_baseline, message_paths, page_paths};
use super::search::queries::{Query, QueryKind, RequestedResult, Scope};
use super::search::query_chat_api;
use crate::compare::disk_usage::DiskUsage;
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Plot, PlotKind, Series, Table};
use crate::compare::rounds::{Rounds, median};
use crate::compare::run_config::{PAGE_SIZE, RunConfig};
use crate::compare::seeded_log::SeededLog;
use crate::compare::server_process::{Memory, ServerProcess};
use crate::compare::system_under_test::SystemUnderTest;

/// The number of chats at each size. It is small, so that each chat has more than a page of messages at the first size.
const CHATS: u64 = 100;
/// The smallest size in messages. Each other size is ten times the size before it.
const FIRST_SIZE: u64 = CHATS * PAGE_SIZE * 2;
/// The wait before a process without requests counts as idle. With shorter rounds, the wait is one side of a round.
const MAX_IDLE_WAIT: Duration = Duration::from_secs(5);

/// The measurements of one size.
struct SizeResults {
    messages: u64,
    /// Posts per second, compared with the baseline.
    post: Rounds,
    /// GET requests of a message per second, compared with the baseline.
    get: Rounds,
    /// GET requests of a page per second, compared with the baseline.
    page: Rounds,
    /// Searches of each kind and scope: the name, and the p50 and the p99 of each round, in µs.
    searches: Vec<(String, Vec<f64>, Vec<f64>)>,
    /// The memory after a restart.
    idle: Memory,
    /// The memory after reads and searches.
    busy: Memory,
}

pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let mut sizes = Vec::new();
    let mut memory =
        Table::new("Memory in MiB, by stored messages", &["", "resident", "of that anonymous", "peak"]);
    let mut disk =
        Table::new("Bytes a message, by stored messages", &["", "log", "read model", "search index"]);
    let mut start_times = Table::new(
        "From the start of the process to the first 201, in ms, by stored messages",
        &["", "median", "longest"],
    );
    start_times.rows.push(start_row("0, in an empty folder", &first_starts(config).await?));
    let mut messages = FIRST_SIZE;
    while messages <= config.max_growth_messages.max(FIRST_SIZE) {
        let size = measure_size(config, messages, &mut memory, &mut disk, &mut start_times).await?;
        sizes.push(size);
        // If a larger size fails, the results keep the smaller ones.
        *results = FigureResults {
            tables: vec![memory.clone(), disk.clone(), start_times.clone(), cost_table(&sizes)],
            ..FigureResults::default()
        };
        results.figures = growth_figures(&sizes);
        results.plots = growth_plots(&sizes);
        messages *= 10;
    }
    Ok(())
}

/// Measures one size on a log of its own. The load of posts comes last because it adds to the stored messages.
async fn measure_size(
    config: &RunConfig,
    messages: u64,
    memory: &mut Table,
    disk: &mut Table,
    start_times: &mut Table,
) -> io::Result<SizeResults> {
    let seeded_log = SeededLog::new(&config.texts, CHATS, messages);
    let folder = config.new_folder()?;
    seeded_log.write(folder.path()).await?;
    let system = SystemUnderTest::on_seeded_log(config, folder, &seeded_log).await?;
    tokio::time::sleep(MAX_IDLE_WAIT.min(config.duration)).await;
    memory.rows.push(memory_row(&format!("{messages}, after catching up"), system.server.memory()?));
    let system = system.restart(config).await?;
    tokio::time::sleep(MAX_IDLE_WAIT.min(config.duration)).await;
    let idle = system.server.memory()?;
    memory.rows.push(memory_row(&format!("{messages}, after a restart"), idle));
    let words = Query::sample(&seeded_log, QueryKind::Word, config.query_count())?;
    let search_paths =
        words.iter().map(|query| query.path(&system.app_token, Scope::App, RequestedResult::Page)).collect();
    read_and_search(config, &system, search_paths).await?;
    let busy = system.server.memory()?;
    memory.rows.push(memory_row(&format!("{messages}, after reads and searches at full speed"), busy));
    let get = gets_against_baseline(config, &system, message_paths(&system)).await?;
    let page = gets_against_baseline(config, &system, page_paths(&system)).await?;
    let mut searches = Vec::new();
    for scope in Scope::ALL {
        for kind in QueryKind::ALL {
            let queries: Arc<[Query]> = Query::sample(&seeded_log, kind, config.query_count())?.into();
            let (mut p50, mut p99) = (Vec::new(), Vec::new());
            for _ in 0..config.rounds {
                let (address, app) = (&system.server.address, &system.app_token);
                let latencies =
                    query_chat_api(address, app, &queries, scope, RequestedResult::Page).await?.latencies;
                p50.push(latencies.p50 as f64);
                p99.push(latencies.p99 as f64);
            }
            searches.push((format!("{} {}", kind.name(), scope.name()), p50, p99));
        }
    }
    let mut system = system;
    let mut first_posts = Vec::new();
    for _ in 0..config.rounds {
        let (restarted, duration) = system.time_restart(config).await?;
        first_posts.push(duration);
        system = restarted;
    }
    start_times.rows.push(start_row(&messages.to_string(), &first_posts));
    let usage = DiskUsage::of_data_folder(system.folder())?;
    let per_message = |bytes: f64| format!("{:.0}", bytes / messages as f64);
    disk.rows.push(vec![
        messages.to_string(),
        per_message(usage.log),
        per_message(usage.read_model),
        per_message(usage.index),
    ]);
    let post = posts_against_baseline(config, &system).await?;
    Ok(SizeResults { messages, post, get, page, searches, idle, busy })
}

/// Measures the time to the first 201 in empty folders.
async fn first_starts(config: &RunConfig) -> io::Result<Vec<Duration>> {
    let mut starts = Vec::new();
    for _ in 0..config.rounds {
        let folder = config.new_folder()?;
        let (server, duration) = ServerProcess::time_first_post(
            &config.program,
            folder.path(),
            "/api/v1/apps",
            r#"{"name":"first"}"#,
        )
        .await?;
        starts.push(duration);
        server.stop().await?;
    }
    Ok(starts)
}

/// Returns a table row of times in milliseconds.
fn start_row(name: &str, starts: &[Duration]) -> Vec<String> {
    let millis: Vec<f64> = starts.iter().map(|start| start.as_secs_f64() * 1_000.0).collect();
    let longest = millis.iter().copied().fold(0.0, f64::max);
    vec![name.to_owned(), format!("{:.0}", median(&millis)), format!("{longest:.0}")]
}

impl SizeResults {
    /// Returns the throughputs of HTTP requests, compared with the baseline.
    fn throughputs(&self) -> [(&'static str, &Rounds); 3] {
        [("POST of a message", &self.post), ("GET of a message", &self.get), ("GET of a page", &self.page)]
    }
}

/// Compares the other sizes with the first: throughputs and searches at the size with the worst result, memory at the
/// largest size. The compared throughputs are ratios to the baseline.
fn growth_figures(sizes: &[SizeResults]) -> Vec<Figure> {
    let Some((first, others)) = sizes.split_first() else { return Vec::new() };
    if others.is_empty() {
        return Vec::new();
    }
    let against = format!("the same with {} stored", first.messages);
    let mut figures = Vec::new();
    for (index, (name, base)) in first.throughputs().into_iter().enumerate() {
        let compared = others.iter().map(|size| {
            let (_, rounds) = size.throughputs()[index];
            (size.messages, zip_rounds(&rounds.ratios, &base.ratios))
        });
        let worst = compared.min_by(|(_, a), (_, b)| median(&a.ratios).total_cmp(&median(&b.ratios)));
        figures.extend(worst.map(|(messages, rounds)| Figure {
            number: 11,
            name: format!("{name} with {messages} stored, the size with the worst ratio"),
            against: against.clone(),
            unit: "of the bare handler".to_owned(),
            goal: Goal::AtLeast(0.75),
            measured: Measurements::Ratio(rounds),
        }));
    }
    figures.extend(search_figure(first, others, &against));
    let Some(last) = others.last() else { return figures };
    for (name, anonymous) in [
        ("anonymous memory, after a restart", (|size| size.idle.anonymous) as fn(&SizeResults) -> f64),
        ("anonymous memory, after reads and searches at full speed", |size| size.busy.anonymous),
    ] {
        let mebibytes = |size: &SizeResults| vec![anonymous(size) / 1_048_576.0];
        figures.push(Figure {
            number: 10,
            name: format!("{name}, with {} stored", last.messages),
            against: against.clone(),
            unit: "MiB".to_owned(),
            goal: Goal::AtMost(1.25),
            measured: Measurements::Ratio(zip_rounds(&mebibytes(last), &mebibytes(first))),
        });
    }
    figures
}

/// Returns the figure of the search whose p50 grows most in relation to its goal. The goal is a p50 that grows no
/// faster than the logarithm of the number of stored messages.
fn search_figure(first: &SizeResults, others: &[SizeResults], against: &str) -> Option<Figure> {
    let compared = others.iter().flat_map(|size| {
        let goal = (size.messages as f64).log10() / (first.messages as f64).log10();
        size.searches.iter().zip(&first.searches).map(move |((name, p50, _), (_, base, _))| {
            (format!("{name} with {} stored", size.messages), goal, zip_rounds(p50, base))
        })
    });
    let excess = |goal: f64, rounds: &Rounds| median(&rounds.ratios) / goal;
    let worst =
        compared.max_by(|(_, a_goal, a), (_, b_goal, b)| excess(*a_goal, a).total_cmp(&excess(*b_goal, b)));
    worst.map(|(name, goal, rounds)| Figure {
        number: 11,
        name: format!("p50 of the search that grows most: {name}"),
        against: against.to_owned(),
        unit: "µs".to_owned(),
        goal: Goal::AtMost(goal),
        measured: Measurements::Ratio(rounds),
    })
}

fn zip_rounds(ours: &[f64], theirs: &[f64]) -> Rounds {
    let mut rounds = Rounds::default();
    for (our_value, their_value) in ours.iter().zip(theirs) {
        rounds.push(*our_value, *their_value);
    }
    rounds
}

fn cost_table(sizes: &[SizeResults]) -> Table {
    let head: Vec<String> = sizes.iter().map(|size| size.messages.to_string()).collect();
    let mut table = Table::new("Cost by stored messages", &[""]);
    table.head.extend(head);
    let Some(first) = sizes.first() else { return table };
    for (index, (name, _)) in first.throughputs().into_iter().enumerate() {
        let cells = sizes.iter().map(|size| {
            let (_, rounds) = size.throughputs()[index];
            format!("{:.0} ({:.2})", median(&rounds.ours), median(&rounds.ratios))
        });
        let name = format!("{name}, requests/s (of the bare handler's)");
        table.rows.push(std::iter::once(name).chain(cells).collect());
    }
    for (index, (name, ..)) in first.searches.iter().enumerate() {
        let cells = sizes.iter().map(|size| {
            let (_, p50, p99) = &size.searches[index];
            format!("{:.0} / {:.0}", median(p50), median(p99))
        });
        table.rows.push(std::iter::once(format!("search: {name}, p50 / p99 in µs")).chain(cells).collect());
    }
    table
}

fn growth_plots(sizes: &[SizeResults]) -> Vec<Plot> {
    let Some(first) = sizes.first() else { return Vec::new() };
    let line = |name: &str, value: &dyn Fn(&SizeResults) -> f64| Series {
        name: name.to_owned(),
        points: sizes.iter().map(|size| (size.messages as f64, value(size))).collect(),
    };
    let rates = first.throughputs().into_iter().enumerate().map(|(index, (name, base))| {
        line(name, &|size| median(&size.throughputs()[index].1.ratios) / median(&base.ratios))
    });
    let searches = first
        .searches
        .iter()
        .enumerate()
        .map(|(index, (name, ..))| line(name, &|size| median(&size.searches[index].1) / 1_000.0));
    let x_axis = "stored messages".to_owned();
    vec![
        Plot {
            slug: "growth".to_owned(),
            title: format!(
                "Requests a second relative to the bare handler, against those with {} stored",
                first.messages
            ),
            kind: PlotKind::Lines { x_axis: x_axis.clone(), lines: rates.collect() },
        },
        Plot {
            slug: "growth-search".to_owned(),
            title: "p50 of a search, in ms".to_owned(),
            kind: PlotKind::Lines { x_axis, lines: searches.collect() },
        },
    ]
}
