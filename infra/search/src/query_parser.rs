//! The query parser: turns the user's text into words and phrases that a message must match. Every text is a valid
//! query.

use crate::terms::{self, MAX_WORD_CHARS, PositionedTerm};
use crate::text::script::is_unspaced;
use crate::text::tokenize::TokenizedText;

/// The maximum length of a query, in bytes. The rest is ignored.
pub(crate) const MAX_QUERY_BYTES: usize = 1_024;

/// The maximum number of words in a query. The rest are ignored.
pub(crate) const MAX_QUERY_WORDS: usize = 32;

/// The maximum length of a word for which typing errors are tolerated, in characters. Bounds the size of tantivy's
/// automaton.
pub(crate) const MAX_FUZZY_CHARS: usize = 64;

/// Counts the words of a query, including those in quotes and those beyond the limit.
pub fn count_query_words(query: &str) -> usize {
    TokenizedText::new(query).words.len()
}

/// A condition of a query. A message must match all clauses of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    /// Matches a whole word, a prefix or a substring of a word.
    Word(QueryWord),
    /// Matches adjacent words.
    Phrase(Phrase),
}

/// A word of a query, normalized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryWord {
    /// All characters, also those that [`Self::chars()`] leaves out.
    chars: Vec<char>,
}

/// A quoted part of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phrase {
    /// Each word's position in the phrase, in characters, and its characters.
    words: Vec<(usize, Vec<char>)>,
}

/// How a word of a phrase matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhraseWordKind {
    /// As a whole word, or a part of a word that is joined by punctuation.
    Whole,
    /// With its first [`MAX_WORD_CHARS`] characters, as the start of a word. For words too long for a whole-word term.
    Prefix,
    /// As a substring. For words in scripts without spaces between words.
    Substring,
}

/// Parses a query. Repeated clauses are dropped.
pub(crate) fn parse_query(query: &str) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let mut word_count = 0;
    for part in quoted_parts(truncate(query, MAX_QUERY_BYTES)) {
        let (QueryPart::Unquoted(text) | QueryPart::Quoted(text)) = part;
        let tokenized = TokenizedText::new(text);
        let words: Vec<(usize, Vec<char>)> = tokenized
            .words
            .iter()
            .take(MAX_QUERY_WORDS - word_count)
            .map(|word| (word.position, tokenized.text(word).chars().collect()))
            .collect();
        word_count += words.len();
        match part {
            QueryPart::Quoted(_) if words.is_empty() => {}
            QueryPart::Quoted(_) => push_unique(&mut clauses, Clause::Phrase(Phrase { words })),
            QueryPart::Unquoted(_) => {
                for (_, chars) in words {
                    push_unique(&mut clauses, Clause::Word(QueryWord { chars }));
                }
            }
        }
    }
    clauses
}

fn push_unique(clauses: &mut Vec<Clause>, clause: Clause) {
    if !clauses.contains(&clause) {
        clauses.push(clause);
    }
}

fn truncate(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}

enum QueryPart<'a> {
    Unquoted(&'a str),
    Quoted(&'a str),
}

/// Splits a query at its quotes. A quote opens if no letter or digit precedes it, and closes if none follows it, so
/// that the gershayim of a Hebrew abbreviation does neither. An unclosed quote is ignored.
fn quoted_parts(query: &str) -> Vec<QueryPart<'_>> {
    let mut parts = Vec::new();
    let mut rest = query;
    let opens = |before: Option<char>, _after: Option<char>| !before.is_some_and(char::is_alphanumeric);
    let closes = |_before: Option<char>, after: Option<char>| !after.is_some_and(char::is_alphanumeric);
    while let Some((open_start, open_end)) = find_quote(rest, opens) {
        let after_open = &rest[open_end..];
        let Some((close_start, close_end)) = find_quote(after_open, closes) else { break };
        parts.push(QueryPart::Unquoted(&rest[..open_start]));
        parts.push(QueryPart::Quoted(&after_open[..close_start]));
        rest = &after_open[close_end..];
    }
    parts.push(QueryPart::Unquoted(rest));
    parts
}

/// Finds the first quote for which `fits` is true, given the characters before and after it. Returns the byte offsets
/// of its start and end.
fn find_quote(text: &str, fits: impl Fn(Option<char>, Option<char>) -> bool) -> Option<(usize, usize)> {
    text.char_indices().filter(|(_, c)| is_quote(*c)).find_map(|(start, quote)| {
        let end = start + quote.len_utf8();
        fits(text[..start].chars().next_back(), text[end..].chars().next()).then_some((start, end))
    })
}

/// Whether a character is a double quotation mark of some language.
fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201C}' | '\u{201D}' | '\u{201E}' | '\u{201F}' | '\u{AB}' | '\u{BB}' | '\u{FF02}')
}

impl QueryWord {
    /// The word's characters, truncated to [`MAX_WORD_CHARS`].
    pub fn chars(&self) -> &[char] {
        &self.chars[..self.chars.len().min(MAX_WORD_CHARS)]
    }

    /// The term of the whole word; `None` if the word is too long to have one.
    pub fn whole_word_term(&self) -> Option<String> {
        terms::whole_word_term(&self.chars)
    }

    /// The terms that find words with this prefix.
    pub fn prefix_terms(&self) -> Vec<PositionedTerm> {
        terms::prefix_terms(self.chars())
    }

    /// The terms that find words with this substring; empty if it is too short.
    pub fn substring_terms(&self) -> Vec<PositionedTerm> {
        terms::substring_terms(self.chars())
    }

