//! Tests that commands that read the whole log need at most 200 MiB of memory, on 6,000 and on a million events.
//!
//! The small variant runs with all tests. The large one takes some minutes:
//! `cargo test --workspace --test large_log -- --ignored --nocapture`

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;
mod operator;

use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::deployment::folder;
use harness::process::program;
use operator::{LogServer, TestLog, fill};

/// The maximum memory of a command, in KiB.
const MAX_KIB: u64 = 200 << 10;

/// The number of events of the large log.
const LARGE_LOG_EVENTS: u64 = 1_000_000;

/// The commands that read the whole log. Their output goes to a file.
const COMMANDS: [&[&str]; 9] = [
    &["audit", "checkpoint", "--key", "audit.key", "--out", "checkpoint", "--reason", "a test"],
    &["audit", "verify", "--checkpoint", "checkpoint", "--public-key", "audit.key.pub"],
    &["audit", "verify"],
    &["audit", "prove", "777", "--checkpoint", "checkpoint", "--out", "777.tlog-proof"],
    &["audit", "list", "--text", "a text that no event has"],
    &["audit", "export", "--format", "csv"],
    &["audit", "export", "--format", "jsonl"],
    &["replay", "--to", "events.jsonl", "--checkpoint", "position"],
    &["replay", "--to", "cat"],
];

/// Runs a command and returns its peak memory in KiB; 0 if the command ended before it was measured.
fn peak_memory(test_log: &TestLog, arguments: &[&str]) -> u64 {
    let out = File::create(test_log.path("out")).expect("a file");
    let mut command = program();
    command.current_dir(test_log.folder.path()).args(arguments).args(test_log.log_arguments());
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("its state").is_none() {
        // VmHWM is the peak since the start of the process, so polling now and then is enough.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    #[expect(clippy::print_stdout, reason = "the figures of the large variant are its result")]
    {
        println!(
            "{:>4} MiB  {:>6.1} s  {}",
            peak >> 10,
            started.elapsed().as_secs_f64(),
            arguments.join(" ")
        );
    }
    peak
}

/// Runs commands and checks the peak memory of each. On a busy machine, one may end before it is measured, but not all.
fn check_peaks<'a>(test_log: &TestLog, commands: impl Iterator<Item = &'a [&'a str]>) {
    let peaks = commands.map(|arguments| {
        let peak = peak_memory(test_log, arguments);
        assert!(peak <= MAX_KIB, "{arguments:?} took {peak} KiB");
        peak
    });
    assert!(peaks.max() > Some(0), "the memory was not measured");
}

/// Lists all events page by page. Returns the largest peak in KiB and the number of events.
fn list_all(test_log: &TestLog) -> (u64, u64) {
    let (mut largest, mut listed, mut after) = (0, 0, 0_u64);
    loop {
        let from = after.to_string();
        let page = ["audit", "list", "--order", "oldest", "--limit", "1000", "--after", &from, "-o", "json"];
        largest = peak_memory(test_log, &page).max(largest);
        let answer = fs::read(test_log.path("out")).expect("a page");
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        listed += answer["data"]["events"].as_array().expect("events").len() as u64;
        match answer["data"]["next"].as_u64() {
            Some(next) => after = next,
            None => return (largest, listed),
        }
    }
}

fn check_every_command(test_log: &TestLog) {
    test_log.run_without_log_arguments(&["audit", "keygen", "--out", "audit.key"]).expect(0);
    check_peaks(test_log, COMMANDS.into_iter());
    // The last command has replayed all events to `cat`, whose output is in the file.
    let lines = fs::read_to_string(test_log.path("out")).expect("the replayed events");
    let verified = test_log.run(&["audit", "verify"]).expect(0);
    let count = lines.lines().count();
    let (peak, listed) = list_all(test_log);
    assert!(peak <= MAX_KIB, "a page took {peak} KiB");
    assert_eq!(listed, count as u64, "the numbers of listed and of replayed events differ");
    assert!(verified.stdout.contains(&format!("events    {count}\n")), "{count} lines: {}", verified.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_thousand_events_are_read_in_little_memory() {
    for test_log in TestLog::on_each_engine().await {
        // Replaces the log, which has a few events already, by an empty one on the same engine.
        let server = match test_log.server {
            None => None,
            Some(LogServer::Postgres(_)) => Some(LogServer::postgres()),
            Some(LogServer::KurrentDb(_)) => Some(LogServer::kurrentdb()),
        };
        let test_log = TestLog { name: test_log.name, folder: folder(), server };
        fill(&*test_log.log().await, 6_000).await;
        if matches!(test_log.server, Some(LogServer::KurrentDb(_))) {
            // Positions of KurrentDB are byte offsets, so `prove` with a fixed position is left out.
            test_log.run_without_log_arguments(&["audit", "keygen", "--out", "audit.key"]).expect(0);
            let commands = COMMANDS.into_iter().filter(|arguments| !arguments.contains(&"prove"));
            check_peaks(&test_log, commands);
        } else {
            check_every_command(&test_log);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; the docs of this file have the command"]
async fn a_million_events_are_read_in_little_memory() {
    let test_log = TestLog { name: "sqlite", folder: folder(), server: None };
    fill(&*test_log.log().await, LARGE_LOG_EVENTS).await;
    check_every_command(&test_log);
}
