//! Tests of the KurrentDB event store. The contract suite runs against the fake server and, if `KURRENTDB_URL` is set,
//! against a real one. Further tests of this adapter run against the fake server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appending;
mod opening;
mod subscribing;
mod truncation;

use std::sync::Arc;
use std::time::Duration;

use chat_kurrentdb::{CallTimeouts, KurrentDbEventStore, KurrentDbUrl};
use chat_ports::event_store::EventStoreError;
use chat_testing::kurrentdb::{FakeKurrentDb, RealKurrentDb};

use chat_ports::contract_tests::event_store::scoped_log::{Log, ScopedLog};

/// Time limits that a busy machine does not exceed.
const LONG_TIMEOUTS: CallTimeouts =
    CallTimeouts { attempt: Duration::from_secs(10), total: Duration::from_secs(30) };

/// Time limits with which retries end soon, for tests in which attempts fail at once.
const SHORT_RETRIES: CallTimeouts = CallTimeouts { total: Duration::from_millis(900), ..LONG_TIMEOUTS };

/// Short time limits, for tests that wait for a timeout.
const SHORT_TIMEOUTS: CallTimeouts = CallTimeouts { attempt: Duration::from_millis(400), ..SHORT_RETRIES };

async fn open_with(timeouts: CallTimeouts, url: &str) -> Result<Log, EventStoreError> {
    let opened = KurrentDbEventStore::open_with_timeouts(&KurrentDbUrl::parse(url).unwrap(), timeouts).await;
    opened.map(|log| Arc::new(log) as Log)
}

async fn open_at(url: &str) -> Log {
    open_with(LONG_TIMEOUTS, url).await.unwrap()
}

/// A new server and its log.
async fn server() -> (FakeKurrentDb, ScopedLog) {
    let server = FakeKurrentDb::start().unwrap();
    let log = ScopedLog::new(open_at(&server.url()).await).await;
    (server, log)
}

/// As [`server`], with short retries.
async fn server_with_short_retries() -> (FakeKurrentDb, ScopedLog) {
    let server = FakeKurrentDb::start().unwrap();
    let log = ScopedLog::new(open_with(SHORT_RETRIES, &server.url()).await.unwrap()).await;
    (server, log)
}

mod fake {
    use super::{FakeKurrentDb, Log, open_at};
    use chat_ports::event_store_contract;

    struct FakeServer(FakeKurrentDb);

    impl FakeServer {
        #[expect(clippy::unnecessary_wraps, reason = "the contract suite expects an Option")]
        fn new() -> Option<Self> {
            Some(Self(FakeKurrentDb::start().unwrap()))
        }

        async fn open(&self) -> Log {
            open_at(&self.0.url()).await
        }
    }

    event_store_contract!(FakeServer);
}

mod real_server {
    use super::{Log, RealKurrentDb, open_at};
    use chat_ports::event_store_contract;

    struct RealServer(RealKurrentDb);

    impl RealServer {
        #[expect(clippy::print_stderr, reason = "the person who runs the tests should know")]
        fn new() -> Option<Self> {
            let server = RealKurrentDb::from_environment();
            if server.is_none() {
                eprintln!("KURRENTDB_URL is not set: skipping the test against a real server");
            }
            server.map(Self)
        }

        async fn open(&self) -> Log {
            open_at(self.0.url()).await
        }
    }

    event_store_contract!(RealServer);
}
