//! Finds the programs that tests need, and installs the missing ones.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program of a package.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The name of the file.
    pub name: &'static str,
    /// The name of the product.
    pub title: &'static str,
    /// The package of Debian and Ubuntu.
    pub debian_package: &'static str,
    /// The package of Homebrew.
    pub homebrew_package: &'static str,
    /// Folders to search before those of `PATH`. A component `*` stands for all folders, highest version first.
    pub search_folders: &'static [&'static str],
}

/// Returns the path of a program, and installs it first if it is missing.
///
/// # Panics
///
/// Panics if the program can't be installed. The message says how to install it by hand.
pub fn find_or_install(program: &Program) -> PathBuf {
    let lock = File::create(env::temp_dir().join("chat-api-test-install.lock"));
    // Waits while another process installs a package: a program may exist before the other files and packages that it
    // needs.
    let _shared = lock.as_ref().map(File::lock_shared);
    if let Some(path) = find(program) {
        return path;
    }
    // One installation at a time for all test processes: apt-get fails if another one holds its lock for long.
    let _exclusive = lock.as_ref().map(|lock| lock.unlock().and_then(|()| lock.lock()));
    if let Some(path) = find(program) {
        return path;
    }
    let reason = install(program);
    find(program).unwrap_or_else(|| panic!("{}", missing_message(program, &reason)))
}

fn missing_message(program: &Program, reason: &str) -> String {
    let Program { name, title, debian_package: debian, homebrew_package: homebrew, .. } = program;
    format!(
        "the tests need {title}: there is no program {name}, and {reason}. Install it with\n\n    \
         sudo apt-get install {debian}      (Debian, Ubuntu)\n    brew install {homebrew}      (macOS)\n\n\
         and run the tests again"
    )
}

fn find(program: &Program) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = program
        .search_folders
        .iter()
        .flat_map(|pattern| expand_pattern(pattern))
        .chain(env::split_paths(&path));
    folders.map(|folder| folder.join(program.name)).find(|path| path.is_file())
}

/// The folders of a pattern with at most one `*`.
fn expand_pattern(pattern: &str) -> Vec<PathBuf> {
    let Some((parent, below)) = pattern.split_once("/*") else { return vec![PathBuf::from(pattern)] };
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut versions: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let version = |path: &PathBuf| -> Option<u64> { path.file_name()?.to_str()?.parse().ok() };
    versions.sort_by_key(|path| std::cmp::Reverse(version(path)));
    versions.into_iter().map(|version| version.join(below.trim_start_matches('/'))).collect()
}

/// Tries to install the package of a program. Returns the reason why the program may still be missing.
fn install(program: &Program) -> String {
    let succeeds = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let has = |name: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    if has("apt-get") {
        let is_root =
            fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let can_use_sudo = || has("sudo") && succeeds(Command::new("sudo").args(["-n", "true"]));
        if !is_root && !can_use_sudo() {
            return "installing it takes root or sudo without a password".to_owned();
        }
        announce(program, &format!("apt-get install {}", program.debian_package));
        let apt = |arguments: &[&str]| {
            let mut command = if is_root { Command::new("env") } else { Command::new("sudo") };
            if !is_root {
                command.args(["-n", "env"]);
            }
            // The service of the package is not started: tests start instances of their own.
            command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-q"]);
            // Updates of the system may hold the lock of the packages.
            command.args(["-o", "DPkg::Lock::Timeout=120"]).args(arguments);
            succeeds(&mut command)
        };
        let install = ["install", "-y", "--no-install-recommends", program.debian_package];
        if apt(&install) || (apt(&["update"]) && apt(&install)) {
            return format!("the package {} does not have it", program.debian_package);
        }
        return format!("apt-get could not install the package {}", program.debian_package);
    }
    if has("brew") {
        announce(program, &format!("brew install {}", program.homebrew_package));
        if succeeds(Command::new("brew").args(["install", program.homebrew_package])) {
            return format!("the package {} does not have it", program.homebrew_package);
        }
        return format!("brew could not install the package {}", program.homebrew_package);
    }
    "this system has neither apt-get nor brew to install it".to_owned()
}

/// Prints which program is about to be installed, and with which command.
fn announce(program: &Program, command: &str) {
    let Program { name, title, .. } = program;
    // Written to the stream itself: the test harness shows the output of `eprintln!` only after the test has failed.
    let message = format!("The tests need {title}, and {name} is missing. Installing it now: {command}\n");
    let _ = std::io::stderr().write_all(message.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: Program = Program {
        name: "no-such-program",
        title: "Nothing",
        debian_package: "no-such-package",
        homebrew_package: "no-such-formula",
        search_folders: &["/usr/lib/*/bin"],
    };

    #[test]
    fn names_a_missing_program_and_how_to_install_it() {
        assert_eq!(find(&MISSING), None);
        let sentence = missing_message(&MISSING, "it can not be installed");
        assert!(sentence.contains("no program no-such-program, and it can not be installed"), "{sentence}");
        assert!(sentence.contains("apt-get install no-such-package"), "{sentence}");
    }

    #[test]
    fn finds_the_newest_version_first() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["9", "17", "15"] {
            fs::create_dir_all(folder.path().join(version).join("bin")).unwrap();
        }
        let pattern = format!("{}/*/bin", folder.path().display());
        let found: Vec<PathBuf> = expand_pattern(&pattern);
        assert_eq!(found[0], folder.path().join("17/bin"));
        assert_eq!(found.len(), 3);
    }
}
