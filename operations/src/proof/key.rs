//! Ed25519 keys (RFC 8032) that sign checkpoints.
//!
//! A private key is stored as PKCS#8 in PEM (RFC 5958, 7468), after a line with its name. A public key is stored as a
//! line of text, for tools for signed notes, followed by PEM, for openssl.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ProofError;

/// The signature type of Ed25519 in signed notes.
const ED25519_SIGNATURE_TYPE: u8 = 0x01;

/// The prefix of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410). The key follows.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The prefix of the line with the name of a private key.
const NAME_PREFIX: &str = "Name: ";

/// The name of a key in signed notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KeyName(String);

/// The error for text that is not a [`KeyName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key's name has 1 to {} characters, no blanks, no control characters and no +",
    KeyName::MAX_LENGTH
)]
pub struct InvalidKeyName;

impl KeyName {
    /// The maximal length of a name, in characters.
    pub const MAX_LENGTH: usize = 128;

    /// Parses a name.
    pub fn parse(name: &str) -> Result<Self, InvalidKeyName> {
        let has_valid_length = (1..=Self::MAX_LENGTH).contains(&name.chars().count());
        let is_forbidden = |char: char| char.is_whitespace() || char.is_control() || char == '+';
        if has_valid_length && !name.contains(is_forbidden) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidKeyName)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for KeyName {
    /// Returns the name of keys that were created or stored without a name.
    fn default() -> Self {
        Self("chat-api-audit".to_owned())
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a key, which distinguishes keys of the same name: the first bytes of a hash of the name and the public
/// key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// The prefix of an Ed25519 key in PKCS#8 (RFC 8410). The 32 bytes of the seed follow.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A private key. Not `Debug`, because it is a secret.
pub struct SigningKey {
    name: KeyName,
    pair: Ed25519KeyPair,
    /// The key as PKCS#8.
    der: Vec<u8>,
}

impl SigningKey {
    /// Generates a key with the operating system's random source.
    pub fn generate(name: KeyName) -> Result<Self, ProofError> {
        const FAILED: ProofError = ProofError::Key("no key could be generated");
        let mut der = PKCS8_PREFIX.to_vec();
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| FAILED)?;
        der.extend_from_slice(&seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| FAILED)?;
        Ok(Self { name, pair, der })
    }

    /// Parses the format that [`Self::to_pem`] writes, or any Ed25519 key in PKCS#8, which gets the default name.
    pub fn from_pem(text: &str) -> Result<Self, ProofError> {
        const WRONG: ProofError = ProofError::Key("the file contains no Ed25519 key as PKCS#8 in PEM");
        let der = decode_pem(text, "PRIVATE KEY").ok_or(WRONG)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| WRONG)?;
        let name = text.lines().find_map(|line| line.strip_prefix(NAME_PREFIX)).map(KeyName::parse);
        let name = name.transpose().map_err(|_| ProofError::Key("the key's name is invalid"))?;
        Ok(Self { name: name.unwrap_or_default(), pair, der })
    }

    /// The key as PKCS#8 in PEM, after a line with its name. Secret.
    pub fn to_pem(&self) -> String {
        format!("{NAME_PREFIX}{}\n{}", self.name, encode_pem(&self.der, "PRIVATE KEY"))
    }

    /// The public key.
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut key = [0; 32];
        // Ed25519 public keys have 32 bytes.
        key.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey { name: Some(self.name.clone()), key }
    }

    /// The key's name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Signs a text.
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.pair.sign(text).as_ref().to_vec()
    }
}

/// A public key, which checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    /// `None` if the key's file has no name. The key then verifies signatures with any name.
    name: Option<KeyName>,
    key: [u8; 32],
}

