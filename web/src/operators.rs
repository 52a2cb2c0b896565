//! Operators: their names, hashed tokens and scopes, and the format of the file that lists them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// The maximal number of operators in a file.
pub const MAX_OPERATORS: usize = 1_000;

/// The maximal size of a file of operators, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// The longest name of an operator, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The number of random bytes in a token: too many to guess, so a fast hash of the token is as safe as a slow one.
const TOKEN_BYTES: usize = 32;

/// The beginning of each token that [`OperatorToken::generate`] makes, by which scanners for leaked secrets can find
/// it.
const TOKEN_PREFIX: &str = "chatop_";

const HASH_PREFIX: &str = "sha256:";

/// The name of an operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperatorName(Arc<str>);

/// The error for text that is not the name of an operator.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidOperatorName {
    /// The text is empty, too long, or has characters that a name may not have.
    #[error("a name is 1 to {MAX_NAME_BYTES} letters (a-z, A-Z), digits, and the characters . _ - @")]
    Malformed,
    /// The name is [`OperatorName::ADMIN`].
    #[error("the name `{}` belongs to the admin token", OperatorName::ADMIN)]
    Reserved,
}

impl OperatorName {
    /// The name of the operator who presents the admin token.
    pub const ADMIN: &str = "admin";

    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, InvalidOperatorName> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.bytes().all(is_valid) {
            return Err(InvalidOperatorName::Malformed);
        }
        if text == Self::ADMIN {
            return Err(InvalidOperatorName::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that operators may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read everything, including dry runs of actions.
    Read,
    /// Change something.
    Act,
}

impl Scope {
    /// Returns the scope's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Act => "act",
        }
    }
}

/// The scopes of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// Only [`Scope::Read`].
    ReadOnly,
    /// All scopes.
    ReadAndAct,
}

/// The error for text that is not a list of scopes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidScopes {
    /// A word is not a scope, or is repeated.
    #[error("the scopes are `read` or `read,act`")]
    Malformed,
    /// `act` stands alone.
    #[error("`act` needs `read`: who acts can see what the action would do; write `read,act`")]
    ActAlone,
}

impl Scopes {
    /// Whether these scopes include `scope`.
    pub const fn include(self, scope: Scope) -> bool {
        match (self, scope) {
            (_, Scope::Read) | (Self::ReadAndAct, _) => true,
            (Self::ReadOnly, Scope::Act) => false,
        }
    }

    /// Returns the scopes as they are written in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read",
            Self::ReadAndAct => "read,act",
        }
    }
}

impl FromStr for Scopes {
    type Err = InvalidScopes;

    fn from_str(text: &str) -> Result<Self, InvalidScopes> {
        match text {
            "read" => Ok(Self::ReadOnly),
            "read,act" | "act,read" => Ok(Self::ReadAndAct),
            "act" => Err(InvalidScopes::ActAlone),
            _ => Err(InvalidScopes::Malformed),
        }
    }
}

/// The SHA-256 of a token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes a token.
    pub fn from_token(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let hex_value =
                |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            *byte = hex_value(pair[0])? * 16 + hex_value(pair[1])?;
        }
        Some(Self(hash))
    }

    /// Whether both are hashes of the same token, compared in constant time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Returns the key that signs the sessions of the credential with this hash.
    pub(crate) fn session_key(&self) -> SessionKey {
        SessionKey(Sha256::new().chain_update(b"session\0").chain_update(self.0).finalize().into())
    }

    /// Returns the id of the credential with this hash.
    pub(crate) fn credential_id(&self) -> CredentialId {
        CredentialId(hex(&Sha256::new().chain_update(b"credential\0").chain_update(self.0).finalize()).into())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", hex(&self.0))
    }
}

/// A weak admin token can be guessed from its hash, so `Debug` does not show the hash.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The id of an operator's credential, for signed cookies: neither the token nor the token's hash. An operator who gets
/// another token gets another id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialId(Arc<str>);

impl CredentialId {
    /// Reads an id that [`as_str`](Self::as_str) returned.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the id as text: 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key that signs the sessions of an operator. It changes with the operator's token. `Debug` does not show the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// Generates a random key for a console that requires no token: there, the key signs only the forms. Each process
    /// generates its own.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Returns the key's bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// A new token of an operator. `Debug` does not show it.
pub struct OperatorToken(String);

impl OperatorToken {
    /// Generates a token from the operating system's random source.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{TOKEN_PREFIX}{}", hex(&bytes))))
    }

