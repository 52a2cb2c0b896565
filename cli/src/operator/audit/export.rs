//! `audit export`: writes events as JSON lines or CSV to a file or to standard output.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use chat_operations::atomic_file::{FileAccess, NewFile};
use chat_operations::audit::{
    ExportError, ExportFormat, Scan, export, unknown_type_diagnostics, unmatched_names,
};
use chat_operations::counted::counted;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::answer::{self, Answer, Diagnostic};
use super::super::progress::Progress;
use super::filter::AuditFilterArgs;
use super::list::ListOrder;
use crate::data_owner::file_failure;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};
use crate::operator::interruption::unless_interrupted;
use crate::operator::stdout;

/// Arguments of `audit export`.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Format of the events
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// File to write to, which must not exist yet; it appears when it is complete [default: standard output; the answer
    /// of `-o json` is then the last line of standard error]
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
    let output = arguments.common.output;
    let Some(path) = &arguments.out else {
        return match export_to_stdout(arguments).await {
            Ok(answer) => answer::print_to_stderr(output, answer),
            Err(code) => code,
        };
    };
    let unfinished = format!("{} was not written", path.display());
    answer::print(
        output,
        unless_interrupted(unfinished, Box::pin(export_to_file(arguments, path.clone()))).await,
    )
}

async fn export_to_file(arguments: &ExportArgs, path: PathBuf) -> Result<Answer, Failure> {
    let unwritable = |error: &(dyn std::error::Error + 'static)| {
        Failure::because(format!("{} can't be written", path.display()), error)
    };
    // The file contains message texts.
    let mut file = NewFile::create(&path, FileAccess::OwnerOnly)
        .map_err(|error| file_failure(&format!("{} can't be written", path.display()), &path, &error))?;
    let (exported, warnings) = export_events(arguments, &mut file).await?;
    let written = exported.map_err(|error| match error {
        ExportError::EventStore(error) => event_store_failure(error),
        other => unwritable(&other),
    })?;
    file.persist().map_err(|error| unwritable(&error))?;
    let text = format!("{}: {}", path.display(), counted(written, "event"));
    let answer = Answer::new(&json!({ "events": written, "file": path.display().to_string() }), text)?;
    Ok(answer.with_diagnostics(warnings))
}

/// Writes the events to standard output. Returns the answer or failure to print, or only an exit code if standard
/// output can't be written.
async fn export_to_stdout(arguments: &ExportArgs) -> Result<Result<Answer, Failure>, ExitCode> {
    let mut out = BufWriter::new(io::stdout());
    let (exported, warnings) = match export_events(arguments, &mut out).await {
        Ok(exported) => exported,
        Err(failure) => return Ok(Err(failure)),
    };
    Ok(match exported {
        Ok(written) => Answer::new(&json!({ "events": written, "file": null }), "")
            .map(|answer| answer.with_diagnostics(warnings)),
        Err(ExportError::Write(error)) => return Err(stdout::write_failure(&error)),
        Err(ExportError::EventStore(error)) => Err(event_store_failure(error)),
        Err(other) => Err(Failure::because("the export ended early", &other)),
    })
}

/// Exports the events. Returns the number of exported events or the error that ended the export, and warnings about the
/// filter.
async fn export_events(
    arguments: &ExportArgs,
    out: &mut (dyn Write + Send),
) -> Result<(Result<u64, ExportError>, Vec<Diagnostic>), Failure> {
    arguments.filter.check()?;
    let context = CommandContext::open(&arguments.common).await?;
    answer::report_log_warning();
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
