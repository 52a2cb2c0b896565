//! The names of Redis keys.

use chat_domain::AppToken;
use chat_ports::counters::CounterKey;
use chat_ports::event_store::LogId;
use sha2::{Digest, Sha256};

/// The keys of one log. Each begins with `chat:` and a hash tag in braces. Redis Cluster stores keys of the same tag on
/// the same node.
#[derive(Clone)]
pub(crate) struct Keys {
    /// The end of the log's id, a random UUID. It separates the keys of several logs on one server.
    log: String,
}

impl Keys {
    pub(crate) fn new(log: LogId) -> Self {
        Self { log: log.0.simple().to_string().split_off(24) }
    }

    pub(crate) fn counter(&self, key: CounterKey) -> String {
        let Self { log } = self;
        match key {
            CounterKey::Chats(app) => format!("chat:{{{}}}:{log}:chats", app_part(app)),
            CounterKey::Messages(app, chat) => {
                format!("chat:{{{}}}:{log}:messages:{}", app_part(app), chat.get())
            }
        }
    }

    pub(crate) fn rate_limit(&self, app: AppToken) -> String {
        format!("chat:{{{}}}:{}:limit", app_part(app), self.log)
    }

    /// The memory key of a bucket of idempotency keys. The Redis keys of the bucket's reservations begin with it.
    pub(crate) fn idempotency_memory_key(&self, bucket: u8) -> String {
        format!("chat:{{{}-{bucket:x}}}:idempotency", self.log)
    }
}

/// The part of a key that identifies an app: half of a hash of its token, since the token itself is a credential.
fn app_part(app: AppToken) -> String {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(app.expose())[..16]);
    format!("{:032x}", u128::from_be_bytes(half))
}
