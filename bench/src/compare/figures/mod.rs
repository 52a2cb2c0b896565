//! The figures, a module for each kind.

mod freshness;
mod growth;
mod latency;
mod memory;
mod postgres_and_redis;
mod posts;
mod reads;
mod rebuild;
mod search;

use std::io;

use super::figure::FigureResults;
use super::run_config::RunConfig;

/// The numbers of those there are. What is measured with 11 includes what 10 says of stored messages.
pub const ALL: [u32; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Measures one. What was measured before a failure stays in `findings`.
pub async fn measure(number: u32, setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    match number {
        1 => posts::many_chats(setting, findings).await,
        2 => posts::one_chat(setting, findings).await,
        3 => posts::sustained(setting, findings).await,
        4 => postgres_and_redis::measure(setting, findings).await,
        5 => reads::measure(setting, findings).await,
        6 => rebuild::measure(setting, findings).await,
        7 => search::measure(setting, findings).await,
        8 => freshness::measure(setting, findings).await,
        9 => latency::measure(setting, findings).await,
        10 => memory::measure(setting, findings).await,
        11 => growth::measure(setting, findings).await,
        _ => Ok(()),
    }
}
