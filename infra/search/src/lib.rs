//! The search index in tantivy: messages found by whole words, starts of words, parts of words and phrases, in every
//! script.
//!
//! How a search is answered, in the order of the modules: `fold` takes case and diacritics from the text, `words` cuts
//! it (`plain` the common scripts), `terms` says under which terms a word is filed; `clauses` reads what a person typed,
//! `plan` makes tantivy queries of it (`ways` of a word), `top` collects the page, and `occurrences` and `snippet` show
//! where a message matches. `folder`, `schema`, `checkpoint`, `writer`, `merges` and `index` keep it on disk.

mod checkpoint;
mod clauses;
mod fold;
mod folder;
mod index;
mod merges;
mod occurrences;
mod plain;
mod plan;
mod schema;
mod script;
mod snippet;
mod terms;
mod top;
mod ways;
mod words;
mod writer;

pub use clauses::{MAX_QUERY_BYTES, MAX_QUERY_WORDS, query_words};
pub use index::SearchIndex;
pub use writer::SearchIndexWriter;

/// The version of the index: one that was written by another version is folded anew.
pub const VERSION: u32 = schema::SCHEMA_VERSION;
