//! Figure 5: reads of a message and of a page.

use std::io;
use std::sync::Arc;

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements};
use crate::compare::requests::Gets;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::{PAGE_SIZE, RunConfig};
use crate::compare::server_process::ServerProcess;
use crate::compare::system_under_test::SystemUnderTest;

pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, config.chats(), &[]).await?;
    config.post_all(&system.server.address, &system.paths, config.chats() * PAGE_SIZE).await?;
    system.settle().await?;
    for (name, paths, goal) in [
        ("GET of a message", message_paths(&system), Goal::AtLeast(0.50)),
        ("GET of a page of 50 messages", page_paths(&system), Goal::AtLeast(0.25)),
    ] {
        results.figures.push(Figure {
            number: 5,
            name: name.to_owned(),
            against: "a bare axum handler that answers the same bytes from memory".to_owned(),
            unit: "requests/s".to_owned(),
            goal,
            measured: Measurements::Ratio(gets_against_baseline(config, &system, paths).await?),
        });
    }
    Ok(())
}

/// Returns the paths of the first [`PAGE_SIZE`] messages of each chat.
pub(in crate::compare) fn message_paths(system: &SystemUnderTest) -> Vec<String> {
    system
        .paths
        .iter()
        .flat_map(|path| (1..=PAGE_SIZE).map(move |message| format!("{path}/{message}")))
        .collect()
}

/// Returns the paths of the last page of each chat.
pub(in crate::compare) fn page_paths(system: &SystemUnderTest) -> Vec<String> {
    system.paths.iter().map(|path| format!("{path}?limit={PAGE_SIZE}")).collect()
}

/// Measures how many GET requests of these paths are answered per second, compared with the baseline. The baseline
/// answers each request from memory, with the body of the system's response to the first path.
pub(super) async fn gets_against_baseline(
    config: &RunConfig,
    system: &SystemUnderTest,
    paths: Vec<String>,
) -> io::Result<Rounds> {
    let (_folder, file) = config.temporary_file("answer.json", &system.get(&paths[0]).await?)?;
    let baseline = ServerProcess::start_baseline(Some(&file))?;
    let (ours, theirs) = (Arc::new(Gets { paths }), Arc::new(Gets { paths: vec!["/answer".to_owned()] }));
    let get = async |address: &str, source: &Arc<Gets>| {
        let source = Arc::clone(source);
        Ok::<_, io::Error>(config.run_closed_loop(address, 200, source).await?.rate())
    };
    // The first requests warm up both servers and are not measured.
    get(&system.server.address, &ours).await?;
    get(&baseline.address, &theirs).await?;
    Rounds::measure(
        config.rounds,
        async |_| get(&system.server.address, &ours).await,
        async |_| get(&baseline.address, &theirs).await,
    )
    .await
}
