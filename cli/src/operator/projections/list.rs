//! `projections list`: lists the generations with their position, lag and rate.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use chat_operations::projections::Projections;
use chat_operations::projections::list::{Listed, list};
use clap::Args;
use tokio::time::sleep;

use super::common::{cancel_on_signal, open_projections, projections_failure};
use super::render::{format_millis, or_dash};
use crate::failure::Failure;
use crate::operator::answer::{self, Answer};
use crate::operator::common_args::{CommonArgs, OutputFormat};
use crate::operator::table::untruncated_table;

/// Time between two prints of the list.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Options {
    /// Repeat the list once a second until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) async fn run(options: &Options) -> ExitCode {
    let output = options.common.output;
    let projections = match open_projections(&options.common).await {
        Ok(projections) => projections,
        Err(failure) => return answer::print(output, Err(failure)),
    };
    if !options.watch {
        return answer::print(output, list_once(&projections).await);
    }
    let mut stop = match cancel_on_signal() {
        Ok(stop) => stop,
        Err(failure) => return answer::print(output, Err(failure)),
    };
    loop {
        let listing = list_once(&projections).await;
        if output == OutputFormat::Table && std::io::stdout().is_terminal() {
            // Clears the screen and moves to its top. If this write fails, writing the list fails as well and is
            // reported.
            let _ = std::io::stdout().write_all(b"\x1b[2J\x1b[H");
        }
        let code = answer::print(output, listing);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return code,
            () = sleep(REFRESH_INTERVAL) => {}
        }
    }
}

async fn list_once(projections: &Projections) -> Result<Answer, Failure> {
    let listed = list(projections).await.map_err(projections_failure)?;
    let headings = [
        "PROJECTION",
        "GENERATION",
        "STATE",
        "VERSION",
        "PROJECTOR",
        "POSITION",
        "HEAD",
        "LAG",
        "BEHIND",
        "RATE",
        "DEAD LETTERS",
        "LAST ERROR",
    ];
    let rows: Vec<_> = listed.iter().map(generation_row).collect();
    Answer::new(&listed, untruncated_table(headings, &rows))
}

fn generation_row(listed: &Listed) -> [String; 12] {
    [
        listed.name.as_str().to_owned(),
        listed.generation.0.to_string(),
        listed.generation_state.as_str().replace('_', " "),
        listed.version.to_string(),
        listed.state.as_str().to_owned(),
        or_dash(listed.position),
        listed.head.to_string(),
        or_dash(listed.lag_events),
        or_dash(listed.lag_ms.map(format_millis)),
        or_dash(listed.events_per_second.map(|rate| format!("{rate}/s"))),
        or_dash(listed.parked),
        or_dash(listed.last_error.as_ref()),
    ]
}
