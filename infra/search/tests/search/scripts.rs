//! Whole words, prefixes, substrings and phrases in many scripts.

use crate::fixture::Fixture;

/// A text, with queries that find it and queries that don't.
struct Case {
    text: &'static str,
    found_by: &'static [&'static str],
    not_found_by: &'static [&'static str],
}

const CASES: &[Case] = &[
    // Latin
    Case {
        text: "Žluťoučký kůň pěl ďábelské ódy",
        found_by: &["zlutoucky", "KŮŇ", "dabel", "ouck", "pěl ody"],
        not_found_by: &["kunpel", "lu"],
    },
    Case {
        text: "Tiếng Việt rất đẹp",
        found_by: &["tieng", "viet", "đẹp", "dep", "Việ", "iếng"],
        not_found_by: &["iet nam"],
    },
    Case {
        text: "Weiße Füße, große Straße",
        found_by: &["weisse", "strasse", "STRASSE", "fuss", "rass"],
        not_found_by: &["ass5"],
    },
    Case {
        text: "Isparta'da IŞIK ve ışık",
        found_by: &["ışık", "isik", "ISIK", "isparta"],
        not_found_by: &["isikli"],
    },
    // Greek and Cyrillic
    Case {
        text: "Ο Οδυσσέας στην Ιθάκη",
        found_by: &["οδυσσεας", "ΟΔΥΣΣΕΑΣ", "ιθακ", "υσσε"],
        not_found_by: &["θακηο"],
    },
    Case {
        text: "Ёжик ещё спит в тёмном лесу",
        found_by: &["ежик", "ёжик", "ЕЩЕ", "тем", "мно", "лесу спит"],
        not_found_by: &["жи", "лесуё"],
    },
    Case {
        text: "п'ять яблук і їжак",
        found_by: &["п’ять", "яблук", "їжа", "блу"],
        not_found_by: &["пять яблук"],
    },
    // Arabic and Hebrew
    Case {
        text: "مَرْحَبًا بِالعالَم الجميل",
        found_by: &["مرحبا", "بالعالم", "الجم", "عال", "مرحبا الجميل"],
        not_found_by: &["عا", "حبابا"],
    },
    Case {
        text: "من کتاب را می‌خواهم",
        found_by: &["كتاب", "کتا", "میخواهم", "می‌خواهم", "تاب"],
        not_found_by: &["کتابرا"],
    },
    Case {
        text: "שָׁלוֹם עוֹלָם, דבר צה\"ל",
        found_by: &["שלום", "עולם", "שלו", "לום", "צה\"ל", "צה״ל"],
        not_found_by: &["לו", "שלוםעולם"],
    },
    // Indic
    Case {
        text: "नमस्ते दुनिया, मैं हिन्दी बोलता हूँ",
        found_by: &["नमस्ते", "दुनिया", "हिन्", "मस्त", "बोलता नमस्ते", "हि"],
        not_found_by: &["नमस्तेदुनिया", "िन"],
    },
    Case {
        text: "আমি বাংলায় গান গাই", found_by: &["বাংলায়", "বাং", "ংলা", "গান"], not_found_by: &["বাংলাদেশ"]
    },
    Case {
        text: "வணக்கம் உலகம்", found_by: &["வணக்கம்", "உலக", "ணக்க"], not_found_by: &["வணக்கமஉலகம்"]
    },
    Case {
        text: "నమస్కారం ప్రపంచం", found_by: &["నమస్కారం", "ప్రప", "స్కా"], not_found_by: &["ప్రపంచము"]
    },
    // South-East Asia
    Case {
        text: "สวัสดีครับ ผมชื่อสมชาย",
        found_by: &["สวัสดีครับ", "สวัสดี", "ครับ", "สมชาย", "ชื่อ"],
        not_found_by: &["ครับผม", "สวัสดีค่ะ"],
    },
    Case {
        text: "ខ្ញុំស្រឡាញ់ភាសាខ្មែរ", found_by: &["ខ្ញុំ", "ភាសា", "ខ្មែរ"], not_found_by: &["ភាសាថៃ"]
    },
    Case {
        text: "မြန်မာဘာသာစကား", found_by: &["မြန်မာ", "ဘာသာ", "စကား"], not_found_by: &["စကာလုံး"]
    },
    // Han, Kana, Hangul
    Case {
        text: "我喜欢吃苹果，你呢？",
        found_by: &["我喜欢吃苹果", "我喜欢", "喜欢", "苹果", "吃苹果", "你呢", "我", "你呢 苹果"],
        not_found_by: &["苹果你", "果吃", "欢喜", "欢"],
    },
    Case {
        text: "東京タワーへ行きました",
        found_by: &["東京", "タワー", "ﾀﾜｰ", "行きました", "京タ", "東"],
        not_found_by: &["大阪", "タワ大"],
    },
    Case {
        text: "がっこうでガム",
        found_by: &["がっこう", "ガム", "がっ", "っこ"],
        not_found_by: &["かっこう", "カム"],
    },
    Case {
        text: "안녕하세요 세계 여러분",
        found_by: &["안녕하세요", "안녕", "하세", "세계", "여러", "안"],
        not_found_by: &["요세", "녕"],
    },
    // Emoji and mixtures
    Case {
        text: "Party 🎉🎉 with 👨‍👩‍👧 in 🇩🇪 ❤️ 👍🏽 1️⃣",
        found_by: &["🎉", "👨‍👩‍👧", "🇩🇪", "❤", "❤️", "👍🏽", "👍", "1️⃣", "party 🎉"],
        not_found_by: &["🇫🇷", "🎊", "👩‍👩‍👧"],
    },
    Case {
        text: "iPhone手机很好ok요일",
        found_by: &["iphone", "手机", "很好", "phone", "ok요", "요일"],
        not_found_by: &["好手"],
    },
    Case {
        text: "Ｆｕｌｌｗｉｄｔｈ ２０２６ ٣٤",
        found_by: &["fullwidth", "2026", "34", "width"],
        not_found_by: &["43"],
    },
];

