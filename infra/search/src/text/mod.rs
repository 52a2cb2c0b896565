//! Normalization and tokenization of text in any script.

mod common_scripts;
pub(crate) mod normalize;
pub(crate) mod script;
pub(crate) mod tokenize;
