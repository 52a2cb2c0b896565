//! The contract suite of the counters on the in-process counters, and a test of eviction.

use std::sync::Arc;

use chat_ports::counters::{Counters, InProcessCounters};

use chat_ports::contract_tests::counters::{Handle, messages_key, random_app, reserve_range};
use chat_ports::counters_contract;

fn open() -> impl Fn() -> Handle {
    let counters: Handle = Arc::new(InProcessCounters::default());
    move || Arc::clone(&counters)
}

counters_contract!(open);

#[tokio::test]
async fn an_evicted_counter_restarts_from_the_floor() {
    const CHATS: u64 = 100;
    const CAPACITY: usize = 2;
    let counters = InProcessCounters::with_capacity(CAPACITY);
    let app = random_app();
    for chat in 1..=CHATS {
        assert_eq!(reserve_range(&counters, messages_key(app, chat), 7, 10).await, 11);
    }
    let mut kept = 0;
    for chat in 1..=CHATS {
        // Does nothing if the counter was evicted.
        counters.rewind(messages_key(app, chat), 17, 16).await.unwrap();
        match reserve_range(&counters, messages_key(app, chat), 1, 10).await {
            11 => {}
            17 => kept += 1,
            number => panic!("chat {chat} continues with number {number}"),
        }
    }
    assert!(kept <= CAPACITY, "{kept} counters were kept");
}
