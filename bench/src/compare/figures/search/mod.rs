//! Figure 7: searching among many messages.

mod engines;
pub(super) mod queries;

use std::io;
use std::sync::Arc;

use crate::compare::figure::{Figure, Findings, Goal, Measured, Plot, Shape, Table};
use crate::compare::postgres;
use crate::compare::rounds::{Rounds, median};
use crate::compare::seed::Seed;
use crate::compare::setting::Setting;
use crate::compare::stage::Stage;
use crate::latency::Percentiles;

pub(super) use engines::ours;
use engines::{Answers, Fts5, PgTrgm};
use queries::{Kind, Query, Scope, Wanted};

/// Who is asked: the others both for no more than the page, and for the total too, which is in each of our answers.
const ENGINES: [&str; 5] = ["chat-api", "FTS5", "pg_trgm", "FTS5 with total", "pg_trgm with total"];

/// What the engines needed for queries of one kind, round by round.
struct Class {
    name: String,
    rounds: [Vec<Answers>; ENGINES.len()],
}

/// The chat API over HTTP against SQLite and Postgres without it, on the same texts with the same queries, one at a
/// time.
pub(super) async fn measure(setting: &Setting, findings: &mut Findings) -> io::Result<()> {
    let seed = Seed::new(&setting.texts, setting.chats(), setting.messages);
    let draw = |kind| Ok((kind, Query::draw(&seed, kind, setting.queries())?.into()));
    let drawn: Vec<(Kind, Arc<[Query]>)> = Kind::ALL.into_iter().map(draw).collect::<io::Result<_>>()?;
    let folder = setting.new_folder()?;
    seed.write(folder.path()).await?;
    let stage = Stage::on(setting, folder, &seed).await?;
    let beside = setting.new_folder()?;
    let fts5 = Fts5::new(&beside.path().join("fts5.db"), &seed).await?;
    let server = postgres::start(setting).await?;
    let mut pg_trgm = PgTrgm::new(&server, &seed).await?;
    let mut classes = Vec::new();
    for scope in Scope::ALL {
        for (kind, queries) in &drawn {
            let mut class =
                Class { name: format!("{} {}", kind.name(), scope.name()), rounds: Default::default() };
            // The first round is not counted: what is read from the disk once is not what is measured.
            for round in 0..=setting.rounds {
                for turn in 0..ENGINES.len() {
                    let engine = (round + turn) % ENGINES.len();
                    let app = &stage.app;
                    let answers = match engine {
                        0 => ours(&stage.server.address, app, queries, scope).await?,
                        1 => fts5.ask(app, queries, scope, Wanted::Page).await?,
                        2 => pg_trgm.ask(app, queries, scope, Wanted::Page).await?,
                        3 => fts5.ask(app, queries, scope, Wanted::PageAndTotal).await?,
                        _ => pg_trgm.ask(app, queries, scope, Wanted::PageAndTotal).await?,
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
    let ours = stage.end().await?;
    let mut table = Table::new("Bytes a message, text included", &["", "bytes a message"]);
    let mut row = |name: &str, bytes: f64| {
        table.rows.push(vec![name.to_owned(), format!("{:.0}", bytes / setting.messages as f64)]);
    };
    row("chat-api: read model and search index", ours.read_model + ours.index);
    row("of that, the search index", ours.index);
    row("SQLite: table and FTS5", bytes[0]);
    row("Postgres: table and indexes", bytes[1]);
    for wanted in [Wanted::Page, Wanted::PageAndTotal] {
        findings.figures.push(slowest(&classes, wanted, "p50", |took| took.p50));
        findings.figures.push(slowest(&classes, wanted, "p99", |took| took.p99));
    }
    findings.tables.push(details(&classes, setting));
    findings.tables.push(table);
    findings.plots.push(plot(&classes, setting.messages, "p50", |took| took.p50));
    findings.plots.push(plot(&classes, setting.messages, "p99", |took| took.p99));
    Ok(())
}

impl Class {
    /// The values of an engine's rounds.
    fn of(&self, engine: usize, percentile: fn(&Percentiles) -> u64) -> Vec<f64> {
        self.rounds[engine].iter().map(|answers| percentile(&answers.took) as f64).collect()
    }

    /// Ours against the faster of the other two, round by round.
    fn against_the_faster(&self, wanted: Wanted, percentile: fn(&Percentiles) -> u64) -> Rounds {
        let engines = match wanted {
            Wanted::Page => [0, 1, 2],
            Wanted::PageAndTotal => [0, 3, 4],
        };
        let [ours, fts5, pg_trgm] = engines.map(|engine| self.of(engine, percentile));
        let mut rounds = Rounds::default();
        for ((ours, fts5), pg_trgm) in ours.into_iter().zip(fts5).zip(pg_trgm) {
            rounds.push(ours, fts5.min(pg_trgm));
        }
        rounds
    }
}

/// The class in which the chat API does worst.
fn slowest(classes: &[Class], wanted: Wanted, name: &str, percentile: fn(&Percentiles) -> u64) -> Figure {
    let rounds = |class: &Class| class.against_the_faster(wanted, percentile);
    let worst = classes.iter().max_by(|a, b| median(&rounds(a).ratios).total_cmp(&median(&rounds(b).ratios)));
    let (class, rounds) = worst.map(|class| (class.name.as_str(), rounds(class))).unwrap_or_default();
    Figure {
        number: 7,
        name: format!("{name} of a search, where it does worst: {class}"),
        against: match wanted {
            Wanted::Page => "the faster of FTS5 (trigram) and pg_trgm, called directly, without the total",
            Wanted::PageAndTotal => {
                "the faster of FTS5 (trigram) and pg_trgm, called directly, with the total"
            }
        }
        .to_owned(),
        unit: "µs".to_owned(),
        goal: Goal::AtMost(1.0),
        measured: Measured::Ratio(rounds),
    }
}

fn details(classes: &[Class], setting: &Setting) -> Table {
    let title = format!(
        "Searches among {} messages, in µs: p50 / p99, and how many of {} found something",
        setting.messages,
        setting.queries(),
    );
    let mut table = Table::new(title, &["", ENGINES[0], ENGINES[1], ENGINES[2], ENGINES[3], ENGINES[4]]);
    for class in classes {
        let mut row = vec![class.name.clone()];
        for (engine, rounds) in class.rounds.iter().enumerate() {
            let [p50, p99] = [class.of(engine, |took| took.p50), class.of(engine, |took| took.p99)];
            let found = rounds.last().map_or(0, |answers| answers.found);
            row.push(format!("{:.0} / {:.0} ({found})", median(&p50), median(&p99)));
        }
        table.rows.push(row);
    }
    table
}

fn plot(classes: &[Class], messages: u64, name: &str, percentile: fn(&Percentiles) -> u64) -> Plot {
    let value = |class: &Class, engine| median(&class.of(engine, percentile)) / 1_000.0;
    let groups = classes
        .iter()
        .map(|class| (class.name.clone(), (0..ENGINES.len()).map(|engine| value(class, engine)).collect()));
    Plot {
        slug: format!("search-{name}"),
        title: format!("{name} of searches among {messages} messages"),
        shape: Shape::Bars {
            unit: "ms".to_owned(),
            legend: ENGINES.map(str::to_owned).to_vec(),
            groups: groups.collect(),
        },
    }
}
