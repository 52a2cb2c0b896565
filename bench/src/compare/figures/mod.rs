//! The figures: a module for each kind of measurement.

mod freshness;
mod growth;
mod growth_over_http;
mod latency;
mod live_feed;
pub(super) mod memory;
mod post_cost_by_engines;
mod postgres_and_redis;
mod posts;
pub(super) mod reads;
mod rebuild;
mod search;

use std::io;

use super::figure::FigureResults;
use super::run_config::RunConfig;

/// The numbers of all figures. The measurement for figure 11 also measures how memory grows. This growth is reported
/// under figure 10.
pub const ALL: [u32; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

/// Runs the measurement for figure `number`. After a failure, `results` has the figures that were measured before it.
pub async fn measure(number: u32, config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    match number {
        1 => posts::many_chats(config, results).await,
        2 => posts::one_chat(config, results).await,
        3 => posts::sustained(config, results).await,
        4 => postgres_and_redis::measure(config, results).await,
        5 => reads::measure(config, results).await,
        6 => rebuild::measure(config, results).await,
        7 => search::measure(config, results).await,
        8 => freshness::measure(config, results).await,
        9 => latency::measure(config, results).await,
        10 => memory::measure(config, results).await,
        11 => growth::measure(config, results).await,
        12 => live_feed::measure(config, results).await,
        13 => post_cost_by_engines::measure(config, results).await,
        14 => growth_over_http::measure(config, results).await,
        _ => Ok(()),
    }
}
