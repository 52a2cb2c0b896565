//! `--server`: sends an operator action to the admin API of a running server instead of executing it on the storage, or
//! reads a list there.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use chat_operations::envelope::Diagnostic;
use chat_operations::server_client::{ServerAnswer, ServerClient, ServerError, ServerReport, ServerUrl};
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::common_args::ExecutionArgs;
use super::interruption::unless_interrupted;
use super::progress::Progress;
use super::terminal_text::escaped;
use crate::data_owner::file_failure;
use crate::failure::Failure;

/// The variables that may have the token, in order of precedence.
const TOKEN_VARIABLES: [&str; 2] = ["CHAT_API_TOKEN", "ADMIN_TOKEN"];

/// Arguments of commands that can act through a server.
#[derive(Args)]
pub(super) struct ServerArgs {
    /// Act through the server at this URL instead of on the storage, as the operator whose token is in CHAT_API_TOKEN
    /// or ADMIN_TOKEN. --operator, --wait and the options of the storage then have no effect
    #[arg(long, value_name = "URL", value_parser = ServerUrl::parse)]
    server: Option<ServerUrl>,
    /// File with the operator's token, instead of the variable
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
}

/// Arguments of commands that can read from a server.
#[derive(Args)]
pub(super) struct ReadServerArgs {
    /// Ask the server at this URL instead of reading the storage, as the operator whose token is in CHAT_API_TOKEN or
    /// ADMIN_TOKEN. The options of the storage then have no effect
    #[arg(long, value_name = "URL", value_parser = ServerUrl::parse)]
    server: Option<ServerUrl>,
    /// File with the operator's token, instead of the variable
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
}

/// An action to request from a server, and the renderers of its reports, which are those of the same command without
/// `--server`.
pub(super) struct ServerAction<DryRunText, ReportText> {
    /// The path of the action below `/admin/v1/`.
    pub(super) path: &'static str,
    /// The options of the action.
    pub(super) options: Value,
    /// Formats the report of a dry run.
    pub(super) dry_run_text: DryRunText,
    /// Formats the report of a job.
    pub(super) report_text: ReportText,
}

impl ServerArgs {
    /// Whether a server is named.
    pub(super) fn is_named(&self) -> bool {
        self.server.is_some()
    }

    /// Requests an action or its dry run from the server, and waits until the job of an action has ended. Returns
    /// `None` if no server is named.
    pub(super) async fn act<Plan, Outcome>(
        &self,
        action: ServerAction<impl Fn(&Plan) -> String, impl Fn(&Outcome) -> String>,
        execution: &ExecutionArgs,
    ) -> Option<Result<Answer, Failure>>
    where
        Plan: DeserializeOwned,
        Outcome: DeserializeOwned,
    {
        let server = self.server.as_ref()?;
        Some(act(server, self.token_file.as_deref(), action, execution).await)
    }
}

impl ReadServerArgs {
    /// Connects to the server. Returns `None` if none is named.
    pub(super) fn connect(&self) -> Option<Result<ServerReader, Failure>> {
        let server = self.server.as_ref()?;
        Some(Connection::open(server, self.token_file.as_deref()).map(ServerReader))
    }
}

/// Reads reports from a server.
pub(super) struct ServerReader(Connection);

impl ServerReader {
    /// Reads the report at a path below `/admin/v1/`, and formats it as the same command does without `--server`.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        text: impl Fn(&T) -> String,
    ) -> Result<Answer, Failure> {
        let Self(connection) = self;
        let report = connection.client.read(path).await.map_err(|error| connection.failure(&error))?;
        let ServerReport { status, data, diagnostics } = report;
        answer(&data, report_text(&data, text), diagnostics, status == "finding")
    }
}

/// Says where a token comes from.
const MAKE_TOKEN: &str = "If the server has a file of operators (OPERATORS_FILE), `chat-api operators add NAME --scope \
     read,act --operators FILE` on its machine makes a token, and `chat-api operators list --operators FILE` lists the \
     operators. Else its ADMIN_TOKEN is the token";

/// A client, and where its token comes from.
struct Connection {
    client: ServerClient,
    token_source: Option<String>,
}

impl Connection {
    fn open(server: &ServerUrl, token_file: Option<&Path>) -> Result<Self, Failure> {
        let token = read_token(token_file)?;
        let client = ServerClient::new(server, token.as_ref().map(|token| token.text.as_str()), report_retry)
            .map_err(|error| server_failure(&error))?;
        Ok(Self { client, token_source: token.map(|token| token.source) })
    }