    /// Returns the token.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the token's hash.
    pub fn hash(&self) -> TokenHash {
        TokenHash::from_token(self.0.as_bytes())
    }
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorToken(…)")
    }
}

/// An operator of a file. `Display` writes the operator's line of the file.
#[derive(Clone, Debug)]
pub struct OperatorEntry {
    /// The operator's name.
    pub name: OperatorName,
    /// The operator's scopes.
    pub scopes: Scopes,
    /// The hash of the operator's token.
    pub token_hash: TokenHash,
}

impl fmt::Display for OperatorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.scopes.as_str(), self.token_hash)
    }
}

/// The operators of a file, in its order.
#[derive(Clone, Debug, Default)]
pub struct OperatorList {
    entries: Vec<OperatorEntry>,
}

/// Why a text is not a list of operators, with the number of the line.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}: {reason}")]
pub struct InvalidOperatorList {
    /// The number of the line, from 1.
    pub line: usize,
    /// The reason.
    pub reason: InvalidLine,
}

/// Why a line is not an operator.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidLine {
    /// The line has too few or too many words.
    #[error("an operator is a name, scopes and a token's hash, with white space between them")]
    Words,
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] InvalidOperatorName),
    /// The scopes are invalid.
    #[error(transparent)]
    Scopes(#[from] InvalidScopes),
    /// The hash is invalid.
    #[error("the hash is `sha256:` and 64 hexadecimal digits, as `chat-api operators add` writes it")]
    Hash,
    /// The hash is that of the empty text, or of a line break alone.
    #[error(
        "the hash is that of an empty token; the variable that should have the token was probably not set"
    )]
    EmptyToken,
    /// The line with this number has the same name.
    #[error("line {0} has this name already")]
    RepeatedName(usize),
    /// The line with this number has the same token.
    #[error("line {0} has this token already; a token belongs to one operator")]
    RepeatedToken(usize),
    /// The file has too many operators.
    #[error("there are more than {MAX_OPERATORS} operators")]
    TooMany,
}

impl OperatorList {
    /// Parses a file: one operator a line, as `alice read,act sha256:…`. Lines that are blank or begin with `#` are
    /// skipped.
    pub fn parse(text: &str) -> Result<Self, InvalidOperatorList> {
        let mut list = Self::default();
        let mut line_by_name = BTreeMap::new();
        let mut line_by_token_hash = BTreeMap::new();
        for (index, line_text) in text.lines().enumerate() {
            let line = index + 1;
            let line_text = line_text.trim();
            if line_text.is_empty() || line_text.starts_with('#') {
                continue;
            }
            let entry = parse_line(line_text).map_err(|reason| InvalidOperatorList { line, reason })?;
            let refuse = |reason| Err(InvalidOperatorList { line, reason });
            if let Some(earlier) = line_by_name.insert(entry.name.clone(), line) {
                return refuse(InvalidLine::RepeatedName(earlier));
            }
            if let Some(earlier) = line_by_token_hash.insert(entry.token_hash.0, line) {
                return refuse(InvalidLine::RepeatedToken(earlier));
            }
            if list.entries.len() == MAX_OPERATORS {
                return refuse(InvalidLine::TooMany);
            }
            list.entries.push(entry);
        }
        Ok(list)
    }

    /// Returns the operators in the order of the file.
    pub fn entries(&self) -> &[OperatorEntry] {
        &self.entries
    }
}

