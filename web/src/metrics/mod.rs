//! The metrics of the process, in the Prometheus text format.
//!
//! Metrics other than those of routes are registered before the process answers its first request, so that they exist,
//! with zero, from the first scrape. The metrics of routes are registered later, when the engines are open.

pub(crate) mod http;

use std::time::Duration;

use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

/// Upper bounds of the buckets of `…_seconds` histograms: 0.1 ms to 30 s, the default deadline of an API request.
const DURATION_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// How often samples are moved into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A histogram with buckets of its own.
#[derive(Clone, Copy, Debug)]
pub struct HistogramBuckets {
    /// The metric's name.
    pub name: &'static str,
    /// The upper bounds of its buckets.
    pub upper_bounds: &'static [f64],
}

/// The recorder's handle, which renders `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: PrometheusHandle,
    process: Collector,
}

impl Metrics {
    /// Installs the recorder of the process, and registers the metrics of HTTP, of the process and of its build. A
    /// second call fails.
    pub fn install(histograms: &[HistogramBuckets]) -> Result<Self, BuildError> {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let mut builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, DURATION_BUCKETS)?;
        for HistogramBuckets { name, upper_bounds } in histograms {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), upper_bounds)?;
        }
        let recorder = builder.install_recorder()?;
        let process = Collector::default();
        process.describe();
        http::register();
        register_build_info();
        Ok(Self { recorder, process })
    }

    /// Creates metrics that record nothing, for tests of routes.
    pub fn detached() -> Self {
        Self { recorder: PrometheusBuilder::new().build_recorder().handle(), process: Collector::default() }
    }

    /// Bounds the memory of histograms between scrapes. Never returns: spawn it.
    pub async fn run_upkeep(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.recorder.run_upkeep();
        }
    }

    /// Renders all metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        // Reads files in /proc. They are not on a disk, so the thread is not blocked for long.
        self.process.collect();
        self.recorder.render()
    }
}

fn register_build_info() {
    describe_gauge!("chat_build_info", "Always 1. The labels describe the program.");
    gauge!(
        "chat_build_info",
        "version" => env!("CARGO_PKG_VERSION"),
        "profile" => if cfg!(debug_assertions) { "debug" } else { "release" },
        "target" => format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
    )
    .set(1.0);
}