#[test]
fn finds_words_prefixes_and_substrings_in_many_scripts() {
    let texts: Vec<&str> = CASES.iter().map(|case| case.text).collect();
    let fixture = Fixture::with_texts(&texts);
    for case in CASES {
        for query in case.found_by {
            assert!(fixture.finds(query, case.text), "{query} should find {}", case.text);
        }
        for query in case.not_found_by {
            assert!(!fixture.finds(query, case.text), "{query} should not find {}", case.text);
        }
    }
}

#[test]
fn match_kinds_rank_alike_in_many_scripts() {
    for (texts, query) in [
        (["preform", "formal", "form"], "form"),
        (["преформа", "формат", "форма"], "форма"),
        (["والكتاب", "كتابه", "كتاب"], "كتاب"),
        (["吃苹果", "苹果树", "苹果"], "苹果"),
        (["新东京站", "东京站", "东京"], "东京"),
        (["대한민국", "한민족", "한민"], "한민"),
        (["ที่ประเทศ", "ประเทศไทย", "ประเทศ"], "ประเทศ"),
        (["अनमस्ते", "नमस्तेजी", "नमस्ते"], "नमस्ते"),
    ] {
        let fixture = Fixture::with_texts(&texts);
        let expected: Vec<&str> = texts.iter().rev().copied().collect();
        assert_eq!(fixture.find(query), expected, "{query}");
    }
}

#[test]
fn a_phrase_in_a_script_without_spaces_matches_inside_a_longer_run_of_characters() {
    let fixture = Fixture::with_texts(&["我很喜欢吃苹果", "苹果很好吃", "喜欢 吃"]);
    assert_eq!(fixture.find("\"喜欢吃\""), ["我很喜欢吃苹果"]);
}

#[test]
fn a_phrase_may_mix_scripts() {
    let fixture = Fixture::with_texts(&[
        "我买了新手机 iPhone pro 很好",
        "iphone 手机",
        "手机 iphones pro",
        "手机壳 iphone pro",
    ]);
    assert_eq!(fixture.find("\"手机 iphone pro\""), ["我买了新手机 iPhone pro 很好"]);
    assert_eq!(fixture.find("\"pro 很\""), Vec::<String>::new());
    assert_eq!(fixture.find("\"iphone 手机\""), ["iphone 手机"]);
}

#[test]
fn emoji_count_as_words_of_a_phrase() {
    let fixture = Fixture::with_texts(&["good 👍 day", "good day 👍", "good👍day"]);
    assert_eq!(fixture.find("\"good 👍 day\""), ["good👍day", "good 👍 day"]);
}
