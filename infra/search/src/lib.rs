//! The search index in tantivy: messages found by whole words, starts of words, parts of words and phrases, in every
//! script.
//!
//! How a search is answered, in the order of the modules: `fold` takes case and diacritics from the text, `words` cuts
//! it (`plain` the common scripts), `terms` says under which terms a word is filed; `clauses` reads what a person typed,
//! `plan` makes tantivy queries of it (`ways` of a word), `top` collects the page, and `occurrences` and `snippet` show
//! where a message matches. `folder`, `schema`, `checkpoint`, `writer`, `merges` and `index` keep it on disk.

mod best_match_query;
mod checkpoint;
mod folder;
mod index;
mod merge_policy;
mod normalize;
mod occurrences;
mod query_parser;
mod query_plan;
mod schema;
mod script;
mod snippet;
mod terms;
mod tokenize;
mod tokenize_common_scripts;
mod top_hits;
mod writer;

pub use index::TantivyIndex;
pub use query_parser::{MAX_QUERY_BYTES, MAX_QUERY_WORDS, count_query_words};
pub use writer::TantivyIndexWriter;

/// The version of the index: one that was written by another version is folded anew.
pub const VERSION: u32 = schema::SCHEMA_VERSION;
