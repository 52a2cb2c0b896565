//! A message of the tail, prepared for searches.

use std::sync::atomic::{AtomicU64, Ordering};

use chat_domain::{MessageData, Position};
use chat_ports::search_index::Document;

use crate::query_matcher::{Signature, join_words};
use crate::text::tokenize::TokenizedText;

/// The approximate memory of a message beside its texts: its `Row`s in segments, its keys, and what the allocator adds.
const OVERHEAD_BYTES: usize = 512;

/// The state of a message after a batch that created or changed it.
#[derive(Debug)]
pub(crate) struct TailMessage {
    /// The message.
    pub document: Document,
    /// The words of the body, normalized and joined by single spaces.
    pub words: Box<str>,
    /// The position of the end of the later batch that changed or deleted the message; `u64::MAX` if none has.
    superseded_at: AtomicU64,
}

impl TailMessage {
    /// Prepares a message. `tokenized` is a buffer whose memory is reused.
    pub fn new(document: Document, tokenized: &mut TokenizedText) -> Self {
        tokenized.read(&document.body);
        let words = join_words(tokenized).into_boxed_str();
        Self { document, words, superseded_at: AtomicU64::new(u64::MAX) }
    }

    /// Hides this state from views at the position and later ones.
    pub fn supersede(&self, position: Position) {
        self.superseded_at.store(position.get(), Ordering::Release);
    }

    /// Whether this is the state of the message at a position.
    pub fn is_current_at(&self, position: Position) -> bool {
        self.superseded_at.load(Ordering::Acquire) > position.get()
    }

    /// The Bloom filter of [`Self::words`], which rules out texts that can't match.
    pub fn signature(&self) -> Signature {
        Signature::new(&self.words)
    }

    /// The approximate memory, in bytes.
    pub fn size(&self) -> usize {
        let data = self.document.data.as_ref().map_or(0, |data| MessageData::as_str(data).len());
        OVERHEAD_BYTES + self.document.body.len() + self.words.len() + data
    }
}