    /// Describes an error of a request. A refused token gets a hint.
    fn failure(&self, error: &ServerError) -> Failure {
        let ServerError::Refused { code, detail } = error else { return server_failure(error) };
        let hint = match (&self.token_source, code.as_str()) {
            (None, "admin_token_missing") => format!(
                "set {} to the token of an operator, or name a file that has it with --token-file. {MAKE_TOKEN}",
                TOKEN_VARIABLES[0]
            ),
            (Some(source), "admin_token_wrong") => format!(
                "the token is that of {source}. {MAKE_TOKEN}"
            ),
            // A gateway, or a server of an earlier version. Servers say so themselves.
            (_, "route_not_found") if !detail.contains("admin API") => {
                "is this the --listen-addr, or the --admin-listen-addr if there is one, of `serve` or `query-api`? Only \
                 they serve the admin API, and a gateway does not forward it"
                    .to_owned()
            }
            _ => return server_failure(error),
        };
        Failure::new(format!("{error}. {}{}", hint[..1].to_uppercase(), &hint[1..]))
    }
}

async fn act<Plan: DeserializeOwned, Outcome: DeserializeOwned>(
    server: &ServerUrl,
    token_file: Option<&Path>,
    action: ServerAction<impl Fn(&Plan) -> String, impl Fn(&Outcome) -> String>,
    execution: &ExecutionArgs,
) -> Result<Answer, Failure> {
    let ServerAction { path, options: mut body, dry_run_text, report_text: outcome_text } = action;
    if execution.execute {
        body["execute"] = true.into();
        body["reason"] = execution.action.reason()?.into();
    }
    let connection = Connection::open(server, token_file)?;
    let client = &connection.client;
    let job_id = match client.act(path, &body).await.map_err(|error| connection.failure(&error))? {
        ServerAnswer::DryRun(ServerReport { status, data, mut diagnostics }) => {
            diagnostics.push(Diagnostic::note("--execute with --reason does it"));
            return answer(&data, report_text(&data, dry_run_text), diagnostics, status == "finding");
        }
        ServerAnswer::Requested(job_id) => job_id,
    };
    let mut progress: Option<Progress> = None;
    let show_progress = |job: &Value| {
        if let (Some(done), total) = (job["progress"]["done"].as_u64(), job["progress"]["total"].as_u64()) {
            let progress = progress.get_or_insert_with(|| Progress::start("Job", total));
            progress.set_total(total);
            progress.set_done(done);
        }
    };
    let unfinished = format!("the job {job_id} goes on at the server");
    let follow = async {
        client.follow(&job_id, show_progress).await.map_err(|error| {
            let lost = "was requested, but can't be followed";
            Failure::because(format!("the job {job_id} {lost}; GET /admin/v1/jobs/{job_id} shows it"), &error)
        })
    };
    let job = unless_interrupted(unfinished, follow).await?;
    drop(progress);
    let state = job["state"].as_str().unwrap_or_default();
    if state == "failed" {
        let error = job["error"].as_str().unwrap_or_default();
        return Err(Failure::new(format!("the job {job_id} failed: {error}")));
    }
    let mut diagnostics: Vec<_> = serde_json::from_value(job["diagnostics"].clone()).unwrap_or_default();
    let report = &job["report"];
    if report["truncated"] == true {
        diagnostics.push(Diagnostic::note("the report is shortened: it was too large to be recorded whole"));
    }
    let text = format!("job {job_id}: {state}\n{}", report_text(report, outcome_text));
    answer(report, text, diagnostics, state == "finding")
}

/// Creates the answer from the data of a server's report.
fn answer(
    data: &Value,
    text: String,
    diagnostics: Vec<Diagnostic>,
    has_findings: bool,
) -> Result<Answer, Failure> {
    Ok(Answer::new(data, text)?.with_diagnostics(diagnostics).with_finding(has_findings))
}

/// Formats the data of a report. A report that this program does not know, such as one of a newer server, is shown as
/// an indented list of its fields.
fn report_text<T: DeserializeOwned>(data: &Value, text: impl Fn(&T) -> String) -> String {
    if let Ok(report) = T::deserialize(data) {
        return text(&report);
    }
    let mut lines = String::new();
    push_fields(&mut lines, data, 0);
    lines
}