    /// The number of typing errors that are tolerated: none in words that are short, very long or have a digit, and in
    /// scripts without spaces, where another character makes another word.
    pub fn max_typos(&self) -> u8 {
        if self.chars.iter().any(|c| c.is_numeric() || is_unspaced(*c)) {
            return 0;
        }
        match self.chars.len() {
            4..=7 => 1,
            8..=MAX_FUZZY_CHARS => 2,
            _ => 0,
        }
    }
}

impl Phrase {
    /// The number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// The terms that find the phrase. In a script without spaces, a word is found as a substring, because its run in
    /// the text may be longer at both ends; if it is too short for that, as a whole word.
    pub fn terms(&self) -> Vec<PositionedTerm> {
        let mut phrase_terms = Vec::new();
        for (position, chars, kind) in self.words() {
            let word_terms = match kind {
                PhraseWordKind::Substring => terms::substring_terms(chars),
                PhraseWordKind::Whole => {
                    terms::whole_word_term(chars).map(|whole| (0, whole)).into_iter().collect()
                }
                PhraseWordKind::Prefix => terms::prefix_terms(chars),
            };
            phrase_terms.extend(word_terms.into_iter().map(|(offset, term)| (position + offset, term)));
        }
        phrase_terms
    }

    /// For each word: its position in the phrase, in characters; the characters that are searched; and how they match.
    pub fn words(&self) -> impl Iterator<Item = (usize, &[char], PhraseWordKind)> {
        self.words.iter().map(|(position, chars)| {
            if is_unspaced_run(chars) && !terms::substring_terms(chars).is_empty() {
                (*position, &chars[..], PhraseWordKind::Substring)
            } else if chars.len() <= MAX_WORD_CHARS {
                (*position, &chars[..], PhraseWordKind::Whole)
            } else {
                (*position, &chars[..MAX_WORD_CHARS], PhraseWordKind::Prefix)
            }
        })
    }

    /// The words, separated by spaces. A last word that is too long for a whole-word term is truncated: a match needs no
    /// more of it.
    pub fn text(&self) -> String {
        let searched_of_last = self.words().last().map_or(0, |(_, chars, _)| chars.len());
        let text_of = |(index, (_, chars)): (usize, &(usize, Vec<char>))| {
            let is_last = index + 1 == self.words.len();
            chars[..if is_last { searched_of_last } else { chars.len() }].iter().collect::<String>()
        };
        self.words.iter().enumerate().map(text_of).collect::<Vec<_>>().join(" ")
    }

    /// Whether the first word of the phrase is found as a substring, so that a match may start inside a word of the
    /// text; and whether the last one is found as a substring or a prefix, so that a match may end inside a word.
    pub fn open_ends(&self) -> (bool, bool) {
        let mut kinds = self.words().map(|(_, _, kind)| kind);
        let first = kinds.next();
        let last = kinds.last().or(first);
        (first == Some(PhraseWordKind::Substring), last.is_some_and(|last| last != PhraseWordKind::Whole))
    }
}

/// Whether a word is a run of a script without spaces.
fn is_unspaced_run(chars: &[char]) -> bool {
    chars.iter().copied().any(is_unspaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Vec<String> {
        parse_query(query)
            .into_iter()
            .map(|clause| match clause {
                Clause::Word(word) => word.chars.iter().collect(),
                Clause::Phrase(phrase) => format!("<{}>", phrase.text()),
            })
            .collect()
    }

    #[test]
    fn quotes_make_phrases() {
        assert_eq!(parse(r#"red "brown fox" jumps"#), ["red", "<brown fox>", "jumps"]);
        assert_eq!(parse("“brown fox” «a b» „c d“"), ["<brown fox>", "<a b>", "<c d>"]);
        assert_eq!(parse(r#""one""two""#), ["<one>", "<two>"]);
    }

    #[test]
    fn operators_and_unclosed_quotes_are_text() {
        assert_eq!(parse(r#"an "unclosed quote"#), ["an", "unclosed", "quote"]);
        assert_eq!(parse(r#"5" screen 6" wide"#), ["5", "screen", "6", "wide"]);
        assert_eq!(
            parse(r"AND (a OR -b) title:x* ~2 [1 TO 2] \"),
            ["and", "a", "or", "b", "title:x", "2", "1", "to"]
        );
        assert_eq!(parse(r#""" "!?" "#), Vec::<String>::new());
    }

    #[test]
    fn a_hebrew_abbreviation_does_not_open_a_phrase() {
        assert_eq!(parse(r#"צה"ל ודו"ח"#), [r#"צה"ל"#, r#"ודו"ח"#]);
        assert_eq!(parse(r#""צה"ל אמר""#), [r#"<צה"ל אמר>"#]);
    }

    #[test]
    fn drops_repeated_words() {
        assert_eq!(parse("the The THE fox"), ["the", "fox"]);
    }

    #[test]
    fn ignores_text_beyond_the_limits() {
        let many = (0..40).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
        assert_eq!(count_query_words(&many), 40);
        assert_eq!(parse_query(&many).len(), MAX_QUERY_WORDS);
        assert_eq!(parse(&"é".repeat(2_000)), ["e".repeat(512)]);
    }

    #[test]
    fn allows_typos_in_words_that_are_long_enough() {
        let typos = |word: &str| QueryWord { chars: word.chars().collect() }.max_typos();
        assert_eq!(["fox", "door", "seventh", "eighteen", "2026", "苹果手机"].map(typos), [0, 1, 1, 2, 0, 0]);
    }
}