fn parse_line(text: &str) -> Result<OperatorEntry, InvalidLine> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [name, scopes, hash] = words[..] else { return Err(InvalidLine::Words) };
    let (name, scopes) = (OperatorName::parse(name)?, scopes.parse()?);
    let token_hash = TokenHash::parse(hash).ok_or(InvalidLine::Hash)?;
    // If `$TOKEN` is not set, `printf %s "$TOKEN" | sha256sum` hashes the empty text, and the same with `echo` hashes a
    // line break.
    if ["", "\n"].iter().any(|empty| token_hash.matches(&TokenHash::from_token(empty.as_bytes()))) {
        return Err(InvalidLine::EmptyToken);
    }
    Ok(OperatorEntry { name, scopes, token_hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of `abc` in FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// The hash of the empty text.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn refusal(text: &str) -> String {
        OperatorList::parse(text).map(|list| list.entries.len()).unwrap_err().to_string()
    }

    #[test]
    fn parses_one_operator_a_line_and_skips_comments_and_blank_lines() {
        let other = TokenHash::from_token(b"other");
        let text =
            format!("# operators\n\n  alice@ops-1\tread,act  {ABC}\r\ndashboard read {other}\n  # end\n");
        let list = OperatorList::parse(&text).unwrap();
        let [alice, dashboard] = list.entries() else { panic!("{list:?}") };
        assert_eq!((alice.name.as_str(), alice.scopes), ("alice@ops-1", Scopes::ReadAndAct));
        assert!(
            alice.token_hash.matches(&TokenHash::from_token(b"abc")) && !alice.token_hash.matches(&other)
        );
        assert_eq!((dashboard.name.as_str(), dashboard.scopes), ("dashboard", Scopes::ReadOnly));
        assert!(OperatorList::parse("").unwrap().entries().is_empty());
    }

    #[test]
    fn a_written_operator_is_read_again() {
        let token = OperatorToken::generate().unwrap();
        let entry = OperatorEntry {
            name: OperatorName::parse("alice").unwrap(),
            scopes: Scopes::ReadAndAct,
            token_hash: token.hash(),
        };
        let list = OperatorList::parse(&entry.to_string()).unwrap();
        assert!(list.entries()[0].token_hash.matches(&TokenHash::from_token(token.expose().as_bytes())));
        assert_eq!(token.expose().len(), TOKEN_PREFIX.len() + 64);
        assert_ne!(token.expose(), OperatorToken::generate().unwrap().expose());
    }

    #[test]
    fn a_refused_file_names_the_line_and_the_reason() {
        let other = TokenHash::from_token(b"other");
        for (text, expected) in [
            ("\nalice read,act".to_owned(), "line 2: an operator is a name, scopes and a token's hash"),
            (format!("alice read {ABC} x"), "line 1: an operator is a name"),
            (format!("al/ice read {ABC}"), "line 1: a name is 1 to 64 letters"),
            (format!("{} read {ABC}", "a".repeat(65)), "line 1: a name is 1 to 64 letters"),
            (format!("admin read {ABC}"), "line 1: the name `admin` belongs to the admin token"),
            (format!("alice write {ABC}"), "line 1: the scopes are `read` or `read,act`"),
            (format!("alice act {ABC}"), "line 1: `act` needs `read`"),
            (format!("alice read {}", &ABC[7..]), "line 1: the hash is `sha256:`"),
            (format!("alice read {}", &ABC[..70]), "line 1: the hash is `sha256:`"),
            (format!("alice read {}é", &ABC[..69]), "line 1: the hash is `sha256:`"),
            (format!("#\nalice read {EMPTY}"), "line 2: the hash is that of an empty token"),
            (
                format!("alice read {}", TokenHash::from_token(b"\n")),
                "line 1: the hash is that of an empty token",
            ),
            (format!("#\nalice read {ABC}\nalice read {other}"), "line 3: line 2 has this name already"),
            (format!("alice read {ABC}\nbob read {ABC}"), "line 2: line 1 has this token already"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.starts_with(expected), "{text}: {refusal}");
        }
        let many: Vec<_> = (0..=MAX_OPERATORS)
            .map(|number| format!("o{number} read {}", TokenHash::from_token(&number.to_le_bytes())))
            .collect();
        let many = many.join("\n");
        assert_eq!(refusal(&many), "line 1001: there are more than 1000 operators");
    }

    #[test]
    fn debug_shows_neither_tokens_nor_hashes() {
        let token = OperatorToken::generate().unwrap();
        let entry = OperatorEntry {
            name: OperatorName::parse("a").unwrap(),
            scopes: Scopes::ReadOnly,
            token_hash: token.hash(),
        };
        let shown = format!("{token:?} {entry:?}");
        assert!(
            !shown.contains(&token.expose()[10..20]) && !shown.contains(&token.hash().to_string()[10..20])
        );
    }
}
