//! The search index in tantivy: messages found by whole words, prefixes, substrings and phrases, in every script.
//!
//! A search passes these modules: `query_parser` turns the user's text into clauses, `query_plan` turns clauses into
//! tantivy queries (`best_match_query` for a word), `top_hits` collects the page, and `occurrences` and `snippet`
//! mark where a message matches. In a long message, `likely_places` first finds the parts worth tokenizing. `text`
//! normalizes and tokenizes queries and bodies, and `terms` defines the terms of a word in the index. `search` puts
//! this together.
//!
//! `tail` keeps the newest changes in memory until the index has committed them. `query_matcher` matches the messages
//! of the tail by the same rules as the index.
//!
//! On disk: `writer` commits changes (`merge_policy`), `index` reads snapshots, `index_reader` implements the port for
//! queries, and `index_folder`, `schema`, `documents` and `checkpoint` define what is stored.

mod best_match_query;
mod checkpoint;
mod contents;
mod dead_letters;
mod documents;
mod error;
mod index;
mod index_folder;
mod index_reader;
mod likely_places;
mod merge_policy;
mod occurrences;
mod query_matcher;
mod query_parser;
mod query_plan;
mod schema;
mod search;
mod similar_word_query;
mod snippet;
mod tail;
mod terms;
mod text;
mod top_hits;
mod writer;

pub use index::TantivyIndex;
pub use index_reader::SearchIndexReader;
pub use query_parser::count_query_words;
pub use snippet::snippet;
pub use tail::TailWriter;
pub use writer::TantivyIndexWriter;

/// The version of the index. An index of another version is rebuilt.
pub const VERSION: u32 = schema::SCHEMA_VERSION;
