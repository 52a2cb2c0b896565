//! KurrentDB: the contract, against the stand-in and, where `KURRENTDB_URL` names one, a real server.

use std::env;
use std::sync::Arc;

use chat_infra::event_store::{KurrentDbEventStore, KurrentDbUrl};
use chat_test_servers::kurrentdb::StandIn;

use crate::contract::Log;

pub async fn open_at(url: &str) -> Log {
    Arc::new(KurrentDbEventStore::open(&KurrentDbUrl::parse(url).unwrap()).await.unwrap())
}

mod stand_in {
    use super::{Log, StandIn, open_at};
    use crate::contract::event_store_contract;

    struct Own(StandIn);

    impl Own {
        #[expect(clippy::unnecessary_wraps, reason = "the contract asks")]
        fn new() -> Option<Self> {
            Some(Self(StandIn::start().unwrap()))
        }

        async fn open(&self) -> Log {
            open_at(&self.0.url()).await
        }
    }

    event_store_contract!(Own);
}

mod real_server {
    use super::{Log, env, open_at};
    use crate::contract::event_store_contract;

    struct Given(String);

    impl Given {
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
