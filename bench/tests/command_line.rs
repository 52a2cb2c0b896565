//! Messages and exit codes of `chat-bench` for usage and environment errors.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chat-bench")).args(arguments).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn corpus_file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("corpus.jsonl");
    fs::write(&path, text).expect("a file");
    (folder, path)
}

#[test]
fn names_a_server_that_does_not_answer() {
    let (_folder, corpus) = corpus_file("{\"app\":\"a\",\"chat\":\"c\",\"body\":\"b\"}\n");
    // Nothing listens at port 1.
    let url = "http://127.0.0.1:1";
    let output = bench(&["load", "--corpus", &corpus.to_string_lossy(), "--url", url]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(&format!("no server answers at {url}")), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn names_a_missing_corpus() {
    let output = bench(&["load", "--corpus", "nowhere.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("nowhere.jsonl"), "{}", stderr(&output));
}

#[test]
fn names_the_number_of_an_invalid_line_of_a_corpus() {
    let (_folder, corpus) = corpus_file("{\"app\":\"a\",\"chat\":\"c\",\"body\":\"b\"}\n{\"app\":\"a\"}\n");
    let output = bench(&["load", "--corpus", &corpus.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("corpus.jsonl, line 2: missing field"), "{}", stderr(&output));
}

#[test]
fn rejects_invalid_arguments() {
    for (arguments, message) in [
        (&["load"][..], "--corpus <FILE>"),
        (&["load", "--corpus", "x", "--rate", "fast"], "'fast' for '--rate"),
        (&["load", "--corpus", "x", "--connections", "0"], "'0' for '--connections"),
        (&["load", "--corpus", "x", "--limit", "0"], "'0' for '--limit"),
        (&["compare", "--corpus", "x", "--only", "1,99"], "there is no such figure; the figures are 1, 2"),
        (&["verify"], "--manifest <FILE>"),
        (&["verify", "--manifest", "nowhere.jsonl"], "the manifest nowhere.jsonl"),
        (&["nothing"], "unrecognized subcommand 'nothing'"),
        (&[], "Usage: chat-bench <COMMAND>"),
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn rejects_an_invalid_address() {
    let (_folder, corpus) = corpus_file("{\"app\":\"a\",\"chat\":\"c\",\"body\":\"b\"}\n");
    let output = bench(&["load", "--corpus", &corpus.to_string_lossy(), "--url", "localhost:8000"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is not a server's address"), "{}", stderr(&output));
}
