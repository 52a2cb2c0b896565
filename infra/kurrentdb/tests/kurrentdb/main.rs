//! KurrentDB: the contract, against the stand-in and, where `KURRENTDB_URL` names one, a real server; and what is its
//! own, against the stand-in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appending;
mod opening;
mod subscribing;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use chat_kurrentdb::{CallTimeouts, KurrentDbEventStore, KurrentDbUrl};
use chat_ports::event_store::EventStoreError;
use chat_testing::kurrentdb::FakeKurrentDb;

use chat_ports::contract_tests::event_store::space::{Log, Space};

async fn open_at(url: &str) -> Log {
    Arc::new(KurrentDbEventStore::open(&KurrentDbUrl::parse(url).unwrap()).await.unwrap())
}

/// Shorter than usual, where a test waits for its end.
const SHORT: CallTimeouts =
    CallTimeouts { attempt: Duration::from_millis(400), total: Duration::from_millis(900) };

async fn open_impatiently(url: &str) -> Result<Log, EventStoreError> {
    let opened = KurrentDbEventStore::open_with_timeouts(&KurrentDbUrl::parse(url).unwrap(), SHORT).await;
    opened.map(|log| Arc::new(log) as Log)
}

/// A server of one's own, and its log.
async fn server() -> (FakeKurrentDb, Space) {
    let server = FakeKurrentDb::start().unwrap();
    let log = Space::in_log(open_at(&server.url()).await).await;
    (server, log)
}

/// As [`server`], with little patience.
async fn impatient() -> (FakeKurrentDb, Space) {
    let server = FakeKurrentDb::start().unwrap();
    let log = Space::in_log(open_impatiently(&server.url()).await.unwrap()).await;
    (server, log)
}

mod fake {
    use super::{FakeKurrentDb, Log, open_at};
    use chat_ports::event_store_contract;

    struct Own(FakeKurrentDb);

    impl Own {
        #[expect(clippy::unnecessary_wraps, reason = "the contract asks")]
        fn new() -> Option<Self> {
            Some(Self(FakeKurrentDb::start().unwrap()))
        }

        async fn open(&self) -> Log {
            open_at(&self.0.url()).await
        }
    }

    event_store_contract!(Own);
}

mod real_server {
    use super::{Log, env, open_at};
    use chat_ports::event_store_contract;

    struct Given(String);

    impl Given {
        #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
        fn new() -> Option<Self> {
            let url = env::var("KURRENTDB_URL").ok();
            if url.is_none() {
                eprintln!("KURRENTDB_URL is not set: this was not held against a real server");
            }
            url.map(Self)
        }

        async fn open(&self) -> Log {
            open_at(&self.0).await
        }
    }

    event_store_contract!(Given);
}
