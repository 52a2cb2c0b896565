//! Failovers of Postgres and Redis on hosts of their own.

use std::io;

use chat_testing::Postgres;
use chat_testing::hosts::{HostNetwork, Link};
use chat_testing::redis::RedisSentinel;

#[test]
fn a_standby_takes_over_with_all_that_was_committed() {
    if let Some(reason) = HostNetwork::unavailable() {
        eprintln!("not tested: {reason}");
        return;
    }
    let network = HostNetwork::start(&["one", "two"]).unwrap();
    let mut primary = Postgres::start_on(network.host("one"));
    primary.execute("CREATE TABLE kept (n int)");
    let mut standby = primary.start_standby_on(network.host("two"));
    for n in 1..=3 {
        primary.execute(&format!("INSERT INTO kept VALUES ({n})"));
        let host_of_primary = if n % 2 == 1 { "one" } else { "two" };
        network.set_all(host_of_primary, Link::Dead);
        primary.kill();
        standby.promote();
        network.set_all("one", Link::Open);
        network.set_all("two", Link::Open);
        primary.follow(&standby);
        std::mem::swap(&mut primary, &mut standby);
        assert_eq!(primary.execute("SELECT count(*) FROM kept"), n.to_string());
    }
}

#[test]
fn sentinels_make_the_replica_the_master_when_the_masters_host_vanishes() -> io::Result<()> {
    if let Some(reason) = HostNetwork::unavailable() {
        eprintln!("not tested: {reason}");
        return Ok(());
    }
    let network = HostNetwork::start(&["one", "two", "three"])?;
    let [one, two, three] = ["one", "two", "three"].map(|name| network.host(name));
    // The first sentinel is asked which server is the master, so it is on the host that stays.
    let mut redis = RedisSentinel::start_on([one, two], &[three, one, two])?;
    for old_master in [0, 1] {
        let host = ["one", "two"][old_master];
        network.set_all(host, Link::Dead);
        redis.wait_for_another_master(old_master)?;
        redis.kill(old_master)?;
        network.set_all(host, Link::Open);
        redis.restart_as_replica(old_master)?;
        redis.wait_until_replicated()?;
    }
    Ok(())
}
