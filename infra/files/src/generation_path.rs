//! Paths of the generations of a projection, all in one folder.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chat_domain::projection::Generation;

use crate::durable_fs::parent_dir;

/// Returns the path of a generation: `read-model.2.db` for `read-model.db`, `search-index.2` for `search-index`. The
/// first generation has no number.
pub fn generation_path(first: &Path, generation: Generation) -> PathBuf {
    if generation == Generation::FIRST {
        return first.to_owned();
    }
    let mut name = first.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{}", generation.0));
    if let Some(extension) = first.extension() {
        name.push(".");
        name.push(extension);
    }
    first.with_file_name(name)
}

/// Lists the generations whose file or folder exists, given the path of the first one.
pub fn stored_generations(first: &Path) -> io::Result<Vec<Generation>> {
    let entries = match fs::read_dir(parent_dir(first)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut generations = Vec::new();
    for entry in entries {
        generations.extend(generation_of(first, &entry?.file_name()));
    }
    generations.sort_unstable();
    Ok(generations)
}

/// Returns the generation whose file or folder has this name; `None` if it is not the name of a generation.
fn generation_of(first: &Path, name: &OsStr) -> Option<Generation> {
    if first.file_name() == Some(name) {
        return Some(Generation::FIRST);
    }
    let stem = format!("{}.", first.file_stem()?.to_str()?);
    let number = name.to_str()?.strip_prefix(&stem)?;
    let number = match first.extension() {
        Some(extension) => number.strip_suffix(extension.to_str()?)?.strip_suffix('.')?,
        None => number,
    };
    let generation = Generation(number.parse().ok()?);
    // Numbers have no leading zeroes.
    (generation_path(first, generation).file_name() == Some(name)).then_some(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_generations_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "read-model.db",
            "read-model.db-wal",
            "read-model.12.db",
            "read-model.012.db",
            "read-model.x.db",
            "read-model.db.damaged-7",
            "search-index.3",
            "search-index.other-log-9",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let stored = |first| stored_generations(&folder.path().join(first)).unwrap();
        assert_eq!(stored("read-model.db"), [Generation::FIRST, Generation(12)]);
        assert_eq!(stored("search-index"), [Generation(3)]);
        assert_eq!(stored("below/read-model.db"), []);
    }

    #[test]
    fn adds_the_number_of_later_generations_before_the_extension() {
        let path = |first: &str, number| generation_path(Path::new(first), Generation(number));
        assert_eq!(path("data/read-model.db", 1), Path::new("data/read-model.db"));
        assert_eq!(path("data/read-model.db", 2), Path::new("data/read-model.2.db"));
        assert_eq!(path("rows", 3), Path::new("rows.3"));
    }
}
