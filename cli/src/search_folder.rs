//! The search index as this process's queries see it: opened when it is there, and again when it was replaced.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use chat_ports::search_index::{SearchError, SearchPage, SearchRequest};
use chat_query_api::MessageSearch;
use chat_search::TantivyIndex;

/// The index in a folder that a projector keeps, in this process or in another.
pub(crate) struct SearchFolder {
    path: PathBuf,
    index: Mutex<Option<Arc<TantivyIndex>>>,
}

impl SearchFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, index: Mutex::new(None) }
    }

    /// The index as it was committed last. Blocks.
    pub(crate) fn index(&self) -> Result<Arc<TantivyIndex>, SearchError> {
        let index = {
            let mut opened = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            match &*opened {
                Some(index) => Arc::clone(index),
                None => Arc::clone(opened.insert(Arc::new(TantivyIndex::open(&self.path)?))),
            }
        };
        index.refresh()?;
        Ok(index)
    }
}

impl MessageSearch for SearchFolder {
    fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
        self.index()?.search(request)
    }
}
