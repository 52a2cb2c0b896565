//! The write health of a writer's stores: the log and the counters.

use std::sync::Arc;

use chat_domain::AppToken;
use chat_ports::counters::{CounterKey, Counters, CountersError, ReservationRequest};

use super::config::WriterConfig;
use crate::write_health::WriteHealth;

/// The write health of the log and of the counters: the outcome of the writer's last write to each, or, after a
/// failure, of the last probe.
#[derive(Clone)]
pub(super) struct WriterHealth {
    /// The log.
    pub(super) appends: Arc<WriteHealth>,
    /// The counters.
    pub(super) reservations: Arc<WriteHealth>,
}

impl WriterHealth {
    pub(super) fn spawn(config: &WriterConfig) -> Self {
        let (event_store, counters) = (Arc::clone(&config.event_store), Arc::clone(&config.counters));
        let probe_log = move || {
            let event_store = Arc::clone(&event_store);
            async move { event_store.probe_write().await }
        };
        let probe_counters = move || {
            let counters = Arc::clone(&counters);
            async move { probe_counters(&*counters).await }
        };
        Self {
            appends: WriteHealth::spawn("the event log", probe_log),
            reservations: WriteHealth::spawn("the store of the counters", probe_counters),
        }
    }
}

/// Reserves a chat number in an app that does not exist.
async fn probe_counters(counters: &dyn Counters) -> Result<(), CountersError> {
    let key = CounterKey::Chats(AppToken::generate(|bytes| bytes.fill(0)));
    counters.reserve(&[ReservationRequest { key, count: 1, floor: 0 }]).await.map(drop)
}