/// Appends the fields of an object or the items of a list, one a line, indented by `depth` levels.
fn push_fields(lines: &mut String, value: &Value, depth: usize) {
    let mut push = |label: &str, value: &Value| {
        lines.extend(std::iter::repeat_n("  ", depth));
        lines.push_str(&escaped(label));
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                lines.push('\n');
                push_fields(lines, value, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                lines.push('\n');
                push_fields(lines, value, depth + 1);
            }
            Value::String(text) => lines.extend([" ", &*escaped(text), "\n"]),
            Value::Null | Value::Object(_) | Value::Array(_) => lines.push_str(" -\n"),
            other => lines.extend([" ", &*other.to_string(), "\n"]),
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                push(&format!("{}:", name.replace('_', " ")), value);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| push("-", item)),
        _ => {}
    }
}

/// The maximum size of a file with a token, in bytes.
const MAX_TOKEN_FILE_BYTES: u64 = 4096;

/// A token, and where it was read.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    text: String,
    source: String,
}

/// Reads the token. A server on loopback may need none.
fn read_token(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    if let Some(path) = file {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_TOKEN_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| file_failure(&format!("{} can't be read", path.display()), path, &error))?;
        if text.len() as u64 > MAX_TOKEN_FILE_BYTES {
            return Err(Failure::new(format!("{} is no file with a token: it is too large", path.display())));
        }
        return match text.trim() {
            "" => Err(Failure::new(format!("{} has no token", path.display()))),
            token => Ok(Some(Token { text: token.to_owned(), source: path.display().to_string() })),
        };
    }
    Ok(first_token(TOKEN_VARIABLES.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?)))))
}

/// Returns the first value that is not empty. Each comes with the name of its variable.
fn first_token<'a>(variables: impl Iterator<Item = (&'a str, String)>) -> Option<Token> {
    variables
        .map(|(name, value)| Token { text: value.trim().to_owned(), source: name.to_owned() })
        .find(|token| !token.text.is_empty())
}

fn server_failure(error: &ServerError) -> Failure {
    match std::error::Error::source(error) {
        Some(source) => Failure::because(error, source),
        None => Failure::new(error.to_string()),
    }
}

/// Reports that a request is sent again, and why.
fn report_retry(error: &ServerError) {
    let message = format!("{}; trying again for up to a minute", server_failure(error));
    answer::report_diagnostics(&[Diagnostic::note(message)]);
}

/// Returns the names of projections as a JSON array, as the admin API takes them.
pub(super) fn projection_names(names: &[chat_domain::projection::ProjectionName]) -> Value {
    json!(names.iter().map(|name| name.as_str()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_skipped() {
        let first = |values: [&str; 2]| {
            let variables = TOKEN_VARIABLES.into_iter().zip(values.map(str::to_owned));
            first_token(variables).map(|token| (token.text, token.source))
        };
        assert_eq!(first(["", "b"]), Some(("b".to_owned(), "ADMIN_TOKEN".to_owned())));
        assert_eq!(first(["a", "b"]), Some(("a".to_owned(), "CHAT_API_TOKEN".to_owned())));
        assert_eq!(first([" ", ""]), None);
    }

    #[test]
    fn a_token_file_that_is_empty_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "\n").unwrap();
        let refused = read_token(Some(&path)).unwrap_err().to_string();
        assert_eq!(refused, format!("{} has no token", path.display()));
        // A file without an end is refused as well.
        let endless = read_token(Some(Path::new("/dev/zero"))).unwrap_err().to_string();
        assert!(endless.ends_with("it is too large"), "{endless}");
        std::fs::write(&path, "abc\n").unwrap();
        assert_eq!(read_token(Some(&path)).unwrap().map(|token| token.text).as_deref(), Some("abc"));
    }

    #[test]
    fn an_unknown_report_is_shown_as_an_indented_list_of_its_fields() {
        let report = json!({
            "built_at": 17,
            "note": null,
            "steps": [{ "stream": "app-x\u{1b}", "done": true }, "x"],
            "none": [],
        });
        let text = report_text(&report, |_: &Vec<String>| unreachable!());
        let expected =
            "built at: 17\nnone: -\nnote: -\nsteps:\n  -\n    done: true\n    stream: app-x\\u{1b}\n  - x\n";
        assert_eq!(text, expected);
    }
}
