//! Tests of the command line: help, usage errors, start, shutdown and logs.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use harness::api::{API, create_app, create_chat, create_message, message_path};
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions, program};

/// Runs the program in an empty folder, with arguments after which it exits by itself.
fn run(arguments: &[&str]) -> Output {
    let folder = folder();
    let mut command = program();
    // Help is wrapped to the terminal's width.
    command.args(arguments).env("COLUMNS", "100").env("NO_COLOR", "1");
    command.current_dir(folder.path()).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn help_lists_the_commands_and_options() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_serve", &["serve", "--help"]),
        ("help_command_api", &["command-api", "--help"]),
        ("help_query_api", &["query-api", "--help"]),
        ("help_projector", &["projector", "--help"]),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(output.stderr.is_empty(), "{name}: help belongs on stdout");
        insta::assert_snapshot!(name, text(&output.stdout));
    }
}

#[test]
fn version_prints_the_version() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("chat-api {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn invalid_values_are_a_usage_error() {
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &["serve", "--listen-addr", "nowhere"],
        &["serve", "--listen-addr", "127.0.0.1:99999"],
        &["serve", "--rate-limit", "fast"],
        &["serve", "--rate-limit", "0/s"],
        &["serve", "--admin-token", ""],
        &["serve", "--admin-token", "two words"],
        &["serve", "--log-format", "xml"],
        &["serve", "--drain-timeout", "soon"],
        &["projector", "--only", "nothing"],
        &["command-api", "--only", "search"],
        &["serve", "--event-store-url", "nonsense"],
        &["serve", "--event-store-url", "ftp://nowhere"],
        &["serve", "--database-url", "mysql://nowhere"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{arguments:?}: no message");
        assert!(output.stdout.is_empty(), "{arguments:?}: errors belong on stderr");
    }
}

