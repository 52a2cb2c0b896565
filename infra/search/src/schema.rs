//! The fields of the index.

use tantivy::schema::{FAST, Field, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions};

/// The version of everything that decides the content of the index: fields, normalization, tokenization, terms. An
/// index of another version is rebuilt. New fields that an index may lack go to the end of the schema and need no new
/// version: see [`lacks_added_fields`].
pub(crate) const SCHEMA_VERSION: u32 = 2;

/// The name under which [`TermTokenizer`](crate::terms::TermTokenizer) is registered with tantivy.
pub(crate) const TOKENIZER: &str = "chat_terms";

// Field names, in the order of `Fields`.
pub(crate) const KEY: &str = "key";
const APP: &str = "app";
const CHAT: &str = "chat";
pub(crate) const BODY: &str = "body";
pub(crate) const POSITION: &str = "position";
pub(crate) const CREATED_AT: &str = "created_at";
pub(crate) const UPDATED_AT: &str = "updated_at";
pub(crate) const VERSION: &str = "version";
const DEAD_LETTER_TAGS: &str = "parked";
const DEAD_LETTER: &str = "letter";
const SENDER: &str = "sender";
const ATTRIBUTES: &str = "attributes";

/// The fields of the index. A message has all except `dead_letter_tags` and `dead_letter`, and may lack `sender` and
/// `attributes`. A dead letter has only `key`, `position`, `dead_letter_tags` and `dead_letter`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub key: Field,
    pub app: Field,
    pub chat: Field,
    pub body: Field,
    pub position: Field,
    pub created_at: Field,
    pub updated_at: Field,
    pub version: Field,
    pub dead_letter_tags: Field,
    pub dead_letter: Field,
    pub sender: Field,
    pub attributes: Field,
}

/// The schema of the index, and its fields.
pub(crate) fn schema() -> (Schema, Fields) {
    let terms = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions)
        .set_fieldnorms(false);
    let exact = TextFieldIndexing::default().set_tokenizer("raw").set_fieldnorms(false);
    let exact = TextOptions::default().set_indexing_options(exact);
    let mut schema = Schema::builder();
    let fields = Fields {
        key: schema.add_text_field(KEY, exact.clone() | STORED),
        app: schema.add_text_field(APP, exact.clone()),
        chat: schema.add_text_field(CHAT, exact.clone()),
        body: schema.add_text_field(BODY, TextOptions::default().set_indexing_options(terms) | STORED),
        position: schema.add_u64_field(POSITION, FAST | STORED),
        created_at: schema.add_i64_field(CREATED_AT, FAST | STORED),
        updated_at: schema.add_i64_field(UPDATED_AT, STORED),
        version: schema.add_u64_field(VERSION, STORED),
        dead_letter_tags: schema.add_text_field(DEAD_LETTER_TAGS, exact.clone()),
        dead_letter: schema.add_text_field(DEAD_LETTER, STORED),
        sender: schema.add_text_field(SENDER, exact),
        attributes: schema.add_text_field(ATTRIBUTES, STORED),
    };
    (schema.build(), fields)
}

/// Whether a schema has the first fields of this version's schema, and lacks only fields that were added later.
pub(crate) fn lacks_added_fields(found: &Schema) -> bool {
    /// The number of fields before `sender` and `attributes` were added.
    const ORIGINAL_FIELDS: usize = 10;
    let current = schema().0;
    (ORIGINAL_FIELDS..current.num_fields()).contains(&found.num_fields())
        && found
            .fields()
            .zip(current.fields())
            .all(|((_, found_field), (_, current_field))| found_field == current_field)
}
