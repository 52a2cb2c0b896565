//! Tests of `completions` and `man`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::process::Output;

use harness::deployment::folder;
use harness::process::program;

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program runs")
}

#[test]
fn every_shell_gets_completions_that_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).expect("text");
        for command in ["serve", "projector", "audit", "verify-proof", "replay"] {
            assert!(script.contains(command), "{shell}: {command} is missing");
        }
    }
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_man_page() {
    let folder = folder();
    let pages = folder.path().join("share/man1");
    let output = run(&["man", "--out", pages.to_str().expect("a path")]);
    assert!(output.status.success(), "{output:?}");
    for page in ["chat-api", "chat-api-serve", "chat-api-audit", "chat-api-audit-verify", "chat-api-replay"] {
        let text = fs::read_to_string(pages.join(format!("{page}.1"))).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    let printed = run(&["man"]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains(".TH chat-api"), "{printed:?}");
}
