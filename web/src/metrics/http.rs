//! HTTP metrics: request counts and latencies by route, method and status.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use utoipa::openapi::OpenApi;

/// The counters and histograms of responses, by route. Registering a metric by its labels takes longer than recording
/// into it, so a metric is registered once for each combination of route, method and status. The number of
/// combinations is bounded.
#[derive(Default)]
pub(crate) struct HttpMetrics(RwLock<HashMap<String, Vec<ResponseMetrics>>>);

/// The metrics of responses that share route, method and status.
struct ResponseMetrics {
    method: &'static str,
    status: u16,
    requests: Counter,
    durations: Histogram,
}

/// Describes the metrics of HTTP, and registers those that don't depend on routes.
pub(super) fn register() {
    describe_counter!("chat_http_requests_total", "Answered requests, by method, route and status.");
    describe_histogram!(
        "chat_http_request_duration_seconds",
        Unit::Seconds,
        "Time from the end of a request's head to its response."
    );
    describe_gauge!("chat_http_connections", "Open connections.");
    gauge!("chat_http_connections").increment(0.0);
    describe_counter!(
        "chat_http_connections_closed_idle_total",
        "Idle connections that were closed to make room for new ones, by the limit that was reached."
    );
    describe_counter!(
        "chat_http_connections_refused_total",
        "New connections that were closed because no other one was idle, by the limit that was reached."
    );
    for limit in ["process", "address"] {
        counter!("chat_http_connections_closed_idle_total", "limit" => limit).increment(0);
        counter!("chat_http_connections_refused_total", "limit" => limit).increment(0);
    }
    describe_counter!(
        "chat_http_overloaded_total",
        "Requests that were refused because a slot (in_flight) or memory for their body or response was missing, by \
         reason."
    );
    for reason in ["in_flight", "request_memory", "response_memory"] {
        counter!("chat_http_overloaded_total", "reason" => reason).increment(0);
    }
    describe_counter!(
        "chat_http_aborted_total",
        "Requests that were aborted because their client did not read the response or send the request's body."
    );
    for waited_for in ["response", "request_body"] {
        counter!("chat_http_aborted_total", "waited_for" => waited_for).increment(0);
    }
    describe_gauge!("chat_http_request_body_bytes", Unit::Bytes, "Memory in use for the bodies of requests.");
    describe_gauge!(
        "chat_http_unsent_response_bytes",
        Unit::Bytes,
        "Memory in use for responses that are not sent yet."
    );
    gauge!("chat_http_request_body_bytes").increment(0.0);
    gauge!("chat_http_unsent_response_bytes").increment(0.0);
    describe_counter!(
        "chat_rate_limit_unshared_total",
        "Requests that this process counted by itself, because the store of rate limits did not answer."
    );
    counter!("chat_rate_limit_unshared_total").increment(0);
}

/// Registers the metrics of the responses that a document describes, so that they exist before the first response.
pub(crate) fn register_route_metrics(document: &OpenApi) {
    for (path, item) in &document.paths.paths {
        let operations =
            [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)];
        for (method, operation) in operations {
            let statuses = operation.iter().flat_map(|operation| operation.responses.responses.keys());
            for status in statuses.filter_map(|status| status.parse().ok()) {
                ResponseMetrics::register(method, path, status);
            }
        }
    }
}

impl HttpMetrics {
    /// Records a response.
    pub(crate) fn record_response(&self, method: &'static str, route: &str, status: u16, elapsed: Duration) {
        let has_same_labels = |entry: &&ResponseMetrics| entry.method == method && entry.status == status;
        let by_route = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = by_route.get(route).and_then(|entries| entries.iter().find(has_same_labels)) {
            return entry.record(elapsed);
        }
        drop(by_route);
        let entry = ResponseMetrics::register(method, route, status);
        entry.record(elapsed);
        // Two requests may register the same labels at once. Both entries record into the same metrics.
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(route.to_owned())
            .or_default()
            .push(entry);
    }
}

impl ResponseMetrics {
    fn register(method: &'static str, route: &str, status: u16) -> Self {
        let requests = counter!(
            "chat_http_requests_total",
            "method" => method, "route" => route.to_owned(), "status" => status.to_string()
        );
        let durations =
            histogram!("chat_http_request_duration_seconds", "method" => method, "route" => route.to_owned());
        Self { method, status, requests, durations }
    }

    fn record(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.durations.record(elapsed);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn counts_responses_by_route_method_and_status() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let http_metrics = HttpMetrics::default();
            for (method, route, status) in [
                ("GET", "/a", 200),
                ("GET", "/a", 200),
                ("GET", "/a", 404),
                ("PUT", "/a", 200),
                ("GET", "/b", 200),
            ] {
                http_metrics.record_response(method, route, status, Duration::from_millis(3));
            }
        });
        let rendered = handle.render();
        for (labels, count) in [
            (r#"method="GET",route="/a",status="200""#, 2),
            (r#"method="GET",route="/a",status="404""#, 1),
            (r#"method="PUT",route="/a",status="200""#, 1),
            (r#"method="GET",route="/b",status="200""#, 1),
        ] {
            let line = format!("chat_http_requests_total{{{labels}}} {count}");
            assert!(rendered.contains(&line), "{line} in {rendered}");
        }
        let durations = "chat_http_request_duration_seconds_count{method=\"GET\",route=\"/a\"} 3";
        assert!(rendered.contains(durations), "{durations} in {rendered}");
    }
}
