//! The machine of a run, as Linux describes it.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

/// Describes the machine for people: cores, memory, kernel, and the file system of a folder.
pub fn describe(folder: &Path) -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor =
        field_value(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown processor").to_owned();
    let memory = field_value(&read("/proc/meminfo"), "MemTotal")
        .and_then(|total| total.split(' ').next()?.parse::<u64>().ok())
        .map_or_else(|| "unknown".to_owned(), |kibibytes| format!("{} GiB of", kibibytes.div_ceil(1 << 20)));
    let kernel = read("/proc/sys/kernel/osrelease");
    let disk =
        file_system_of(&read("/proc/self/mountinfo"), folder).unwrap_or_else(|| "an unknown disk".to_owned());
    format!("{cores} cores ({processor}), {memory} memory, Linux {}, data on {disk}", kernel.trim())
}

/// Returns the value of a line `name : value`.
fn field_value<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

/// Returns the file system of the innermost mount that holds a folder (proc(5), `/proc/pid/mountinfo`).
fn file_system_of(mounts: &str, folder: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.to_owned();
        let file_system = after.split(' ').next()?;
        folder.starts_with(&point).then(|| (point.len(), file_system.to_owned()))
    };
    mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length).map(|(_, file_system)| file_system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_innermost_mount() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:25 / /data rw - xfs /dev/vdb rw\n\
                      31 22 0:26 / /dat rw - tmpfs tmpfs rw";
        assert_eq!(file_system_of(mounts, Path::new("/data/bench")).as_deref(), Some("xfs"));
        assert_eq!(file_system_of(mounts, Path::new("/database")).as_deref(), Some("ext4"));
    }

    #[test]
    fn finds_a_value_by_its_name() {
        assert_eq!(field_value("model\t\t: 1\nmodel name\t: A B\n", "model name"), Some("A B"));
    }
}
