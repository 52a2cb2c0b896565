//! Paths of the generations of a projection, all in one folder.

use std::path::{Path, PathBuf};

use chat_domain::projection::Generation;

/// Returns the path of a generation: `read-model.2.db` for `read-model.db`, `search-index.2` for `search-index`. The first
/// generation has no number.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_the_number_of_later_generations_before_the_extension() {
        let path = |first: &str, number| generation_path(Path::new(first), Generation(number));
        assert_eq!(path("data/read-model.db", 1), Path::new("data/read-model.db"));
        assert_eq!(path("data/read-model.db", 2), Path::new("data/read-model.2.db"));
        assert_eq!(path("rows", 3), Path::new("rows.3"));
    }
}