#[test]
fn a_non_loopback_address_is_refused_without_an_admin_token() {
    for role in ["serve", "command-api", "query-api", "projector"] {
        for address in ["0.0.0.0:0", "[::]:0"] {
            let output = run(&[role, "--listen-addr", address]);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{role} on {address}: {stderr}");
            assert!(stderr.contains("ADMIN_TOKEN"), "{stderr}");
            assert!(
                stderr.contains("openssl rand") || stderr.contains("--admin-token"),
                "the message does not say how to set a token: {stderr}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_non_loopback_address_is_accepted_with_an_admin_token() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path());
    let process =
        options.with("--listen-addr", "0.0.0.0:0").with("--admin-token", "s3cret-token").start().await;
    process.client().get("/readyz").send_until(200).await;
    assert!(!process.stderr().contains("s3cret-token"), "the admin token is on stderr");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let folder = folder();
    let process = ProcessOptions::new("serve", folder.path()).with("--listen-addr", &address).spawn();
    let (status, stderr) = process.wait_for_exit().await;
    assert_eq!(status.code(), Some(2), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains(&address)).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains("--listen-addr"), "the message does not name the option: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_is_a_file_is_named() {
    let folder = folder();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").expect("a file");
    let process = ProcessOptions::new("serve", &file).spawn();
    let (status, stderr) = process.wait_for_exit().await;
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("a-file"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_exits_with_success_after_sigterm() {
    let folder = folder();
    for role in ["serve", "command-api", "query-api", "projector"] {
        // A query API is ready only after a projector has run once. The first role, `serve`, runs one.
        ProcessOptions::new(role, folder.path()).start().await.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_process_that_has_just_printed_its_address() {
    let folder = folder();
    for _ in 0..5 {
        let mut process = ProcessOptions::new("serve", folder.path()).spawn();
        process.wait_for_address().await;
        process.shut_down().await;
    }
}

/// Reads until the text has arrived, within a time limit.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
    let (mut read, mut buffer) = (Vec::new(), [0; 4_096]);
    while !String::from_utf8_lossy(&read).contains(text) {
        let count = stream.read(&mut buffer).expect("an answer in time");
        assert!(count > 0, "the connection was closed: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_finishes_after_sigterm_and_its_effect_is_durable() {
    let folder = folder();
    let process = ProcessOptions::new("serve", folder.path()).start().await;
    let token = create_app(&process.client(), "an app").await;
    let chat = create_chat(&process.client(), &token).await;

    // The last bytes of the request are sent only after SIGTERM.
    let address = process.url().strip_prefix("http://").expect("an address").to_owned();
    let mut stream = TcpStream::connect(&address).expect("a connection");
    let body = r#"{"body":"held back"}"#;
    let head = format!(
        "POST {API}/apps/{token}/chats/{chat}/messages HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a head");
    // The server sends 100 Continue once a handler waits for the body: from now on the request is in flight.
    read_until(&mut stream, "100 Continue");
    stream.write_all(&body.as_bytes()[..5]).expect("half a body");
    process.terminate();
    wait_until_refusing(&process, &address).await;
    stream.write_all(&body.as_bytes()[5..]).expect("the rest of the body");
    let answer = read_until(&mut stream, "message_number\":1");
    assert!(answer.contains("HTTP/1.1 201"), "{answer}");
    let (status, stderr) = process.wait_for_exit().await;
    assert_eq!(status.code(), Some(0), "{stderr}");

    let restarted = ProcessOptions::new("serve", folder.path()).start().await;
    let created = create_message(&restarted.client(), &token, chat, "after").await;
    assert_eq!(created.json()["message_number"], 2);
    let read = restarted.client().get(message_path(&token, chat, 1)).after(&created).send().await.expect(200);
    assert_eq!(read.json()["body"], "held back");
}

/// Waits until the process accepts no new connections.
async fn wait_until_refusing(process: &Process, address: &str) {
    let condition =
        fmt::from_fn(|f| write!(f, "the process refuses connections; stderr: {}", process.stderr()));
    harness::deadline::eventually(condition, async || TcpStream::connect(address).is_err().then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_names_and_texts_are_never_logged() {
    let folder = folder();
    let options =
        ProcessOptions::new("serve", folder.path()).with("--log", "trace").with("--log-format", "json");
    let process = options.start().await;
    let client = process.client();
    let token = create_app(&client, "confidential-name").await;
    let chat = create_chat(&client, &token).await;
    let created = create_message(&client, &token, chat, "confidential-body").await;
    client.get(message_path(&token, chat, 1)).after(&created).send().await.expect(200);
    client.get(message_path(&token, chat, 9)).send().await.expect(404);
    process.terminate();
    let (status, stderr) = process.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    for secret in ["confidential", token.as_str()] {
        let line = stderr.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listens_at_a_host_name() {
    let folder = folder();
    let process =
        ProcessOptions::new("serve", folder.path()).with("--listen-addr", "localhost:0").start().await;
    process.client().get("/livez").send().await.expect(200);
}

/// The lines of the log about answered requests.
fn answered_requests(stderr: &str) -> Vec<Value> {
    let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == "answered a request").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_errors_or_all_requests_or_none() {
    for (access_log, expected) in [(None, &[404][..]), (Some("all"), &[200, 404]), (Some("off"), &[])] {
        let folder = folder();
        let options = ProcessOptions::new("serve", folder.path()).with("--log-format", "json");
        let options = match access_log {
            Some(value) => options.with("--access-log", value),
            None => options,
        };
        let process = options.start().await;
        let client = process.client();
        let token = create_app(&client, "an app").await;
        process.wait_until_folded(1).await;
        let get = |path: &str| client.get(format!("{API}/apps{path}")).header("x-request-id", "mine");
        get("").send().await.expect(200);
        get(&format!("/{token}/chats/7")).send().await.expect(404);
        process.terminate();
        let (_, stderr) = process.wait_for_exit().await;
        let lines = answered_requests(&stderr);
        let lines: Vec<_> = lines.iter().filter(|line| line["request_id"] == "mine").collect();
        let statuses: Vec<_> = lines.iter().filter_map(|line| line["status"].as_u64()).collect();
        assert_eq!(statuses, expected, "--access-log {access_log:?}: {stderr}");
        if let Some(error) = lines.iter().find(|line| line["status"] == 404) {
            assert_eq!(error["level"], "INFO");
            assert_eq!(error["method"], "GET");
            assert_eq!(error["route"], format!("{API}/apps/{{app_token}}/chats/{{chat_number}}"));
            assert_eq!(error["code"], "chat_not_found");
            assert_eq!(error["client"], "127.0.0.1");
            assert!(error["ms"].is_number(), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_library_logs_nothing_at_level_debug() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path()).with("--log", "debug");
    let process = options.with("--log-format", "json").start().await;
    let token = create_app(&process.client(), "an app").await;
    let chat = create_chat(&process.client(), &token).await;
    let created = create_message(&process.client(), &token, chat, "found").await;
    let search = format!("{API}/apps/{token}/chats/{chat}/messages/search?query=found");
    process.client().get(search).after(&created).send().await.expect(200);
    process.terminate();
    let (_, stderr) = process.wait_for_exit().await;
    let line = stderr.lines().find(|line| line.contains("\"target\":\"tantivy"));
    assert_eq!(line, None, "the search library logged a line");
}
