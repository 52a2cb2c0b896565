//! Tests of the shutdown, and of processes while something outside them is missing or stalled: the reader of their
//! output, an engine, a stream of the log, or a permission.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs::{self, Permissions};
use std::future::ready;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use chat_testing::kurrentdb::FakeKurrentDb;
use chat_testing::port;

use harness::api::{API, create_app, create_chat, create_message, wait_until_down};
use harness::client::Client;
use harness::deadline::eventually;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions, program};

/// A child process, killed when dropped.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("the program starts"))
    }

    fn terminate(&self) {
        let sent = Command::new("kill").arg(self.0.id().to_string()).status().expect("the program kill");
        assert!(sent.success(), "SIGTERM could not be sent");
    }

    async fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the end of the process", || ready(self.0.try_wait().expect("its state"))).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server that logs everything to a pipe.
fn start_with_piped_log(folder: &Path) -> (Running, ChildStderr, Client) {
    let address = format!("127.0.0.1:{}", port::find_free_for_restarts().expect("a free port"));
    let mut command = program();
    command.args(["serve", "--log", "trace", "--listen-addr", &address, "--data-dir"]).arg(folder);
    let mut server = Running::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let log = server.0.stderr.take().expect("a pipe");
    (server, log, Client::new(&format!("http://{address}")))
}

async fn wait_until_ready(client: &Client) {
    eventually("a ready server", async || {
        let reply = client.get("/readyz").try_send().await.ok()?;
        (reply.status == 200).then_some(())
    })
    .await;
}

