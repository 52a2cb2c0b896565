//! Replaces the parts of an output that differ between runs.

use chat_domain::Position;

use crate::test_system::{TestSystem, Topology};

/// Replaces the folder, the token, the database's URL, ids, times, and numbers of three or more digits by placeholders,
/// and each of `positions` by its name. Replaces the padding of columns by single spaces.
pub fn redacted(system: &TestSystem, token: &str, positions: &[(Position, &str)], text: &str) -> String {
    let mut text = text.replace(&system.folder().display().to_string(), "[FOLDER]").replace(token, "[TOKEN]");
    text = text.replace(&format!("{}…", &token[..4]), "[TOKEN]…");
    if let Some(database) = system.flag("--database-url") {
        text = text.replace(database, "[DATABASE]");
    }
    let redacted_line = |line: &str| {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let redacted = words.iter().enumerate().map(|(index, word)| {
            // A number before one of these words is a count, even if it equals a position.
            let is_count = words.get(index + 1).is_some_and(|next| ["events", "findings"].contains(next));
            redacted_word(if is_count { &[] } else { positions }, word)
        });
        redacted.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(|line| redacted_line(line) + "\n").collect()
}

fn redacted_word(positions: &[(Position, &str)], word: &str) -> String {
    let plain = word.trim_end_matches([',', ':', ';', '.']);
    if plain.len() > 20 && plain.contains('T') && plain.ends_with('Z') {
        return word.replace(plain, "[TIME]");
    }
    if uuid::Uuid::parse_str(plain).is_ok() {
        return word.replace(plain, "[ID]");
    }
    let Ok(number) = plain.parse::<u64>() else { return word.to_owned() };
    let known = positions.iter().find(|(position, _)| position.get() == number);
    match known {
        Some((_, name)) => word.replace(plain, &format!("[{name}]")),
        // Numbers of more than two digits may differ between runs.
        None if plain.len() > 2 => word.replace(plain, "N"),
        None => word.to_owned(),
    }
}

/// Returns the name of the topology in snapshots.
pub fn topology_name(system: &TestSystem) -> &'static str {
    match system.topology {
        Topology::Embedded => "embedded",
        Topology::AtScale => "at_scale",
    }
}
