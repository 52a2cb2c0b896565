//! Runs Schemathesis against the server's OpenAPI document: sends requests that follow the document and requests that
//! break it, to all routes including the endless streams. No response may be a server error, or one that the document
//! does not describe.
//!
//! Schemathesis is installed from PyPI, at the versions in `requirements.txt`, into a virtual environment below
//! `target/tmp`. Where that is not possible, the test is skipped and a note says why.
//!
//! The seed is 1 by default. For another one: `SCHEMATHESIS_SEED=… cargo test -p chat-api --test schemathesis`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::api::{create_app, create_chat, create_message, message_path};
use harness::deployment::Deployment;
use harness::process::ProcessOptions;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis");
const REQUIREMENTS: &str = include_str!("requirements.txt");
const ADMIN_TOKEN: &str = "let-me-in";

/// Test cases for each operation in each phase: some 2,000 in all, in ten seconds of one core.
const MAX_EXAMPLES: &str = "10";

/// The check that is left out: that each request which the document allows is accepted. The server refuses some such
/// requests for reasons that no schema can express: a cursor of another list, two bounds in the wrong order, a name of
/// spaces.
const EXCLUDED_CHECKS: &str = "positive_data_acceptance";

#[tokio::test]
async fn no_response_is_a_server_error_or_missing_from_the_document() {
    let schemathesis = match install() {
        Ok(program) => program,
        Err(reason) => {
            // Not with `eprintln!`: the test harness captures it, and does not show it for a test that passes.
            let _ = writeln!(std::io::stderr(), "the test with Schemathesis was skipped: {reason}");
            return;
        }
    };
    let with_admin_token =
        |options: ProcessOptions| options.with_variables([("ADMIN_TOKEN", PathBuf::from(ADMIN_TOKEN))]);
    let server = Deployment::serve_with(with_admin_token).await;
    let client = server.client();
    let app = create_app(client, "first_app").await;
    for _ in 0..2 {
        let chat = create_chat(client, &app).await;
        for body in ["The quick brown fox", "a lazy dog", "Crème brûlée"] {
            create_message(client, &app, chat, body).await;
        }
    }
    client.delete(message_path(&app, 1, 2)).send().await.expect(204);

    let mut command = Command::new(schemathesis);
    command.arg("run").arg(format!("{}/openapi.json", server.processes()[0].url()));
    command.args(["--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")]);
    command.args(["--max-examples", MAX_EXAMPLES, "--exclude-checks", EXCLUDED_CHECKS]);
    command.args([
        "--generation-database",
        "none",
        "--request-timeout",
        "20",
        "--warnings",
        "off",
        "--no-color",
    ]);
    let seed = std::env::var("SCHEMATHESIS_SEED").unwrap_or_else(|_| "1".to_owned());
    command.args(["--seed", &seed]);
    command.envs([("SCHEMATHESIS_HOOKS", "hooks"), ("PYTHONPATH", FOLDER), ("PYTHONDONTWRITEBYTECODE", "1")]);
    command.envs([("CHAT_APP_TOKEN", app.as_str()), ("NO_PROXY", "127.0.0.1")]);
    let output = command.current_dir(server.folder()).output().expect("Schemathesis runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Returns the program, installed in a virtual environment of its own; or why it can't be installed.
fn install() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let (program, installed) = (folder.join("bin/schemathesis"), folder.join("installed-requirements.txt"));
    if fs::read_to_string(&installed).is_ok_and(|requirements| requirements == REQUIREMENTS) {
        return Ok(program);
    }
    let _ = writeln!(std::io::stderr(), "installing Schemathesis from PyPI into {}", folder.display());
    run(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
        "python3 is missing or can't make a virtual environment (Debian: apt-get install python3-venv)",
    )?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(
        pip.arg(format!("{FOLDER}/requirements.txt")),
        "pip can't install Schemathesis from PyPI; Schemathesis needs Python 3.10 or later",
    )?;
    fs::write(installed, REQUIREMENTS).expect("a file in target/tmp");
    Ok(program)
}

/// Runs a command. If the command fails, returns `reason` and the last line of the command's output.
fn run(command: &mut Command, reason: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{reason}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Err(format!("{reason}: {}", text.trim_end().lines().next_back().unwrap_or_default()))
}
