//! Likely places of a snippet in a long text, found without tokenizing the text.
//!
//! Tokenization and the mapping of words to the original text cost many times as much as a search for bytes. So a long
//! text is searched for the query's words first, and as a rule only the text around the best places is tokenized.

use memchr::memmem;

use crate::occurrences::{MAX_OCCURRENCES, MatchKind, score_visible};
use crate::query_parser::{Clause, Phrase, QueryWord};
use crate::text::normalize::NormalizedText;
use crate::text::script::{is_mark, is_unspaced};
use crate::text::tokenize::is_part_joiner;

/// The number of characters after a word of a phrase within which the phrase's next word has to start.
const MAX_GAP_CHARS: usize = 64;

/// The maximum number of doubtful matches of a word: those that are matches only if the estimate of the word boundaries
/// is wrong.
const MAX_DOUBTFUL_MATCHES: usize = 4;

/// A place where a snippet may be best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LikelyPlace {
    /// The byte offset in the original text.
    pub byte: usize,
    /// The score of a snippet there, by an estimate of how the clauses match.
    pub score: u32,
}

/// A match by an estimate: word boundaries are those of [`is_boundary`], not those of Unicode's word rules.
struct LikelyMatch {
    clause: usize,
    kind: MatchKind,
    /// The range of characters in the normalized text.
    start: usize,
    end: usize,
}

/// Returns the best places of a snippet in a text, at most `limit`. The best comes first; among equals, the first in
/// the text. A snippet shows `shown_chars` characters from the start of its match.
pub(crate) fn find_likely_places(
    body: &str,
    clauses: &[Clause],
    shown_chars: usize,
    limit: usize,
) -> Vec<LikelyPlace> {
    let text = SearchableText::new(body);
    let mut matches = Vec::new();
    for (index, clause) in clauses.iter().enumerate() {
        let mut add = |bytes: (usize, usize), kind| {
            let (start, end) = (text.char_index_at(bytes.0), text.char_index_at(bytes.1));
            matches.push(LikelyMatch { clause: index, kind, start, end });
        };
        match clause {
            Clause::Word(word) => find_word(text.as_str(), word, &mut add),
            Clause::Phrase(phrase) => find_phrase(text.as_str(), phrase, &mut add),
        }
    }
    matches.sort_by_key(|found| (found.start, found.end));
    let best_possible = MatchKind::Whole as u32 * u32::try_from(clauses.len()).unwrap_or(u32::MAX);
    let mut scores: Vec<(u32, usize)> = Vec::new();
    for (index, anchor) in matches.iter().enumerate() {
        let end = anchor.start + shown_chars;
        let visible = matches[index..].iter().take_while(|found| found.end <= end);
        let score = score_visible(visible.map(|found| (found.clause, found.kind)));
        scores.push((score, anchor.start));
        if score >= best_possible {
            break;
        }
    }
    scores.sort_by_key(|(score, start)| (std::cmp::Reverse(*score), *start));
    let places = scores.into_iter().take(limit);
    places.map(|(score, start)| LikelyPlace { byte: text.source_byte(start), score }).collect()
}

/// A normalized text. In an ASCII text, each byte is a character.
enum SearchableText {
    Ascii(String),
    Unicode(NormalizedText),
}

impl SearchableText {
    fn new(body: &str) -> Self {
        if body.is_ascii() {
            return Self::Ascii(body.to_ascii_lowercase());
        }
        let mut normalized = NormalizedText::default();
        normalized.read(body);
        Self::Unicode(normalized)
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Ascii(text) => text,
            Self::Unicode(normalized) => &normalized.text,
        }
    }

    /// The index of the character at a byte offset of the normalized text.
    fn char_index_at(&self, byte: usize) -> usize {
        match self {
            Self::Ascii(_) => byte,
            Self::Unicode(normalized) => normalized.chars.partition_point(|other| other.offset < byte),
        }
    }

    /// The byte offset, in the original text, of the grapheme cluster that a character comes from.
    fn source_byte(&self, char_index: usize) -> usize {
        match self {
            Self::Ascii(_) => char_index,
            Self::Unicode(normalized) => {
                normalized.chars.get(char_index).map_or(0, |found| found.source_start)
            }
        }
    }
}

fn find_word(text: &str, word: &QueryWord, add: &mut impl FnMut((usize, usize), MatchKind)) {
    let needle: String = word.chars().iter().collect();
    let can_match_inside_words = !word.substring_terms().is_empty();
    let (mut found, mut doubtful) = (0, 0);
    for start in memmem::find_iter(text.as_bytes(), &needle) {
        let end = start + needle.len();
        let kind = match (is_boundary(text, start), is_boundary(text, end)) {
            (true, true) => MatchKind::Whole,
            (true, false) => MatchKind::Prefix,
            (false, _) if can_match_inside_words => MatchKind::Substring,
            // Doubtful: a match only if the estimate of the boundaries is wrong. It gets the lowest score.
            (false, _) if doubtful == MAX_DOUBTFUL_MATCHES => continue,
            (false, _) => {
                doubtful += 1;
                MatchKind::Fuzzy
            }
        };
        add((start, end), kind);
        found += 1;
        if found == MAX_OCCURRENCES {
            return;
        }
    }
}

fn find_phrase(text: &str, phrase: &Phrase, add: &mut impl FnMut((usize, usize), MatchKind)) {
    let phrase_text = phrase.text();
    let words: Vec<&str> =
        phrase_text.split(|c| c == ' ' || is_part_joiner(c)).filter(|word| !word.is_empty()).collect();
    let Some(first) = words.first() else { return };
    let (open_start, open_end) = phrase.open_ends();
    let mut found = 0;
    for start in memmem::find_iter(text.as_bytes(), first) {
        let Some(end) = phrase_end(text, start, &words) else { continue };
        if (open_start || is_boundary(text, start)) && (open_end || is_boundary(text, end)) {
            add((start, end), MatchKind::Whole);
            found += 1;
            if found == MAX_OCCURRENCES {
                return;
            }
        }
    }
}

/// The end of a phrase whose first word starts at a byte offset. `None` if another word comes between two words of the
/// phrase, or one of them starts too far after the one before.
fn phrase_end(text: &str, start: usize, words: &[&str]) -> Option<usize> {
    let mut end = start;
    for word in words {
        let gap = text[end..].char_indices().take(MAX_GAP_CHARS);
        let (gap_bytes, _) = gap
            .take_while(|(offset, c)| text[end + offset..].starts_with(word) || !c.is_alphanumeric())
            .find(|(offset, _)| text[end + offset..].starts_with(word))?;
        end += gap_bytes + word.len();
    }
    Some(end)
}

/// Whether a word starts or ends at a byte offset, by an estimate.
fn is_boundary(text: &str, byte: usize) -> bool {
    let is_inside_word = |c: char| c.is_alphanumeric() || is_mark(c);
    let (before, after) = text.split_at(byte);
    match (before.chars().next_back(), after.chars().next()) {
        (Some(left), Some(right)) => {
            !is_inside_word(left) || !is_inside_word(right) || is_unspaced(left) != is_unspaced(right)
        }
        _ => true,
    }
}
