//! Faults of the disk and the clock, injected into a process by a preloaded library.
//!
//! The library is compiled by the system's C compiler for each [`FaultInjector`]. Linux only.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// The source of the preloaded library.
const SOURCE: &str = include_str!("fault_injector.c");

/// A fault of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// Writes to files fail with ENOSPC. Before a failure, one write may store half of its data.
    DiskFull,
    /// `fsync` and `fdatasync` fail with EIO.
    SyncFails,
    /// Reads of files fail with EIO.
    ReadFails,
}

/// Injects faults into the processes that are started with its [variables](FaultInjector::environment).
#[derive(Debug)]
pub struct FaultInjector {
    /// Holds the library and the settings.
    folder: TempDir,
    /// The fields of `struct settings` in `fault_injector.c`, which the processes read.
    settings: File,
}

impl FaultInjector {
    /// Compiles the library. Nothing fails until a fault is set.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("chat-fault-injector-").tempdir()?;
        let source = folder.path().join("fault_injector.c");
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library(folder.path())).arg(&source).arg("-ldl");
        let output = compiler.output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let path = settings_file(folder.path());
        fs::write(&path, [0; 24])?;
        let settings = File::options().write(true).open(path)?;
        Ok(Self { folder, settings })
    }

    /// The environment variables of a process that gets this injector's faults.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("LD_PRELOAD", library(self.folder.path())),
            ("FAULT_CONTROL_FILE", settings_file(self.folder.path())),
        ]
    }

    /// Starts or ends a fault. A running process notices the change at its next write, sync or read.
    pub fn set(&self, fault: InjectedFault, is_active: bool) -> io::Result<()> {
        let offset = match fault {
            InjectedFault::DiskFull => 0,
            InjectedFault::SyncFails => 4,
            InjectedFault::ReadFails => 8,
        };
        self.settings.write_all_at(&u32::from(is_active).to_ne_bytes(), offset)
    }

    /// Sets the wall clock ahead of the true time, or behind it, by whole seconds. The monotonic clock is not affected.
    pub fn set_clock_offset(&self, difference: Duration, is_behind: bool) -> io::Result<()> {
        let seconds = i64::try_from(difference.as_secs()).map_err(io::Error::other)?;
        let seconds = if is_behind { -seconds } else { seconds };
        self.settings.write_all_at(&seconds.to_ne_bytes(), 16)
    }
}

fn library(folder: &Path) -> PathBuf {
    folder.join("fault_injector.so")
}

fn settings_file(folder: &Path) -> PathBuf {
    folder.join("settings")
}

#[cfg(test)]
mod tests {
    use std::process::Output;

    use super::*;

    fn run(injector: &FaultInjector, script: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).envs(injector.environment()).env("FOLDER", injector.folder.path());
        shell.output().expect("a shell")
    }

    fn stderr(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[test]
    fn a_full_disk_refuses_writes_to_files_and_not_to_pipes() {
        let injector = FaultInjector::new().expect("a library");
        assert!(run(&injector, "echo data >$FOLDER/file").status.success());
        injector.set(InjectedFault::DiskFull, true).expect("a setting");
        let refused = run(&injector, "echo data >$FOLDER/file");
        assert!(!refused.status.success(), "{refused:?}");
        assert_eq!(run(&injector, "echo data | cat").stdout, b"data\n");
        injector.set(InjectedFault::DiskFull, false).expect("a setting");
        assert!(run(&injector, "echo data >$FOLDER/file").status.success());
    }

    #[test]
    fn a_failing_disk_refuses_to_sync_and_to_read() {
        let injector = FaultInjector::new().expect("a library");
        injector.set(InjectedFault::SyncFails, true).expect("a setting");
        let refused = run(&injector, "echo data >$FOLDER/file && sync -d $FOLDER/file");
        assert!(stderr(&refused).contains("Input/output error"), "{refused:?}");
        injector.set(InjectedFault::SyncFails, false).expect("a setting");
        injector.set(InjectedFault::ReadFails, true).expect("a setting");
        let refused = run(&injector, "cat $FOLDER/file");
        assert!(stderr(&refused).contains("Input/output error"), "{refused:?}");
    }

    #[test]
    fn the_wall_clock_is_behind_by_the_offset() {
        let injector = FaultInjector::new().expect("a library");
        let now = || -> i64 {
            let output = run(&injector, "date +%s");
            String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds since 1970")
        };
        let before = now();
        injector.set_clock_offset(Duration::from_hours(1), true).expect("a setting");
        let behind = now();
        assert!(
            (before - 3_600..before - 3_000).contains(&behind),
            "the clock went from {before} to {behind}"
        );
    }
}
