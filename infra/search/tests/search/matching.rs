//! Matching of whole words, prefixes, substrings, phrases and typing errors, and the order by relevance.

use chat_ports::search_index::{SearchRequest, Sort};

use crate::fixture::{Fixture, request};

#[test]
fn better_matches_come_first_and_newer_ones_among_equals() {
    let fixture = Fixture::with_texts(&[
        "perform at once",
        "a form of art",
        "formal dress",
        "platform nine",
        "fill the form",
        "forms",
    ]);
    assert_eq!(
        fixture.find("form"),
        ["fill the form", "a form of art", "forms", "formal dress", "platform nine", "perform at once"]
    );
}

#[test]
fn every_word_must_match_and_each_adds_to_the_score() {
    let fixture =
        Fixture::with_texts(&["red apples", "green apple", "red apple", "redder apple", "hundred apples"]);
    assert_eq!(fixture.find("red apple"), ["red apple", "redder apple", "red apples", "hundred apples"]);
    assert!(fixture.find("red pear").is_empty());
}

#[test]
fn short_words_match_only_as_whole_words_and_prefixes() {
    let fixture = Fixture::with_texts(&["go", "gone", "ago", "x", "xy", "ax"]);
    assert_eq!(fixture.find("go"), ["go", "gone"]);
    assert_eq!(fixture.find("x"), ["x", "xy"]);
}

#[test]
fn a_substring_does_not_match_across_words() {
    let fixture = Fixture::with_texts(&["abc def", "abcdef", "cde", "abc, def"]);
    assert_eq!(fixture.find("cde"), ["cde", "abcdef"]);
    assert_eq!(fixture.find("abcdef"), ["abcdef"]);
    assert_eq!(fixture.find("bcdef"), ["abcdef"]);
}

#[test]
fn ngrams_in_another_order_do_not_match() {
    let fixture = Fixture::with_texts(&["abcxbcd", "bcdabc", "abcd", "xabcdx", "abc bcd"]);
    assert_eq!(fixture.find("abcd"), ["abcd", "xabcdx"]);
}

#[test]
fn a_prefix_ranks_above_a_substring() {
    let fixture = Fixture::with_texts(&["banana", "anagram", "ananas"]);
    assert_eq!(fixture.find("ana"), ["ananas", "anagram", "banana"]);
    assert_eq!(fixture.find("anan"), ["ananas", "banana"]);
}

#[test]
fn ignores_case_and_diacritics() {
    let fixture = Fixture::with_texts(&["Crème BRÛLÉE", "creme", "CREMÉ"]);
    for query in ["creme", "CRÈME", "crème", "cre\u{300}me"] {
        assert_eq!(fixture.find(query).len(), 3, "{query}");
    }
}

#[test]
fn a_phrase_matches_whole_adjacent_words_in_order() {
    let fixture = Fixture::with_texts(&[
        "a brown fox ran",
        "fox brown",
        "brown foxes",
        "brown and fox",
        "nutbrown fox",
        "Brown -- FOX!",
        "brown fox",
    ]);
    assert_eq!(fixture.find("\"brown fox\""), ["brown fox", "Brown -- FOX!", "a brown fox ran"]);
    assert_eq!(fixture.find("“brown fox”"), fixture.find("\"brown fox\""));
}

#[test]
fn a_phrase_of_one_word_matches_the_whole_word() {
    let fixture = Fixture::with_texts(&["forms", "form", "reform"]);
    assert_eq!(fixture.find("\"form\""), ["form"]);
}

#[test]
fn phrases_and_words_combine() {
    let fixture = Fixture::with_texts(&["the brown fox jumps", "the brown fox", "jumps, brown the fox"]);
    assert_eq!(fixture.find("\"brown fox\" jump"), ["the brown fox jumps"]);
}

#[test]
fn a_phrase_may_repeat_its_words() {
    let fixture = Fixture::with_texts(&["no no", "no no no", "no", "no yes no"]);
    assert_eq!(fixture.find("\"no no\""), ["no no no", "no no"]);
    assert_eq!(fixture.find("\"no no no\""), ["no no no"]);
}

#[test]
fn a_phrase_scores_as_whole_words() {
    let fixture = Fixture::with_texts(&["brown foxes fox", "brown fox"]);
    let page = fixture.index.search(&request("\"brown fox\"")).unwrap();
    let plain = fixture.index.search(&request("brown fox")).unwrap();
    assert_eq!(page.hits[0].score, plain.hits[0].score);
}

