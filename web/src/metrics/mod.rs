//! The metrics of the process, in the Prometheus text format.

pub(crate) mod http;

use std::time::Duration;

use metrics::{Unit, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the buckets of every `…_seconds` histogram: 0.1 ms to 10 s.
const DURATION_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often samples are moved into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder's handle, which renders `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder of the process. A second call fails.
    pub fn install() -> Result<Self, BuildError> {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, DURATION_BUCKETS)?;
        let handle = builder.install_recorder()?;
        http::describe();
        describe_histogram!(
            "command_predecessor_wait_seconds",
            Unit::Seconds,
            "Time that a writer waited for numbers reserved by another writer."
        );
        Ok(Self(handle))
    }

    /// Creates metrics that record nothing, for tests of routes.
    pub fn detached() -> Self {
        Self(PrometheusBuilder::new().build_recorder().handle())
    }

    /// Bounds the memory of histograms between scrapes. Never returns: spawn it.
    pub async fn run_upkeep(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }

    /// Renders all metrics.
    pub(crate) fn render(&self) -> String {
        self.0.render()
    }
}
