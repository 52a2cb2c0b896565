//! App tokens: the only credential of an app.

use std::fmt;
use std::hash::{Hash, Hasher};

use subtle::ConstantTimeEq;
use thiserror::Error;

/// The base58 alphabet of Bitcoin addresses: no `0`, `O`, `I` or `l`, which are easily confused.
const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// A lookup table of the alphabet, because tokens are parsed for most requests and events.
const IN_ALPHABET: [bool; 256] = {
    let mut is_in = [false; 256];
    let mut index = 0;
    while index < ALPHABET.len() {
        is_in[ALPHABET[index] as usize] = true;
        index += 1;
    }
    is_in
};

/// The largest multiple of 58 that fits into a byte. Random bytes of this value or more are discarded, because they
/// would favour the first characters of the alphabet.
const UNBIASED_BYTE_LIMIT: u8 = 232;

/// An app's secret token: 36 random base58 characters, 210 bits.
///
/// `Debug` shows the first four characters only, and `==` takes constant time.
#[derive(Clone, Copy, PartialOrd, Ord)]
pub struct AppToken([u8; AppToken::LENGTH]);

/// The error for text that is not an app token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an app token is {} base58 characters", AppToken::LENGTH)]
pub struct InvalidAppToken;

impl AppToken {
    /// The length of a token in characters.
    pub const LENGTH: usize = 36;

    /// Generates a token; `fill` fills a buffer with random bytes.
    pub fn generate(mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut token = [0; Self::LENGTH];
        let mut filled = 0;
        let mut random = [0; 64];
        while filled < token.len() {
            fill(&mut random);
            for byte in random.iter().filter(|byte| **byte < UNBIASED_BYTE_LIMIT).take(token.len() - filled) {
                token[filled] = ALPHABET[usize::from(byte % 58)];
                filled += 1;
            }
        }
        Self(token)
    }

    /// Parses a token.
    pub fn parse(text: &str) -> Result<Self, InvalidAppToken> {
        let bytes: [u8; Self::LENGTH] = text.as_bytes().try_into().map_err(|_| InvalidAppToken)?;
        if bytes.iter().all(|byte| IN_ALPHABET[usize::from(*byte)]) {
            Ok(Self(bytes))
        } else {
            Err(InvalidAppToken)
        }
    }

    /// The token as text. It is a credential: use it where a token is needed, never in diagnostics.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl PartialEq for AppToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AppToken {}

impl Hash for AppToken {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

impl fmt::Debug for AppToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppToken({}…)", &self.expose()[..4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting_bytes() -> impl FnMut(&mut [u8]) {
        let mut next = 0_u8;
        move |buffer| {
            for byte in buffer {
                *byte = next;
                next = next.wrapping_add(1);
            }
        }
    }

    #[test]
    fn a_generated_token_parses_back() {
        let token = AppToken::generate(counting_bytes());
        assert_eq!(AppToken::parse(token.expose()), Ok(token));
    }

    #[test]
    fn discards_random_bytes_that_would_bias_the_token() {
        let mut rounds = 0;
        let token = AppToken::generate(|buffer| {
            buffer.fill(if rounds == 0 { 255 } else { 57 });
            rounds += 1;
        });
        assert_eq!(token.expose(), "z".repeat(36));
        assert_eq!(rounds, 2);
    }

    #[test]
    fn rejects_text_of_another_form() {
        let token = "a".repeat(36);
        for wrong in ["", &token[1..], &format!("{token}a"), &"0".repeat(36), &"é".repeat(18)] {
            assert_eq!(AppToken::parse(wrong), Err(InvalidAppToken), "{wrong}");
        }
    }

    #[test]
    fn debug_does_not_reveal_the_token() {
        let token = AppToken::generate(counting_bytes());
        assert_eq!(format!("{token:?}"), "AppToken(1234…)");
    }
}
