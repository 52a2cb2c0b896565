//! Tokens of apps in form fields: they are secrets, and must not get into an address.

use chat_domain::AppToken;

/// The shortest text that is treated as a possible part of a token, in characters.
const MIN_SECRET_CHARS: usize = 12;

/// The words of a text: runs of letters and digits. A token is found if it is one of them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_ascii_alphanumeric())
}

/// Returns the first word of a text that is the token of an app. The text may be a URL of the API.
pub(crate) fn token_in(text: &str) -> Option<AppToken> {
    words(text).find_map(|word| AppToken::parse(word).ok())
}

/// Whether a text has a token or a possible part of one.
pub(crate) fn may_be_secret(text: &str) -> bool {
    words(text).any(may_be_part_of_token)
}

/// Whether a word is a token, or could be a part of one: it is long, and mixes digits, capitals and small letters of
/// the base58 alphabet.
fn may_be_part_of_token(word: &str) -> bool {
    const NOT_IN_TOKENS: [char; 4] = ['0', 'I', 'O', 'l'];
    let has = |condition: fn(char) -> bool| word.chars().any(condition);
    word.len() >= MIN_SECRET_CHARS
        && !word.contains(NOT_IN_TOKENS)
        && has(|c| c.is_ascii_digit())
        && has(|c| c.is_ascii_uppercase())
        && has(|c| c.is_ascii_lowercase())
        || AppToken::parse(word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_if_it_is_a_word_of_the_text() {
        let token = "4Vq9".repeat(9);
        for text in [
            token.clone(),
            format!("http://127.0.0.1:8000/api/v1/apps/{token}/chats"),
            format!("\"{token}\""),
            format!("token:{token}."),
            format!("app_{token}-chat-1"),
        ] {
            assert!(token_in(&text).is_some_and(|found| found.expose() == token), "{text}");
            assert!(may_be_secret(&text), "{text}");
        }
        assert_eq!(token_in(&"4Vq9".repeat(10)), None);
    }

    #[test]
    fn parts_of_tokens_may_be_secret_and_ordinary_words_are_not() {
        for secret in ["4Vq9abcdefgh", "apps/4Vq9abcdefgh", "a".repeat(36).as_str()] {
            assert!(may_be_secret(secret), "{secret}");
        }
        for text in ["usb port", "internationalization", "4Vq9", "4bf92f3577b34da6a3ce929d0e0e4736"] {
            assert!(!may_be_secret(text), "{text}");
        }
    }
}
