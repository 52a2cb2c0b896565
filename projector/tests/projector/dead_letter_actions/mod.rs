//! Tests of operator actions on dead letters. The log and the read model are in SQLite, the search index is in tantivy;
//! `engines_agree` also has a read model in Postgres.

mod discard;
mod engines_agree;
mod retry;
mod test_log;
