//! What a person typed, as words and phrases that a message must hold. Nothing that can be typed is wrong.

use super::terms::{self, MAX_WORD_CHARS, PositionedTerm};
use super::tokenize::{TokenizedText, is_unspaced_run};

/// The longest query that is read, in bytes; what is beyond is ignored.
pub const MAX_QUERY_BYTES: usize = 1_024;

/// How many words of a query are read; what is beyond is ignored.
pub const MAX_QUERY_WORDS: usize = 32;

/// How many words a query has, those inside quotes included, however many they are.
pub fn count_query_words(query: &str) -> usize {
    TokenizedText::new(query).words.len()
}

/// What each message that is found must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    /// A word, as a whole word, the start of one or inside one.
    Word(QueryWord),
    /// Words next to each other.
    Phrase(Phrase),
}

/// A word of a query, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueryWord {
    chars: Vec<char>,
}

/// A quoted part of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phrase {
    words: Vec<(usize, Vec<char>)>,
}

/// Reads a query.
pub(super) fn parse_query(query: &str) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let mut words = 0;
    for part in quoted_parts(truncate(query, MAX_QUERY_BYTES)) {
        let (text, quoted) = match part {
            QueryPart::Unquoted(text) => (text, false),
            QueryPart::Quoted(text) => (text, true),
        };
        let read = TokenizedText::new(text);
        let left = MAX_QUERY_WORDS - words;
        let mut found =
            read.words.iter().take(left).map(|word| (word.position, read.text(word).chars().collect()));
        words += read.words.len().min(left);
        if quoted {
            let words: Vec<_> = found.collect();
            if !words.is_empty() {
                push_unique(&mut clauses, Clause::Phrase(Phrase { words }));
            }
        } else {
            found
                .by_ref()
                .for_each(|(_, chars)| push_unique(&mut clauses, Clause::Word(QueryWord { chars })));
        }
    }
    clauses
}

/// What is asked twice is asked once.
fn push_unique(clauses: &mut Vec<Clause>, clause: Clause) {
    if !clauses.contains(&clause) {
        clauses.push(clause);
    }
}

fn truncate(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

enum QueryPart<'a> {
    Unquoted(&'a str),
    Quoted(&'a str),
}

/// Parts a query at its quotes. A quote opens where no letter is before it and closes where none is after it, so that
/// the gershayim of a Hebrew abbreviation is neither; one that is never closed is text.
fn quoted_parts(query: &str) -> Vec<QueryPart<'_>> {
    let mut parts = Vec::new();
    let mut rest = query;
    while let Some((open, inner)) = find_quote(rest, |before, _| !before.is_some_and(char::is_alphanumeric)) {
        let Some((close, after)) =
            find_quote(&rest[inner..], |_, after| !after.is_some_and(char::is_alphanumeric))
        else {
            break;
        };
        parts.push(QueryPart::Unquoted(&rest[..open]));
        parts.push(QueryPart::Quoted(&rest[inner..inner + close]));
        rest = &rest[inner + after..];
    }
    parts.push(QueryPart::Unquoted(rest));
    parts
}

/// The first quote that `fits`, given the characters before and after it: where it starts and where it ends.
fn find_quote(text: &str, fits: impl Fn(Option<char>, Option<char>) -> bool) -> Option<(usize, usize)> {
    text.char_indices().filter(|(_, c)| is_quote(*c)).find_map(|(at, quote)| {
        let end = at + quote.len_utf8();
        fits(text[..at].chars().next_back(), text[end..].chars().next()).then_some((at, end))
    })
}

/// Double quotes as keyboards of many languages give them.
fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201C}' | '\u{201D}' | '\u{201E}' | '\u{201F}' | '\u{AB}' | '\u{BB}' | '\u{FF02}')
}

impl QueryWord {
    /// The word's characters, as far as they matter.
    pub fn chars(&self) -> &[char] {
        &self.chars[..self.chars.len().min(MAX_WORD_CHARS)]
    }

    /// The term of the whole word.
    pub fn whole_word_term(&self) -> Option<String> {
        terms::whole_word_term(&self.chars)
    }

    /// The terms of the words that start with it.
    pub fn starting(&self) -> Vec<PositionedTerm> {
        terms::prefix_terms(self.chars())
    }

    /// The terms of the words that hold it; empty where it is too short for that.
    pub fn substring_terms(&self) -> Vec<PositionedTerm> {
        terms::substring_terms(self.chars())
    }

    /// How many typing errors may be forgiven in it: none in short words, in numbers, and in scripts without spaces,
    /// where another character is another word. The limit bounds the size of the automaton that finds them.
    pub fn max_typos(&self) -> u8 {
        const MAX_CHARS: usize = 64;
        if self.chars.iter().any(|c| c.is_numeric() || super::script::is_unspaced(*c)) {
            return 0;
        }
        match self.chars.len() {
            4..=7 => 1,
            8..=MAX_CHARS => 2,
            _ => 0,
        }
    }
}

impl Phrase {
    /// How many words it has.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Its terms. Of a run without spaces the inside is looked for: the phrase's other words say where it ends.
    pub fn terms(&self) -> Vec<PositionedTerm> {
        let mut placed = Vec::new();
        for (position, chars) in &self.words {
            let inside = if self.is_run(chars) { terms::substring_terms(chars) } else { Vec::new() };
            if !inside.is_empty() {
                placed.extend(inside.into_iter().map(|(at, term)| (position + at, term)));
            } else if let Some(whole) = terms::whole_word_term(chars) {
                placed.push((*position, whole));
            } else {
                let start = terms::prefix_terms(&chars[..MAX_WORD_CHARS]);
                placed.extend(start.into_iter().map(|(at, term)| (position + at, term)));
            }
        }
        placed
    }

    /// Its words with a space between each two.
    pub fn text(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|(_, chars)| chars.iter().collect()).collect();
        words.join(" ")
    }

    /// Whether it may start, and may end, inside a word: where its first or last word is a run of two characters or
    /// more.
    pub fn open_ends(&self) -> (bool, bool) {
        let open = |word: Option<&(usize, Vec<char>)>| {
            word.is_some_and(|(_, chars)| self.is_run(chars) && !terms::substring_terms(chars).is_empty())
        };
        (open(self.words.first()), open(self.words.last()))
    }

    #[expect(clippy::unused_self, reason = "reads as a question about a phrase's word")]
    fn is_run(&self, chars: &[char]) -> bool {
        is_unspaced_run(&chars.iter().collect::<String>())
    }
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
    fn whatever_is_no_phrase_is_text() {
        assert_eq!(parse(r#"an "unclosed quote"#), ["an", "unclosed", "quote"]);
        assert_eq!(parse(r#"5" screen 6" wide"#), ["5", "screen", "6", "wide"]);
        assert_eq!(
            parse(r"AND (a OR -b) title:x* ~2 [1 TO 2] \"),
            ["and", "a", "or", "b", "title:x", "2", "1", "to"]
        );
        assert_eq!(parse(r#""" "!?" "#), Vec::<String>::new());
    }

    #[test]
    fn a_hebrew_abbreviation_opens_no_phrase() {
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
