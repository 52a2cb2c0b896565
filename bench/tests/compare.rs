//! `chat-bench compare` at a small size: it measures the requested figures and removes its folders.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Returns the program under test. It is in another package: `cargo test --workspace` builds it.
fn chat_api() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_chat-bench")).with_file_name("chat-api");
    assert!(
        program.is_file(),
        "there is no {}: `cargo build --workspace --bins` makes it",
        program.display()
    );
    program
}

fn corpus(folder: &Path) -> PathBuf {
    let lines = (0..60).map(|line| {
        let body = format!("message {line} of a person who talks about foxes and {line} dogs");
        serde_json::json!({ "app": "a", "chat": (line % 7).to_string(), "body": body }).to_string() + "\n"
    });
    let path = folder.join("corpus.jsonl");
    fs::write(&path, lines.collect::<String>()).expect("a file");
    path
}

#[test]
fn writes_figures_and_plots_and_removes_its_folders() {
    // If root runs the test, Postgres runs as another user, which needs access to the folder.
    let readable_by_all = fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(readable_by_all).tempdir().expect("a folder");
    let (corpus, report) = (corpus(folder.path()), folder.path().join("report.md"));
    let measured = Command::new(env!("CARGO_BIN_EXE_chat-bench"))
        .args([
            "compare",
            "--only",
            "1,3,5,6,7,8,9",
            "--rounds",
            "1",
            "--seconds",
            "0.1",
            "--messages",
            "1000",
        ])
        .arg("--corpus")
        .arg(corpus)
        .arg("--chat-api")
        .arg(chat_api())
        .arg("--folder")
        .arg(folder.path())
        .arg("--report")
        .arg(&report)
        .output()
        .expect("the program starts");
    let stdout = String::from_utf8_lossy(&measured.stdout).into_owned();
    // At this size, goals may be missed.
    assert!(
        matches!(measured.status.code(), Some(0 | 1)),
        "{stdout}{}",
        String::from_utf8_lossy(&measured.stderr)
    );
    let raw = fs::read(report.with_extension("json")).expect("raw figures");
    let raw: Value = serde_json::from_slice(&raw).expect("JSON");
    let chapters = raw["chapters"].as_array().expect("chapters");
    // The number of each chapter, and how many figures the chapter has.
    let figure_counts = chapters.iter().map(|chapter| {
        assert_eq!(chapter["failed"], Value::Bool(false), "{stdout}");
        (chapter["number"].as_u64().unwrap_or(0), chapter["figures"].as_array().map_or(0, Vec::len))
    });
    assert_eq!(figure_counts.collect::<Vec<_>>(), [(1, 1), (3, 1), (5, 2), (6, 3), (7, 4), (8, 3), (9, 1)]);
    // One line for each figure.
    assert_eq!(stdout.lines().count(), 15, "{stdout}");
    let text = fs::read_to_string(&report).expect("a report");
    for picture in ["report.svg", "report-search-p50.svg", "report-search-p99.svg"] {
        assert!(text.contains(&format!("]({picture})")), "{text}");
        let drawn = fs::read_to_string(folder.path().join(picture)).expect("a picture");
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    }
    // The folders of the servers are removed.
    let remaining_entries: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
    assert!(
        remaining_entries.iter().all(|entry| entry.path().is_file()),
        "remaining entries: {remaining_entries:?}"
    );
}
