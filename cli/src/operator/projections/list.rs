//! `projections list`: lists the generations with their position, lag and rate.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use chat_operations::projections::Projections;
use chat_operations::projections::list::{GenerationList, ListedGeneration, ListedProjectorState, list};
use clap::Args;
use tokio::time::sleep;

use super::common::{open_projections, projections_failure};
use super::render::{format_millis, or_dash};
use crate::failure::Failure;
use crate::operator::answer::{self, Answer};
use crate::operator::common_args::{CommonArgs, OutputFormat};
use crate::operator::server::{ReadServerArgs, ServerReader};
use crate::operator::stdout;
use crate::operator::table::{Column, table_with_wrapped_last_column};
use crate::operator::terminal_text::escaped;
use crate::signals::{PRINTING_GRACE_PERIOD, ShutdownSignal};

/// Time between two prints of the list.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Options {
    /// Repeat the list once a second until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: ReadServerArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// What the generations are read from.
enum Source {
    Storage(Projections),
    Server(Box<ServerReader>),
}

pub(super) async fn run(options: &Options) -> ExitCode {
    let output = options.common.output;
    let source = match options.server.connect() {
        Some(server) => server.map(|server| Source::Server(Box::new(server))),
        None => open_projections(&options.common).await.map(Source::Storage),
    };
    let source = match source {
        Ok(source) => source,
        Err(failure) => return answer::print(output, Err(failure)),
    };
    if !options.watch {
        return answer::print(output, list_once(&source).await);
    }
    let stop = match ShutdownSignal::listen(PRINTING_GRACE_PERIOD) {
        Ok(stop) => stop,
        Err(failure) => return answer::print(output, Err(failure)),
    };
    loop {
        let listing = list_once(&source).await;
        if output == OutputFormat::Table && std::io::stdout().is_terminal() {
            // Clears the screen and moves to its top. If this write fails, writing the list fails as well and is
            // reported.
            let _ = std::io::stdout().write_all(b"\x1b[2J\x1b[H");
        }
        let code = answer::print(output, listing);
        tokio::select! {
            () = stop.received() => return code,
            () = stdout::closed() => return stdout::broken_pipe_exit_code(),
            () = sleep(REFRESH_INTERVAL) => {}
        }
    }
}

async fn list_once(source: &Source) -> Result<Answer, Failure> {
    let projections = match source {
        Source::Storage(projections) => projections,
        Source::Server(server) => return server.read("projections", list_text).await,
    };
    let list = GenerationList { generations: list(projections).await.map_err(projections_failure)? };
    Answer::from_report(&list, list_text(&list))
}

fn list_text(list: &GenerationList) -> String {
    let columns = [
        Column::whole("PROJECTION"),
        Column::whole("STATE"),
        Column::shrinkable_to(8, "PROJECTOR"),
        Column::whole("POSITION"),
        Column::whole("LAG"),
        Column::whole("RATE"),
        Column::whole("DEAD LETTERS"),
    ];
    let rows: Vec<_> = list.generations.iter().map(generation_row).collect();
    let mut text = table_with_wrapped_last_column(columns, &rows);
    for ListedGeneration { projection, generation, state, last_error, .. } in &list.generations {
        // A missing generation is most often on another machine, which is no error.
        if let Some(error) = last_error.as_ref().filter(|_| *state != ListedProjectorState::Missing) {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{} {}: {}", projection.as_str(), generation.0, escaped(error));
        }
    }
    text
}

fn generation_row(listed: &ListedGeneration) -> [String; 7] {
    let lag = match (listed.lag_events, listed.lag_ms.map(format_millis)) {
        (Some(events), Some(time)) => format!("{events}, {time}"),
        (events, time) => or_dash(events.map(|events| events.to_string()).or(time)),
    };
    [
        format!("{} {}", listed.projection.as_str(), listed.generation.0),
        listed.generation_state.as_str().replace('_', " "),
        listed.state.as_str().to_owned(),
        or_dash(listed.position),
        lag,
        or_dash(listed.events_per_second.map(|rate| format!("{rate}/s"))),
        or_dash(listed.pending_dead_letters),
    ]
}
