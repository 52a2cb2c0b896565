//! The features of packages: the tests of one package compile with the features of the whole workspace, and the binary
//! links only the database clients of its enabled features.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

/// The lines of `cargo tree`, without the mark of lines that are printed again.
fn cargo_tree(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| line.trim_end_matches(" (*)").trim_end().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// The packages that are linked into tests, each with its features.
fn features(selection: &[&str]) -> BTreeSet<String> {
    cargo_tree(&[&["--edges", "normal,dev,no-proc-macro", "--format", "{p} {f}"], selection].concat())
}

#[test]
fn each_package_is_tested_with_the_features_of_the_workspace() {
    let workspace = features(&["--workspace"]);
    let members = cargo_tree(&["--workspace", "--depth", "0", "--format", "{p}"]);
    for member in members {
        let name = member.split(' ').next().unwrap();
        let alone = features(&["--package", name]);
        let differences: Vec<_> = alone.difference(&workspace).collect();
        assert!(
            differences.is_empty(),
            "`cargo test --package {name}` would compile these crates with fewer features than `cargo test --workspace`. \
             Add the crates that enable the missing features to `workspace-features` in testing/Cargo.toml: \
             {differences:#?}"
        );
    }
}

#[test]
fn the_binary_links_only_the_clients_of_its_features() {
    let linked = |features: &[&str]| {
        let tree = ["--package", "chat-api", "--edges", "normal,no-proc-macro", "--format", "{p}"];
        let packages = cargo_tree(&[tree.as_slice(), features].concat());
        let names: BTreeSet<_> =
            packages.iter().filter_map(|package| Some(package.split(' ').next()?.to_owned())).collect();
        ["sqlx-postgres", "redis", "chat-kurrentdb"].map(|client| names.contains(client))
    };
    assert_eq!(linked(&["--no-default-features"]), [false; 3]);
    assert_eq!(linked(&["--no-default-features", "--features", "postgres"]), [true, false, false]);
    assert_eq!(linked(&[]), [true; 3]);
}
