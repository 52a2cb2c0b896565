//! `audit export`: writes events as JSON lines or CSV to a file or to standard output.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use chat_operations::atomic_file::{FileAccess, NewFile};
use chat_operations::audit::{
    ExportError, ExportFormat, Scan, export, unknown_type_diagnostics, unmatched_names,
};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::answer::{self, Answer, Diagnostic};
use super::super::progress::Progress;
use super::filter::AuditFilterArgs;
use super::list::ListOrder;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};

/// Arguments of `audit export`.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Format of the events
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// File to write to, which must not exist; it appears when it is complete [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Order of the events
    #[arg(long, value_name = "ORDER", default_value = "oldest")]
    order: ListOrder,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    filter: AuditFilterArgs,
}

/// Format of exported events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line
    Jsonl,
    /// Columns, with their names in the first line (RFC 4180)
    Csv,
}

pub(super) async fn run(arguments: &ExportArgs) -> ExitCode {
    match &arguments.out {
        Some(path) => answer::print(arguments.common.output, export_to_file(arguments, path.clone()).await),
        None => match export_to_stdout(arguments).await {
            Ok(()) => ExitCode::SUCCESS,
            // Standard output has events.
            Err(failure) => answer::report_to_stderr(arguments.common.output, &failure),
        },
    }
}

async fn export_to_file(arguments: &ExportArgs, path: PathBuf) -> Result<Answer, Failure> {
    let unwritable = |error: &(dyn std::error::Error + 'static)| {
        Failure::because(format!("{} can't be written", path.display()), error)
    };
    // The file contains message texts.
    let mut file = NewFile::create(&path, FileAccess::OwnerOnly).map_err(|error| unwritable(&error))?;
    let (exported, warnings) = export_events(arguments, &mut file).await?;
    let written = exported.map_err(|error| match error {
        ExportError::EventStore(error) => event_store_failure(error),
        other => unwritable(&other),
    })?;
    file.persist().map_err(|error| unwritable(&error))?;
    let text = format!("{written} events are in {}", path.display());
    let answer = Answer::new(&json!({ "events": written, "file": path.display().to_string() }), text)?;
    Ok(answer.with_diagnostics(warnings))
}

async fn export_to_stdout(arguments: &ExportArgs) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout());
    let (exported, warnings) = export_events(arguments, &mut out).await?;
    answer::report_diagnostics(&warnings);
    match exported {
        Ok(_) => Ok(()),
        // The reader has closed the pipe.
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(ExportError::EventStore(error)) => Err(event_store_failure(error)),
        Err(other) => Err(Failure::because("the export ended early", &other)),
    }
}

/// Exports the events. Also returns warnings about the filter.
async fn export_events(
    arguments: &ExportArgs,
    out: &mut (dyn Write + Send),
) -> Result<(Result<u64, ExportError>, Vec<Diagnostic>), Failure> {
    arguments.filter.check()?;
    let context = CommandContext::open(&arguments.common).await?;
    let filter = arguments.filter.parse(&*context.event_store).await?;
    let format = match arguments.format {
        Format::Jsonl => ExportFormat::JsonLines,
        Format::Csv => ExportFormat::Csv,
    };
    let mut warnings =
        unknown_type_diagnostics(&filter.unknown_types().map(str::to_owned).collect::<Vec<_>>());
    let mut progress = Progress::start("Exporting", None);
    let scan = Scan::new(filter.clone(), arguments.order.into());
    let exported =
        export(&*context.event_store, scan, format, out, |scanned| progress.set_done(scanned)).await;
    drop(progress);
    if matches!(exported, Ok(0)) {
        warnings.extend(unmatched_names(&*context.event_store, &filter).await.map_err(event_store_failure)?);
    }
    Ok((exported, warnings))
}