/// Reads the value of a metric. `name` includes its labels, if it has any.
async fn metric(client: &Client, name: &str) -> u64 {
    let metrics = client.get("/metrics").send().await.expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_of_standard_error_holds_up_nothing() {
    const MAX_REQUESTS: usize = 20_000;
    let folder = folder();
    let (mut server, log, client) = start_with_piped_log(folder.path());
    wait_until_ready(&client).await;
    create_app(&client, "an app").await;
    let mut requests = 0;
    // Lines are dropped only when both the pipe and the server's queue of log lines are full.
    while metric(&client, "chat_log_lines_dropped_total").await == 0 {
        for _ in 0..50 {
            client.get(format!("{API}/apps/nothing")).send().await.expect(404);
        }
        requests += 50;
        assert!(requests < MAX_REQUESTS, "no line was dropped");
    }
    client.get("/livez").send().await.expect(200);
    server.terminate();
    assert_eq!(server.wait_for_exit().await.code(), Some(0));
    drop(log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_error_fails_no_request() {
    let folder = folder();
    let (mut server, log, client) = start_with_piped_log(folder.path());
    drop(log);
    wait_until_ready(&client).await;
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    eventually("dropped lines", async || {
        (metric(&client, "chat_log_lines_dropped_total").await > 0).then_some(())
    })
    .await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_with_endless_output_end_once_their_output_is_closed() {
    let folder = folder();
    let server = ProcessOptions::new("serve", folder.path()).start().await;
    create_app(&server.client(), "an app").await;
    for arguments in [&["audit", "tail", "--follow"][..], &["projections", "list", "--watch"]] {
        let mut command = program();
        command.args(arguments).arg("--data-dir").arg(folder.path());
        let mut running = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut output = BufReader::new(running.0.stdout.take().expect("a pipe"));
        output.read_line(&mut String::new()).expect("a line");
        drop(output);
        assert_eq!(running.wait_for_exit().await.code(), Some(141), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_output_ends_a_command_with_the_exit_code_of_sigpipe_and_no_message() {
    let folder = folder();
    ProcessOptions::new("serve", folder.path()).start().await.shut_down().await;
    for arguments in [
        &["audit", "head"][..],
        &["audit", "list", "-o", "json"],
        &["audit", "tail"],
        &["audit", "export", "--format", "csv"],
        &["projections", "list"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ] {
        let mut command = program();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.args(arguments).env("DATA_DIR", folder.path()).stdout(writer);
        let output = command.stderr(Stdio::piped()).spawn().and_then(std::process::Child::wait_with_output);
        let output = output.expect("the program runs");
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_command_whose_output_is_not_read() {
    /// The number of messages. Together, they are larger than the buffer of a pipe.
    const MESSAGES: usize = 12;
    let folder = folder();
    let server = ProcessOptions::new("serve", folder.path()).start().await;
    let token = create_app(&server.client(), "an app").await;
    let chat = create_chat(&server.client(), &token).await;
    for _ in 0..MESSAGES {
        create_message(&server.client(), &token, chat, &"x".repeat(16 * 1024)).await;
    }
    let mut command = program();
    command.args(["audit", "tail", "--follow", "-n", "100", "-o", "json", "--data-dir"]).arg(folder.path());
    let mut running = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut output = running.0.stdout.take().expect("a pipe");
    output.read_exact(&mut [0]).expect("a byte");
    running.terminate();
    running.wait_for_exit().await;
    drop(output);
}

const ROLES: [&str; 4] = ["serve", "command-api", "query-api", "projector"];

/// Starts a process at a free port, without waiting for anything.
fn spawn_role(role: &'static str, data_dir: &Path, arguments: &[(&str, &str)]) -> (Process, Client) {
    let address = format!("127.0.0.1:{}", port::find_free_for_restarts().expect("a free port"));
    let options = ProcessOptions::new(role, data_dir).with("--listen-addr", &address);
    let options = arguments.iter().fold(options, |options, (flag, value)| options.with(flag, value));
    (options.spawn(), Client::new(&format!("http://{address}")))
}

/// A port of this machine at which nothing listens.
fn closed_port() -> u16 {
    port::find_free_for_restarts().expect("a free port")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_answers_health_checks_while_the_event_store_is_unreachable() {
    let folder = folder();
    let host = format!("127.0.0.1:{}", closed_port());
    let url = format!("kurrentdb://{host}?tls=false");
    let processes = ROLES.map(|role| spawn_role(role, folder.path(), &[("--event-store-url", &url)]));
    for (process, client) in processes {
        eventually("an answer", async || client.get("/livez").try_send().await.ok()).await.expect(200);
        assert_eq!(metric(&client, "chat_log_lines_dropped_total").await, 0);
        wait_until_down(&client, "event_store", &["event store", &host, "refused"]).await;
        let refused = client.get(format!("{API}/apps")).send().await.expect(503);
        assert_eq!(refused.code(), "event_store_unavailable");
        assert!(refused.has("retry-after"));
        process.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_becomes_ready_once_the_event_store_is_reachable() {
    let folder = folder();
    let store = FakeKurrentDb::start_at(closed_port()).expect("an event store");
    store.go_down();
    let (_process, client) = spawn_role("serve", folder.path(), &[("--event-store-url", &store.url())]);
    wait_until_down(&client, "event_store", &["refused"]).await;
    store.come_up().expect("the same port");
    wait_until_ready(&client).await;
    create_app(&client, "an app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_on_a_deleted_stream_have_an_error_of_their_own() {
    let folder = folder();
    let store = FakeKurrentDb::start().expect("an event store");
    let (_process, client) = spawn_role("serve", folder.path(), &[("--event-store-url", &store.url())]);
    wait_until_ready(&client).await;
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    create_chat(&client, &token).await;
    create_message(&client, &token, 1, "one").await;
    store.soft_delete_stream(&format!("chat-{token}-1"));
    let health = eventually("the stream is named", async || {
        let reply = client.get("/readyz").send().await;
        // On a busy machine, the process may be not ready because the event store does not answer in time.
        let is_named = reply.status == 200 && reply.json()["parts"][0]["reason"].is_string();
        is_named.then(|| reply.json())
    })
    .await;
    let part = &health["parts"][0];
    assert_eq!((part["name"].as_str(), part["status"].as_str()), (Some("event_store"), Some("degraded")));
    let reason = part["reason"].as_str().expect("a reason");
    assert!(reason.starts_with(&format!("the stream chat-{}…-1 was deleted", &token[..4])), "{reason}");
    assert!(!reason.contains(&*token), "{reason}");
    assert_eq!(metric(&client, "chat_event_log_truncated_streams").await, 1);
    let path = format!("{API}/apps/{token}/chats/1/messages");
    let refused = client.post(path, &serde_json::json!({ "body": "two" })).send().await.expect(503);
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("stream_truncated", "60"));
    create_message(&client, &token, 2, "other chats are not concerned").await;
    assert_eq!(metric(&client, "chat_command_streams_refused").await, 1);
    // The projections have no dead letters.
    for name in ["read_model", "search_index"] {
        assert_eq!(
            metric(&client, &format!("chat_projection_parked_events{{projection=\"{name}\"}}")).await,
            0
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_unreachable_counters_and_an_unreachable_read_model() {
    let folder = folder();
    let redis = format!("127.0.0.1:{}", closed_port());
    let (_process, client) =
        spawn_role("command-api", folder.path(), &[("--redis-url", &format!("redis://:secret@{redis}"))]);
    let health = wait_until_down(&client, "redis", &[&redis, "refused"]).await;
    assert!(!health.to_string().contains("secret"), "{health}");

    let postgres = format!("127.0.0.1:{}", closed_port());
    let url = format!("postgres://chat:secret@{postgres}/chat");
    for role in ["serve", "query-api", "projector"] {
        let (_process, client) = spawn_role(role, folder.path(), &[("--database-url", &url)]);
        eventually("an answer", async || client.get("/livez").try_send().await.ok()).await.expect(200);
        let health = wait_until_down(&client, "read_model", &[&postgres, "refused"]).await;
        assert!(!health.to_string().contains("secret"), "{health}");
    }
}

/// A user that owns nothing. Tests that run as root start the program as this user: permissions do not stop root.
const NOBODY: u32 = 65_534;

/// Runs the program with this data folder and these arguments, never as root, and returns its exit code and standard
/// error.
async fn run_without_privileges(
    bin: &Path,
    role: &str,
    data_dir: &Path,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let mut command = Command::new(bin);
    command
        .args([role, "--listen-addr", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .args(arguments)
        .env_clear();
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    let mut running = Running::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let status = running.wait_for_exit().await;
    let mut stderr = String::new();
    running.0.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    (status.code(), stderr)
}

/// Creates a folder with this mode.
fn folder_with_mode(path: PathBuf, mode: u32) -> PathBuf {
    fs::create_dir(&path).expect("a folder");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_or_file_without_permission_ends_the_process_at_once() {
    let folder = folder();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a mode");
    // A copy, because another user may lack permission to open the build folder.
    let bin = folder.path().join("chat-api");
    fs::copy(env!("CARGO_BIN_EXE_chat-api"), &bin).expect("a copy");
    let locked = folder_with_mode(folder.path().join("locked"), 0o555);
    let open = folder_with_mode(folder.path().join("open"), 0o777);
    fs::write(open.join("events.db"), "").expect("a file");
    fs::set_permissions(open.join("events.db"), Permissions::from_mode(0o000)).expect("a mode");
    // The log anchor is in the data folder. It is read and replaced, never written to.
    let elsewhere =
        &["--event-store-url", "kurrentdb://127.0.0.1:1?tls=false", "--redis-url", "redis://127.0.0.1:1"][..];
    let unreadable_anchor = folder_with_mode(folder.path().join("unreadable-anchor"), 0o777);
    let foreign_anchor = folder_with_mode(folder.path().join("foreign-anchor"), 0o777);
    for (path, mode) in [
        (unreadable_anchor.join("log-anchor"), 0o000),
        (foreign_anchor.join("log-anchor"), 0o444),
        (foreign_anchor.join("read-model.db"), 0o444),
    ] {
        fs::write(&path, "").expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
    }
    let locked_new = locked.join("new");
    let mut cases = vec![
        ("command-api", elsewhere, &locked, "locked can't be written to"),
        ("command-api", elsewhere, &locked_new, "locked/new can't be created"),
        ("command-api", elsewhere, &unreadable_anchor, "log-anchor can't be read"),
        ("serve", &[], &foreign_anchor, "read-model.db can't be written to"),
    ];
    for role in ROLES {
        cases.push((role, &[], &locked, "locked can't be written to"));
        cases.push((role, &[], &locked_new, "locked/new can't be created"));
        cases.push((role, &[], &open, "open/events.db can't be written to"));
    }
    for (role, arguments, data_dir, named) in cases {
        let (code, stderr) = run_without_privileges(&bin, role, data_dir, arguments).await;
        assert_eq!(code, Some(2), "{role}: {stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.contains(named) && last.contains("permission denied"), "{role}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_for_operators_does_not_delay_the_shutdown() {
    let folder = folder();
    let process =
        ProcessOptions::new("serve", folder.path()).with("--admin-listen-addr", "127.0.0.1:0").start().await;
    process.terminate();
    let (status, stderr) = process.wait_for_exit().await;
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("stopped before all commands were answered"), "{stderr}");
}
