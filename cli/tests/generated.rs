//! Tests of `completions` and `man`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

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

/// Completes the last word of a line in a real bash, and returns the proposals.
fn completed_by_bash(script: &Path, words: &[&str]) -> Vec<String> {
    // Calls the completion function as bash does: with the command, the word to complete, and the word before it.
    const PROGRAM: &str = r#"
        source "$1"; shift
        function=$(complete -p chat-api | sed 's/.*-F \([^ ]*\).*/\1/')
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", PROGRAM, "bash"]).arg(script).args(words);
    let output = bash.output().expect("bash runs");
    let proposals = String::from_utf8(output.stdout).expect("text");
    proposals.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_the_words_of_a_command() {
    let folder = folder();
    let script = folder.path().join("chat-api.bash");
    fs::write(&script, run(&["completions", "bash"]).stdout).expect("a file");
    for (words, expected) in [
        (&["chat-api", "au"][..], &["audit"][..]),
        (&["chat-api", "audit", "li"], &["list"]),
        (&["chat-api", "audit", "list", "--or"], &["--order"]),
        (&["chat-api", "audit", "list", "--order", ""], &["newest", "oldest"]),
        (&["chat-api", "audit", "explain", "mes"], &["message"]),
        (&["chat-api", "dead-letters", "re"], &["retry"]),
        (&["chat-api", "command-api", "--listen"], &["--listen-addr"]),
        (&["./chat-api", "projections", "ver"], &["verify"]),
    ] {
        assert_eq!(completed_by_bash(&script, words), expected, "{words:?}");
    }
}

#[test]
fn commands_have_man_pages() {
    let folder = folder();
    let pages = folder.path().join("share/man1");
    let output = run(&["man", "--out", pages.to_str().expect("a path")]);
    assert!(output.status.success(), "{output:?}");
    for page in ["chat-api", "chat-api-serve", "chat-api-audit", "chat-api-audit-verify", "chat-api-replay"] {
        let text = fs::read_to_string(pages.join(format!("{page}.1"))).expect(page);
        assert!(text.contains(".TH"), "{page}");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        // Every user of the machine may read the pages.
        assert_eq!((mode(&pages.join(format!("{page}.1"))), mode(&pages)), (0o644, 0o755), "{page}");
    }
    let printed = run(&["man"]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains(".TH chat-api"), "{printed:?}");
}