impl VerifyingKey {
    /// Parses a public key: the line of text that [`fmt::Display`] writes, or PEM.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        const WRONG: ProofError = ProofError::Key("the file contains no Ed25519 public key");
        if let Some(key) = text.lines().find_map(Self::from_line) {
            return Ok(key);
        }
        let der = decode_pem(text, "PUBLIC KEY").ok_or(WRONG)?;
        let key = der.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok()).ok_or(WRONG)?;
        Ok(Self { name: None, key })
    }

    fn from_line(line: &str) -> Option<Self> {
        let (name, rest) = line.trim().split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let name = KeyName::parse(name).ok()?;
        let [ED25519_SIGNATURE_TYPE, key @ ..] = &STANDARD.decode(key).ok()?[..] else { return None };
        let key = Self { name: Some(name.clone()), key: key.try_into().ok()? };
        (key.id(&name).to_string() == id).then_some(key)
    }

    /// The content of the key's file: the line of text, and PEM for openssl.
    pub fn to_file_content(&self) -> String {
        format!("{self}\n{}", encode_pem(&[&SPKI_PREFIX[..], &self.key].concat(), "PUBLIC KEY"))
    }

    /// The key's name, if it has one.
    pub fn name(&self) -> Option<&KeyName> {
        self.name.as_ref()
    }

    /// Returns the id of the key under the given name.
    pub fn id(&self, name: &KeyName) -> KeyId {
        let hash = Sha256::new_with_prefix(name.as_str())
            .chain_update([b'\n', ED25519_SIGNATURE_TYPE])
            .chain_update(self.key)
            .finalize();
        KeyId([hash[0], hash[1], hash[2], hash[3]])
    }

    /// Whether `signature` was made for the text with the private key of this public key.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(text, signature).is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.clone().unwrap_or_default();
        let key = STANDARD.encode([&[ED25519_SIGNATURE_TYPE][..], &self.key].concat());
        write!(f, "{name}+{}+{key}", self.id(&name))
    }
}

fn encode_pem(der: &[u8], label: &str) -> String {
    // Keys of this size fit on one PEM line of 64 characters.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn decode_pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tree::Hash;
    use super::*;

    #[test]
    fn signs_like_the_test_vector_of_the_rfc() {
        // RFC 8032, section 7.1, test 2.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n-----END PRIVATE KEY-----\n";
        let key = SigningKey::from_pem(pem).unwrap();
        let signature = key.sign(&[0x72]);
        let halves: Vec<String> =
            signature.chunks(32).map(|half| Hash(half.try_into().unwrap()).to_string()).collect();
        assert_eq!(
            halves.concat(),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(key.name(), &KeyName::default());
        assert!(SigningKey::from_pem(&pem.replace("MC4C", "MC4D")).is_err());
    }

    #[test]
    fn parses_the_key_files_that_it_writes() {
        let key = SigningKey::generate(KeyName::parse("example.com/audit").unwrap()).unwrap();
        let parsed = SigningKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(parsed.name(), key.name());
        assert_eq!(parsed.sign(b"text"), key.sign(b"text"));
        let public = key.verifying_key();
        assert_eq!(VerifyingKey::parse(&public.to_file_content()).unwrap(), public);
        assert!(public.verifies(b"text", &parsed.sign(b"text")));
        assert!(!public.verifies(b"texT", &parsed.sign(b"text")));
    }

    #[test]
    fn parses_a_public_key_in_pem_without_a_name() {
        let key = SigningKey::generate(KeyName::default()).unwrap();
        let file = key.verifying_key().to_file_content();
        let pem = &file[file.find('\n').unwrap() + 1..];
        let public = VerifyingKey::parse(pem).unwrap();
        assert_eq!(public.name(), None);
        assert!(public.verifies(b"text", &key.sign(b"text")));
        assert_eq!(public.id(key.name()), key.verifying_key().id(key.name()));
    }

    #[test]
    fn verifies_the_example_of_signed_notes_in_go() {
        // From the documentation of golang.org/x/mod/sumdb/note.
        let line = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = VerifyingKey::parse(line).unwrap();
        assert_eq!(key.to_string(), line);
        let text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = STANDARD
            .decode("x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=")
            .unwrap();
        assert_eq!(signature[..4], key.id(key.name().unwrap()).0);
        assert!(key.verifies(text, &signature[4..]));
    }

    #[test]
    fn rejects_invalid_names() {
        for wrong in ["", "two words", "a+b", "line\nbreak", "no\u{a0}break", &"x".repeat(129)] {
            assert_eq!(KeyName::parse(wrong), Err(InvalidKeyName), "{wrong:?}");
        }
        assert!(KeyName::parse("example.com/log").is_ok());
    }
}