#[test]
fn words_joined_by_punctuation_match_whole_and_by_parts() {
    let fixture =
        Fixture::with_texts(&["see example.com", "l'homme est mort", "snake_case", "don’t go", "end.Start"]);
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
        let page = fixture.index.search(&request(query)).unwrap();
        assert_eq!(
            page.hits.iter().map(|hit| hit.document.body.as_str()).collect::<Vec<_>>(),
            [text],
            "{query}"
        );
        // Each word that matches as a whole word scores 8.
        assert_eq!(page.hits[0].score % 8, 0, "{query} should match as whole words");
    }
}

#[test]
fn searches_operators_and_unclosed_quotes_as_text() {
    let fixture = Fixture::with_texts(&["a OR b", "title:x", "(brackets)", "5\" screen", "C++ and C#"]);
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
        assert!(fixture.finds(query, text), "{query}");
    }
    for hostile in
        ["\\", "\"\"\"", "a:b:c:", "*", "?*", "^", "~", "[", "{!}", "\u{0}", "/re.*/", "'\"", "- -a", "+"]
    {
        fixture.index.search(&request(hostile)).unwrap();
    }
}

#[test]
fn a_query_without_a_word_finds_nothing() {
    let fixture = Fixture::with_texts(&["!!!", "...", "a"]);
    for query in ["!!!", "...", "\"!\"", ""] {
        let page = fixture.index.search(&request(query)).unwrap();
        assert_eq!((page.hits.len(), page.total.count(), page.next), (0, 0, None), "{query}");
    }
}

#[test]
fn fuzzy_forgives_one_typo_from_four_letters_and_two_from_eight() {
    let fixture = Fixture::with_texts(&["search box", "beautiful day", "cat"]);
    for (query, text) in [
        ("serach", "search box"),
        ("searh", "search box"),
        ("seaarch", "search box"),
        ("zearch", "search box"),
        ("beutifull", "beautiful day"),
        ("baeutifil", "beautiful day"),
    ] {
        assert_eq!(fixture.find_fuzzy(query), [text], "{query}");
        assert!(fixture.find(query).is_empty(), "{query} is found without fuzzy");
    }
    for query in ["cta", "kat", "saerhc", "btiful", "serach bocs"] {
        assert!(fixture.find_fuzzy(query).is_empty(), "{query}");
    }
}

#[test]
fn a_typo_is_forgiven_in_a_word_and_not_in_the_tag_of_its_term() {
    // The term of the whole word `game` is `wgame`. Without its tag `w`, it would be the term of the n-gram `ame`, and
    // find `american` and `camera`.
    let fixture = Fixture::with_texts(&["american camera", "gam", "fame", "same", "ame"]);
    let mut found = fixture.find_fuzzy("game");
    found.sort_unstable();
    assert_eq!(found, ["ame", "fame", "gam", "same"]);
}

#[test]
fn a_fuzzy_match_ranks_below_all_other_kinds() {
    let fixture = Fixture::with_texts(&["from here", "platforms", "forms", "form"]);
    assert_eq!(fixture.find_fuzzy("form"), ["form", "forms", "platforms", "from here"]);
}

#[test]
fn fuzzy_works_in_every_order() {
    let fixture = Fixture::with_texts(&["search box", "cat", "the serach"]);
    for sort in [Sort::Relevance, Sort::Newest, Sort::Oldest] {
        let page = fixture.index.search(&SearchRequest { fuzzy: true, sort, ..request("serach") }).unwrap();
        let mut found: Vec<_> = page.hits.iter().map(|hit| (&*hit.document.body, hit.score)).collect();
        found.sort_unstable();
        assert_eq!((page.total.count(), found), (2, vec![("search box", 1), ("the serach", 8)]), "{sort:?}");
    }
}

#[test]
fn fuzzy_does_not_apply_to_numbers() {
    let fixture = Fixture::with_texts(&["in 2024"]);
    assert!(fixture.find_fuzzy("2025").is_empty());
}

#[test]
fn finds_words_of_any_length() {
    let long = "ab".repeat(300);
    let fixture = Fixture::with_texts(&[&long, "abc"]);
    assert_eq!(fixture.find(&long[..20]), [long.as_str()]);
    assert_eq!(fixture.find(&long[..500]), [long.as_str()]);
    assert_eq!(fixture.find(&long), [long.as_str()]);
}

#[test]
fn ignores_the_part_of_a_query_beyond_the_limits() {
    let fixture = Fixture::with_texts(&["one two three"]);
    let many = "one ".repeat(40) + "absent";
    assert_eq!(fixture.find(&many).len(), 1);
    let long = format!("two{}", " ".repeat(1_100)) + "absent";
    assert_eq!(fixture.find(&long).len(), 1);
}
