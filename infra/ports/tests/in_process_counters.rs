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
async fn numbers_follow_the_floor_even_if_the_counter_was_evicted() {
    let counters = InProcessCounters::with_capacity(2);
    let app = random_app();
    for chat in 1..=100 {
        assert_eq!(reserve_range(&counters, messages_key(app, chat), 7, 10).await, 11);
    }
    // The rewind does no harm, whether or not the counter of chat 1 was evicted.
    counters.rewind(messages_key(app, 1), 17, 10).await.unwrap();
    assert_eq!(reserve_range(&counters, messages_key(app, 1), 1, 17).await, 18);
}
