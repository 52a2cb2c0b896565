//! Words, starts, insides, phrases and typing errors, and which of them come first.

use chat_ports::search_index::{SearchRequest, Sort};

use crate::fixture::{Fixture, request};

#[test]
fn better_matches_come_first_and_newer_ones_among_equals() {
    let index = Fixture::of(&[
        "perform at once",
        "a form of art",
        "formal dress",
        "platform nine",
        "fill the form",
        "forms",
    ]);
    assert_eq!(
        index.find("form"),
        ["fill the form", "a form of art", "forms", "formal dress", "platform nine", "perform at once"]
    );
}

#[test]
fn every_word_must_match_and_each_counts() {
    let index = Fixture::of(&["red apples", "green apple", "red apple", "redder apple", "hundred apples"]);
    assert_eq!(index.find("red apple"), ["red apple", "redder apple", "red apples", "hundred apples"]);
    assert!(index.find("red pear").is_empty());
}

#[test]
fn short_words_match_whole_or_as_a_start_only() {
    let index = Fixture::of(&["go", "gone", "ago", "x", "xy", "ax"]);
    assert_eq!(index.find("go"), ["go", "gone"]);
    assert_eq!(index.find("x"), ["x", "xy"]);
}

#[test]
fn nothing_matches_across_words() {
    let index = Fixture::of(&["abc def", "abcdef", "cde", "abc, def"]);
    assert_eq!(index.find("cde"), ["cde", "abcdef"]);
    assert_eq!(index.find("abcdef"), ["abcdef"]);
    assert_eq!(index.find("bcdef"), ["abcdef"]);
}

#[test]
fn grams_of_a_word_in_another_order_do_not_match() {
    let index = Fixture::of(&["abcxbcd", "bcdabc", "abcd", "xabcdx", "abc bcd"]);
    assert_eq!(index.find("abcd"), ["abcd", "xabcdx"]);
}

#[test]
fn a_start_is_the_start_of_a_word() {
    let index = Fixture::of(&["banana", "anagram", "ananas"]);
    assert_eq!(index.find("ana"), ["ananas", "anagram", "banana"]);
    assert_eq!(index.find("anan"), ["ananas", "banana"]);
}

#[test]
fn case_and_diacritics_do_not_matter_on_either_side() {
    let index = Fixture::of(&["Crème BRÛLÉE", "creme", "CREMÉ"]);
    for query in ["creme", "CRÈME", "crème", "cre\u{300}me"] {
        assert_eq!(index.find(query).len(), 3, "{query}");
    }
}

#[test]
fn a_phrase_is_its_words_whole_adjacent_and_in_order() {
    let index = Fixture::of(&[
        "a brown fox ran",
        "fox brown",
        "brown foxes",
        "brown and fox",
        "nutbrown fox",
        "Brown -- FOX!",
        "brown fox",
    ]);
    assert_eq!(index.find("\"brown fox\""), ["brown fox", "Brown -- FOX!", "a brown fox ran"]);
    assert_eq!(index.find("“brown fox”"), index.find("\"brown fox\""));
}

#[test]
fn a_phrase_of_one_word_is_that_word_whole() {
    let index = Fixture::of(&["forms", "form", "reform"]);
    assert_eq!(index.find("\"form\""), ["form"]);
}

#[test]
fn phrases_and_words_combine() {
    let index = Fixture::of(&["the brown fox jumps", "the brown fox", "jumps, brown the fox"]);
    assert_eq!(index.find("\"brown fox\" jump"), ["the brown fox jumps"]);
}

#[test]
fn a_phrase_may_repeat_its_words() {
    let index = Fixture::of(&["no no", "no no no", "no", "no yes no"]);
    assert_eq!(index.find("\"no no\""), ["no no no", "no no"]);
    assert_eq!(index.find("\"no no no\""), ["no no no"]);
}

#[test]
fn a_phrase_counts_as_whole_words() {
    let index = Fixture::of(&["brown foxes fox", "brown fox"]);
    let page = index.index.search(&request("\"brown fox\"")).unwrap();
    let plain = index.index.search(&request("brown fox")).unwrap();
    assert_eq!(page.hits[0].score, plain.hits[0].score);
}

