//! Suggestions of similar names for a name that was not found.

use std::collections::HashSet;

/// The maximal number of names that are suggested.
const MAX_NAMES: usize = 3;

/// The maximal number of offered names that are remembered. A remembered name is not compared again; any other is
/// compared each time that it is offered.
const MAX_REMEMBERED: usize = 4_096;

/// Collects the names that resemble a text most.
#[derive(Debug)]
pub(super) struct NearNames {
    text: String,
    max_distance: usize,
    seen: HashSet<String>,
    /// The nearest names with their distances, the nearest first.
    nearest: Vec<(usize, String)>,
}

impl NearNames {
    pub(super) fn new(text: &str) -> Self {
        let max_distance = (text.chars().count() / 3).max(2);
        Self { text: text.to_lowercase(), max_distance, seen: HashSet::new(), nearest: Vec::new() }
    }

    /// Keeps the name if it is among the nearest.
    pub(super) fn offer(&mut self, name: &str) {
        if self.seen.contains(name) || self.nearest.iter().any(|(_, near)| near == name) {
            return;
        }
        if self.seen.len() < MAX_REMEMBERED {
            self.seen.insert(name.to_owned());
        }
        let lowercase = name.to_lowercase();
        let is_prefix = !self.text.is_empty() && lowercase.starts_with(&self.text);
        let distance = if is_prefix { 1 } else { strsim::levenshtein(&self.text, &lowercase) };
        if distance <= self.max_distance {
            let index = self.nearest.partition_point(|(other, _)| *other <= distance);
            self.nearest.insert(index, (distance, name.to_owned()));
            self.nearest.truncate(MAX_NAMES);
        }
    }

    /// The end of a sentence that reports the text as not found; empty without near names.
    pub(super) fn suggestion(&self) -> String {
        let names: Vec<String> = self.nearest.iter().map(|(_, name)| format!("{name:?}")).collect();
        if names.is_empty() { String::new() } else { format!("; similar: {}", names.join(", ")) }
    }
}

/// The end of a sentence that reports that none of `names` is `text`.
pub(super) fn suggestion<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut near = NearNames::new(text);
    names.into_iter().for_each(|name| near.offer(name));
    near.suggestion()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_names_first() {
        let names = ["MessageCreated", "MessageDeleted", "MessageEdited", "ChatCreated"];
        assert_eq!(
            suggestion("MesageDeleted", names).split(", ").next(),
            Some("; similar: \"MessageDeleted\"")
        );
        assert_eq!(suggestion("alise", ["alice", "bob"]), "; similar: \"alice\"");
        assert_eq!(suggestion("Sho", ["shop of books"]), "; similar: \"shop of books\"");
        assert_eq!(suggestion("x", ["alice", "bob"]), "");
    }

    #[test]
    fn control_characters_of_names_are_escaped() {
        assert_eq!(suggestion("aa", ["aa\u{1b}\u{202e}"]), "; similar: \"aa\\u{1b}\\u{202e}\"");
    }
}
