//! Figure 5: reading a message, and a page.

use std::io;
use std::sync::Arc;

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements};
use crate::compare::requests::Gets;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::{PAGE_SIZE, RunConfig};
use crate::compare::server_process::Server;
use crate::compare::system_under_test::Stage;

pub(super) async fn measure(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let stage = Stage::new(setting, setting.chats(), &[]).await?;
    setting.post_all(&stage.server.address, &stage.paths, setting.chats() * PAGE_SIZE).await?;
    stage.catch_up().await?;
    for (name, paths, goal) in [
        ("GET of a message", message_paths(&stage), Goal::AtLeast(0.50)),
        ("GET of a page of 50 messages", page_paths(&stage), Goal::AtLeast(0.25)),
    ] {
        findings.figures.push(Figure {
            number: 5,
            name: name.to_owned(),
            against: "a bare axum handler that answers the same bytes from memory".to_owned(),
            unit: "requests/s".to_owned(),
            goal,
            measured: Measurements::Ratio(gets_against_baseline(setting, &stage, paths).await?),
        });
    }
    Ok(())
}

/// The first messages of each chat.
pub(super) fn message_paths(stage: &Stage) -> Vec<String> {
    stage
        .paths
        .iter()
        .flat_map(|path| (1..=PAGE_SIZE).map(move |message| format!("{path}/{message}")))
        .collect()
}

/// The last page of each chat.
pub(super) fn page_paths(stage: &Stage) -> Vec<String> {
    stage.paths.iter().map(|path| format!("{path}?limit={PAGE_SIZE}")).collect()
}

/// `GET`s of these paths a second, against those of the first one's bytes from memory.
pub(super) async fn gets_against_baseline(
    setting: &RunConfig,
    stage: &Stage,
    paths: Vec<String>,
) -> io::Result<Rounds> {
    let (_kept, file) = setting.file("answer.json", &stage.get(&paths[0]).await?)?;
    let bare = Server::bare(Some(&file))?;
    let (ours, theirs) = (Arc::new(Gets { paths }), Arc::new(Gets { paths: vec!["/answer".to_owned()] }));
    let get = async |address: &str, source: &Arc<Gets>| {
        let source = Arc::clone(source);
        Ok::<_, io::Error>(setting.send_at_full_speed(address, 200, source).await?.rate())
    };
    // What is loaded once is not what is measured.
    get(&stage.server.address, &ours).await?;
    get(&bare.address, &theirs).await?;
    Rounds::measure(
        setting.rounds,
        async |_| get(&stage.server.address, &ours).await,
        async |_| get(&bare.address, &theirs).await,
    )
    .await
}
