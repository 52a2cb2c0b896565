//! Generates clients from the OpenAPI document of a running server, runs a session with each, and lints the document.
//! The generators and linters are installed once, in the build's own folder.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use harness::deployment::Deployment;
use serde_json::Value;
use tempfile::TempDir;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/generated_clients");

/// The generator of Python clients. The packages that the clients import are installed with it.
const PYTHON_GENERATOR: &str = "openapi-python-client==0.29.1";

/// The programs of `package.json` are installed by one test at a time.
static NPM: Mutex<()> = Mutex::new(());

/// Runs a command to its end and returns its standard output.
fn run(command: &mut Command) -> String {
    let label = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{label}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{label} failed:\n{stdout}{stderr}");
    stdout
}

fn note(text: &str) {
    // Unlike the output of `eprintln!`, this is not captured.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Returns whether a program runs successfully with the arguments `check`. If it does not, notes that a test was
/// skipped because it needs `needed`.
fn has(program: &str, check: &[&str], needed: &str) -> bool {
    let found = Command::new(program).args(check).output().is_ok_and(|output| output.status.success());
    if !found {
        note(&format!("a test of generated clients was skipped: it needs {needed}"));
    }
    found
}

/// Returns a folder of the build for installed programs.
fn tools_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated-clients").join(name)
}

/// Installs the generator in a Python environment, and returns the folder of the environment's programs; `None` without
/// a recent Python.
fn install_python_generator() -> Option<PathBuf> {
    let version_check = "import sys, venv; sys.exit(sys.version_info < (3, 10))";
    if !has("python3", &["-c", version_check], "Python 3.10 or later with the module venv") {
        return None;
    }
    let folder = tools_folder(PYTHON_GENERATOR);
    let programs = folder.join("bin");
    if !programs.join("openapi-python-client").exists() {
        note("installing openapi-python-client for a test");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(programs.join("pip")).args(["install", "--quiet", PYTHON_GENERATOR]));
    }
    Some(programs)
}

/// Installs the programs of `package.json`, and returns their folder `node_modules`; `None` without npm or a recent
/// Node.
fn install_node_programs() -> Option<PathBuf> {
    let version_check =
        "const [a, b] = process.versions.node.split('.'); process.exit(a > 20 || a == 20 && b >= 19 ? 0 : 1)";
    if !has("node", &["-e", version_check], "Node 20.19 or later") || !has("npm", &["--version"], "npm") {
        return None;
    }
    let _one_at_a_time = NPM.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tools_folder("npm");
    // The second file is a copy of the `package.json` whose programs are installed.
    let (package, installed) = (format!("{FILES}/package.json"), folder.join("installed.json"));
    let package = fs::read(package).expect("package.json");
    if fs::read(&installed).ok().as_ref() != Some(&package) {
        note("installing @hey-api/openapi-ts, redocly and spectral for a test");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("package.json"), &package).expect("package.json");
        let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"];
        run(Command::new("npm").args(install).current_dir(&folder));
        fs::write(installed, &package).expect("a copy of package.json");
    }
    Some(folder.join("node_modules"))
}

/// A running server, and a folder with its OpenAPI document.
struct Server {
    _deployment: Deployment,
    url: String,
    folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let deployment = Deployment::serve().await;
        let folder = tempfile::tempdir().expect("a folder");
        let document = deployment.client().get("/openapi.json").send().await.expect(200);
        fs::write(folder.path().join("openapi.json"), &document.body).expect("the document");
        let url = deployment.client().url_of("");
        Self { _deployment: deployment, url, folder }
    }

    /// Creates a command that runs in the server's folder, and copies files of [`FILES`] into that folder.
    fn command(&self, program: impl AsRef<Path>, files: &[&str]) -> Command {
        for file in files {
            fs::copy(Path::new(FILES).join(file), self.folder.path().join(file)).expect(file);
        }
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.folder).env("CHAT_API_URL", &self.url).env("NO_PROXY", "127.0.0.1");
        command
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_python_client_runs_a_session() {
    let Some(programs) = install_python_generator() else { return };
    let server = Server::start().await;
    // The generator formats its output with programs of the same environment.
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [programs.clone()].into_iter().chain(env::split_paths(&path));
    let generate = ["generate", "--path", "openapi.json", "--output-path", "chat_client", "--meta", "none"];
    let mut generator = server.command(programs.join("openapi-python-client"), &[]);
    generator.args(generate).arg("--fail-on-warning").env("PATH", env::join_paths(path).expect("a path"));
    run(&mut generator);
    run(server.command(programs.join("python"), &["session.py"]).arg("session.py"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_typescript_client_runs_a_session() {
    let Some(modules) = install_node_programs() else { return };
    let server = Server::start().await;
    std::os::unix::fs::symlink(&modules, server.folder.path().join("node_modules")).expect("a link");
    let generate = ["--input", "openapi.json", "--output", "client", "--silent", "--no-log-file"];
    run(server.command(modules.join(".bin/openapi-ts"), &[]).args(generate));
    run(&mut server.command(modules.join(".bin/tsc"), &["session.ts", "tsconfig.json"]));
    run(server.command("node", &[]).arg("build/session.js"));
}

#[tokio::test(flavor = "multi_thread")]
async fn linters_report_nothing_about_the_document() {
    let Some(modules) = install_node_programs() else { return };
    let server = Server::start().await;
    let mut redocly = server.command(modules.join(".bin/redocly"), &[]);
    redocly.args(["lint", "openapi.json", "--format=json"]);
    redocly.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
    let report = run(&mut redocly);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(
        (&report["totals"]["errors"], &report["totals"]["warnings"]),
        (&0.into(), &0.into()),
        "{report:#}"
    );
    let lint = ["lint", "openapi.json", "--ruleset", "spectral.yaml", "--fail-severity", "hint"];
    run(server.command(modules.join(".bin/spectral"), &["spectral.yaml"]).args(lint));
}
