//! `--server`: sends an operator action to the admin API of a running server instead of executing it on the storage.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use chat_operations::envelope::Diagnostic;
use chat_operations::server_client::{ServerAnswer, ServerClient, ServerError, ServerReport, ServerUrl};
use clap::Args;
use serde_json::{Value, json};

use super::answer::Answer;
use super::common_args::ExecutionArgs;
use super::interruption::unless_interrupted;
use super::progress::Progress;
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

impl ServerArgs {
    /// Whether a server is named.
    pub(super) fn is_named(&self) -> bool {
        self.server.is_some()
    }

    /// Requests an action or its dry run from the server, and waits until the job of an action has ended. Returns
    /// `None` if no server is named. `path` is the path of the action below `/admin/v1/`.
    pub(super) async fn act(
        &self,
        path: &str,
        options: Value,
        execution: &ExecutionArgs,
    ) -> Option<Result<Answer, Failure>> {
        let server = self.server.as_ref()?;
        Some(act(server, self.token_file.as_deref(), path, options, execution).await)
    }
}

async fn act(
    server: &ServerUrl,
    token_file: Option<&Path>,
    path: &str,
    mut body: Value,
    execution: &ExecutionArgs,
) -> Result<Answer, Failure> {
    if execution.execute {
        body["execute"] = true.into();
        body["reason"] = execution.action.reason()?.into();
    }
    let token = read_token(token_file)?;
    let client = ServerClient::new(server, token.as_deref()).map_err(server_failure)?;
    let job_id = match client.act(path, &body).await.map_err(server_failure)? {
        ServerAnswer::DryRun(ServerReport { status, data, mut diagnostics }) => {
            diagnostics.push(Diagnostic::note("--execute with --reason does it"));
            return answer(&data, "", diagnostics, status == "finding");
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
    let diagnostics = serde_json::from_value(job["diagnostics"].clone()).unwrap_or_default();
    answer(&job["report"], &format!("job {job_id}: {state}\n"), diagnostics, state == "finding")
}

/// Creates the answer from the data of a server's report. Its text is `heading`, followed by the data as indented JSON.
fn answer(
    data: &Value,
    heading: &str,
    diagnostics: Vec<Diagnostic>,
    has_findings: bool,
) -> Result<Answer, Failure> {
    let answer = Answer::new(data, format!("{heading}{data:#}"))?;
    Ok(answer.with_diagnostics(diagnostics).with_finding(has_findings))
}

/// The maximum size of a file with a token, in bytes.
const MAX_TOKEN_FILE_BYTES: u64 = 4096;

/// Reads the token. A server on loopback may need none.
fn read_token(file: Option<&Path>) -> Result<Option<String>, Failure> {
    if let Some(path) = file {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_TOKEN_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| Failure::because(format!("{} can't be read", path.display()), &error))?;
        if text.len() as u64 > MAX_TOKEN_FILE_BYTES {
            return Err(Failure::new(format!("{} is no file with a token: it is too large", path.display())));
        }
        return match text.trim() {
            "" => Err(Failure::new(format!("{} has no token", path.display()))),
            token => Ok(Some(token.to_owned())),
        };
    }
    Ok(first_token(TOKEN_VARIABLES.iter().filter_map(|name| std::env::var(name).ok())))
}

/// Returns the first value that is not empty.
fn first_token(values: impl Iterator<Item = String>) -> Option<String> {
    values.map(|value| value.trim().to_owned()).find(|token| !token.is_empty())
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn server_failure(error: ServerError) -> Failure {
    match std::error::Error::source(&error) {
        Some(source) => Failure::because(&error, source),
        None => Failure::new(error.to_string()),
    }
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
        let first = |values: &[&str]| first_token(values.iter().map(|value| (*value).to_owned()));
        assert_eq!(first(&["", "b"]).as_deref(), Some("b"));
        assert_eq!(first(&["a", "b"]).as_deref(), Some("a"));
        assert_eq!(first(&[" ", ""]), None);
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
        assert_eq!(read_token(Some(&path)).unwrap().as_deref(), Some("abc"));
    }
}
