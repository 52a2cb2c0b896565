//! `chat-api operators`: adds and lists the operators who may use the admin routes of a server.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chat_files::durable_fs::sync_parent_dir;
use chat_web::operators::{OperatorEntry, OperatorList, OperatorName, OperatorToken, Scopes};
use clap::{Args, Subcommand};
use serde_json::json;

use super::answer::{self, Answer, Severity};
use super::common_args::OutputFormat;
use super::table::table_with_wrapped_last_column;
use crate::data_owner::file_failure;
use crate::failure::Failure;
use crate::operator_access;

/// The beginning of a new file.
const HEADER: &str = "# Operators: name, scopes (read or read,act), SHA-256 of the token.\n";

/// The subcommands of `operators`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Add an operator to a file and print a new token, which is not stored anywhere; servers that use the file accept
    /// the operator within seconds
    #[command(after_help = "\
Examples:
  chat-api operators add alice --scope read,act --operators operators.txt
  chat-api operators add dashboard --scope read --operators operators.txt")]
    Add(AddArgs),
    /// List the operators of a file
    #[command(after_help = "Example:\n  chat-api operators list --operators operators.txt")]
    List(FileArgs),
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Name of the operator, as actions record it
    #[arg(value_parser = OperatorName::parse)]
    name: OperatorName,
    /// What the operator may do: `read`, or `read,act`
    #[arg(long, value_name = "SCOPES")]
    scope: Scopes,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Args)]
pub(crate) struct FileArgs {
    /// File with the operators; servers that read it have the same option
    #[arg(long, env = "OPERATORS_FILE", value_name = "FILE")]
    operators: PathBuf,
    /// Format of the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: OutputFormat,
}

pub(super) fn run(command: &Command) -> ExitCode {
    match command {
        Command::Add(arguments) => answer::print(arguments.file.output, add(arguments)),
        Command::List(arguments) => answer::print(arguments.output, list(arguments)),
    }
}

fn add(arguments: &AddArgs) -> Result<Answer, Failure> {
    let AddArgs { name, scope, file } = arguments;
    let path = &file.operators;
    let existing = read_or_empty(path)?;
    let token =
        OperatorToken::generate().map_err(|error| Failure::because("no token could be generated", &error))?;
    let entry = OperatorEntry { name: name.clone(), scopes: *scope, token_hash: token.hash() };
    let added = text_to_append(&existing, &entry);
    // A server would refuse the file for the same errors.
    OperatorList::parse(&format!("{existing}{added}"))
        .map_err(|error| Failure::new(format!("{name} was not added: {}", error.reason)))?;
    append(path, &added)
        .map_err(|error| file_failure(&format!("{} can't be written", path.display()), path, &error))?;
    let data = json!({ "name": name.as_str(), "scopes": scope.as_str(), "token": token.expose() });
    let note = format!("{name} was added to {}; the token is shown only now", path.display());
    Ok(Answer::new(&data, token.expose())?.with_diagnostic(Severity::Note, note))
}

/// Returns the text of the file, or an empty text if there is no file yet.
fn read_or_empty(path: &Path) -> Result<String, Failure> {
    match path.try_exists() {
        Ok(false) => Ok(String::new()),
        _ => operator_access::read(path).map(|(text, _)| text),
    }
}

/// Returns the text that adds an entry when it is appended to the text `existing`. It begins with the header if
/// `existing` is empty, or with a line end if the last line of `existing` has none.
fn text_to_append(existing: &str, entry: &OperatorEntry) -> String {
    let before = match existing {
        "" => HEADER,
        text if text.ends_with('\n') => "",
        _ => "\n",
    };
    format!("{before}{entry}\n")
}

/// Appends a text to a file in one write, so that a server reads all of the text or nothing.
fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync_parent_dir(path)
}

fn list(arguments: &FileArgs) -> Result<Answer, Failure> {
    let (_, list) = operator_access::read(&arguments.operators)?;
    let operators: Vec<_> = list
        .entries()
        .iter()
        .map(|entry| json!({ "name": entry.name.as_str(), "scopes": entry.scopes.as_str() }))
        .collect();
    let rows: Vec<_> = list
        .entries()
        .iter()
        .map(|entry| [entry.name.as_str().to_owned(), entry.scopes.as_str().to_owned()])
        .collect();
    Answer::new(&json!({ "operators": operators }), table_with_wrapped_last_column(["NAME", "SCOPES"], &rows))
}
