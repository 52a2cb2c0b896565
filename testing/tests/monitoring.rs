//! Each alert has a row in the documentation and a test in which it fires, no other name has either, and these tests
//! pass.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository_file(path)).expect("a file of the repository")
}

fn alerts() -> BTreeSet<String> {
    let rules = read("infra/deploy/prometheus/alerts.yml");
    let alerts: BTreeSet<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert!(alerts.len() > 10, "alerts are missing: {alerts:?}");
    alerts
}

#[test]
fn the_documentation_has_a_row_for_exactly_the_existing_alerts() {
    let page = read("docs/operations/monitoring.md");
    let (_, section) = page.split_once("\n## Alerts\n").expect("a section");
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let documented: BTreeSet<String> = cells
        .flat_map(|cell| cell.split(", "))
        .filter_map(|name| name.strip_prefix('`')?.strip_suffix('`'))
        .map(str::to_owned)
        .collect();
    assert_eq!(alerts(), documented);
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    let tests = read("infra/deploy/prometheus/alerts.test.yml");
    let mut firing = BTreeSet::new();
    let mut current = None;
    for line in tests.lines() {
        if let Some((_, rest)) = line.split_once("alertname: ") {
            current = rest.split([',', ' ', '}']).next().map(str::to_owned);
        } else if line.trim() == "exp_alerts:" {
            // A test in which the alert does not fire has no `exp_alerts`.
            firing.extend(current.take());
        }
    }
    assert_eq!(alerts(), firing);
}

#[test]
fn the_tests_of_the_alerts_pass() {
    let tests = repository_file("infra/deploy/prometheus/alerts.test.yml");
    match Command::new("promtool").args(["test", "rules"]).arg(tests).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!(
                "NOT RUN: promtool is missing (Debian: prometheus); the alerts' own tests were left out"
            );
        }
        Err(error) => panic!("{error}"),
    }
}
