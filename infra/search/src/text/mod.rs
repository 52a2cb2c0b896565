//! Text of any script: normalized, and cut into words.

mod common_scripts;
pub(crate) mod normalize;
pub(crate) mod script;
pub(crate) mod tokenize;