#[test]
fn words_joined_by_punctuation_are_found_whole_and_by_their_parts() {
    let index = Fixture::of(&["see example.com", "l'homme est mort", "snake_case", "don’t go", "end.Start"]);
    for (query, text) in [
        ("example.com", "see example.com"),
        ("example", "see example.com"),
        ("com", "see example.com"),
        ("homme", "l'homme est mort"),
        ("l’homme", "l'homme est mort"),
        ("\"homme est\"", "l'homme est mort"),
        ("case", "snake_case"),
        ("don't", "don’t go"),
        ("\"end start\"", "end.Start"),
    ] {
        let page = index.index.search(&request(query)).unwrap();
        assert_eq!(
            page.hits.iter().map(|hit| hit.document.body.as_str()).collect::<Vec<_>>(),
            [text],
            "{query}"
        );
        assert_eq!(page.hits[0].score % 8, 0, "{query} should match as whole words");
    }
}

#[test]
fn whatever_does_not_parse_is_searched_as_text() {
    let index = Fixture::of(&["a OR b", "title:x", "(brackets)", "5\" screen", "C++ and C#"]);
    for (query, text) in [
        ("b OR a", "a OR b"),
        ("title:x", "title:x"),
        ("title:", "title:x"),
        ("(brackets", "(brackets)"),
        ("5\" screen", "5\" screen"),
        ("\"screen", "5\" screen"),
        ("c++", "C++ and C#"),
        ("brackets~^[*", "(brackets)"),
    ] {
        assert!(index.finds(query, text), "{query}");
    }
    for hostile in
        ["\\", "\"\"\"", "a:b:c:", "*", "?*", "^", "~", "[", "{!}", "\u{0}", "/re.*/", "'\"", "- -a", "+"]
    {
        index.index.search(&request(hostile)).unwrap();
    }
}

#[test]
fn a_query_without_a_word_finds_nothing() {
    let index = Fixture::of(&["!!!", "...", "a"]);
    for query in ["!!!", "...", "\"!\"", ""] {
        let page = index.index.search(&request(query)).unwrap();
        assert_eq!((page.hits.len(), page.total, page.next), (0, 0, None), "{query}");
    }
}

#[test]
fn fuzzy_forgives_one_typo_from_four_letters_and_two_from_eight() {
    let index = Fixture::of(&["search box", "beautiful day", "cat"]);
    for (query, text) in [
        ("serach", "search box"),
        ("searh", "search box"),
        ("seaarch", "search box"),
        ("zearch", "search box"),
        ("beutifull", "beautiful day"),
        ("baeutifil", "beautiful day"),
        ("serach bocs", "search box"),
    ] {
        let expected: Vec<&str> = if query == "serach bocs" { vec![] } else { vec![text] };
        assert_eq!(index.find_fuzzy(query), expected, "{query}");
        assert!(index.find(query).is_empty(), "{query} without fuzzy");
    }
    for query in ["cta", "kat", "saerhc", "btiful"] {
        assert!(index.find_fuzzy(query).is_empty(), "{query}");
    }
}

#[test]
fn a_typo_counts_least_and_the_other_ways_still_count() {
    let index = Fixture::of(&["from here", "platforms", "forms", "form"]);
    assert_eq!(index.find_fuzzy("form"), ["form", "forms", "platforms", "from here"]);
}

#[test]
fn typos_are_forgiven_in_every_order() {
    let index = Fixture::of(&["search box", "cat", "the serach"]);
    for sort in [Sort::Relevance, Sort::Newest, Sort::Oldest] {
        let page = index.index.search(&SearchRequest { fuzzy: true, sort, ..request("serach") }).unwrap();
        let mut found: Vec<_> = page.hits.iter().map(|hit| (&*hit.document.body, hit.score)).collect();
        found.sort_unstable();
        assert_eq!((page.total, found), (2, vec![("search box", 1), ("the serach", 8)]), "{sort:?}");
    }
}

#[test]
fn a_typo_in_a_number_is_another_number() {
    let index = Fixture::of(&["in 2024"]);
    assert!(index.find_fuzzy("2025").is_empty());
}

#[test]
fn words_of_any_length_are_found() {
    let long = "ab".repeat(300);
    let index = Fixture::of(&[&long, "abc"]);
    assert_eq!(index.find(&long[..20]), [long.as_str()]);
    assert_eq!(index.find(&long[..500]), [long.as_str()]);
    assert_eq!(index.find(&long), [long.as_str()]);
}

#[test]
fn what_is_over_the_limits_of_a_query_is_ignored() {
    let index = Fixture::of(&["one two three"]);
    let many = "one ".repeat(40) + "absent";
    assert_eq!(index.find(&many).len(), 1);
    let long = format!("two{}", " ".repeat(1_100)) + "absent";
    assert_eq!(index.find(&long).len(), 1);
}
