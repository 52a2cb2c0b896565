//! Paths of the generations of a projection, all in one folder.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chat_domain::projection::Generation;

use crate::durable_fs::parent_dir;

/// Returns the path of a generation, given the path of the first one: the second generation of `read-model.db` is
/// `read-model.2.db`, that of `search-index` is `search-index.2`. The name of the first generation has no number.
pub fn generation_path(first_path: &Path, generation: Generation) -> PathBuf {
    if generation == Generation::FIRST {
        return first_path.to_owned();
    }
    let mut name = first_path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{}", generation.0));
    if let Some(extension) = first_path.extension() {
        name.push(".");
        name.push(extension);
    }
    first_path.with_file_name(name)
}

/// Lists the generations whose file or folder exists, given the path of the first one.
pub fn stored_generations(first_path: &Path) -> io::Result<Vec<Generation>> {
    let entries = match fs::read_dir(parent_dir(first_path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut generations = Vec::new();
    for entry in entries {
        generations.extend(generation_of(first_path, &entry?.file_name()));
    }
    generations.sort_unstable();
    Ok(generations)
}

/// Returns the generation whose file or folder has this name; `None` if it is not the name of a generation.
fn generation_of(first_path: &Path, name: &OsStr) -> Option<Generation> {
    if first_path.file_name() == Some(name) {
        return Some(Generation::FIRST);
    }
    let stem = format!("{}.", first_path.file_stem()?.to_str()?);
    let number = name.to_str()?.strip_prefix(&stem)?;
    let number = match first_path.extension() {
        Some(extension) => number.strip_suffix(extension.to_str()?)?.strip_suffix('.')?,
        None => number,
    };
    let generation = Generation(number.parse().ok()?);
    // Refuses other spellings of the number, such as one with leading zeros.
    let is_spelled_so = generation_path(first_path, generation).file_name() == Some(name);
    (generation >= Generation::FIRST && is_spelled_so).then_some(generation)
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
            "read-model.0.db",
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
