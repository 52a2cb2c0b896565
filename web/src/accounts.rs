//! How requests went, in the metrics.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

/// What answers are counted into. Looking a metric up by its labels takes longer than counting: it is done once for each
/// route, method and status, of which there is a fixed number.
#[derive(Default)]
pub(crate) struct Accounts(RwLock<HashMap<String, Vec<Account>>>);

/// The answers of one route to one method that had the same status.
struct Account {
    method: &'static str,
    status: u16,
    requests: Counter,
    durations: Histogram,
}

impl Accounts {
    /// Counts an answer.
    pub(crate) fn answered(&self, method: &'static str, route: &str, status: u16, after: Duration) {
        let of_this = |account: &&Account| account.method == method && account.status == status;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = known.get(route).and_then(|accounts| accounts.iter().find(of_this)) {
            return account.count(after);
        }
        drop(known);
        let account = Account::open(method, route, status);
        account.count(after);
        // Two may open the same one at the same moment: both count into the same metrics.
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(route.to_owned())
            .or_default()
            .push(account);
    }
}

impl Account {
    fn open(method: &'static str, route: &str, status: u16) -> Self {
        let requests = counter!(
            "http_requests_total",
            "method" => method, "route" => route.to_owned(), "status" => status.to_string()
        );
        let durations =
            histogram!("http_request_duration_seconds", "method" => method, "route" => route.to_owned());
        Self { method, status, requests, durations }
    }

    fn count(&self, after: Duration) {
        self.requests.increment(1);
        self.durations.record(after);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn every_answer_counts_under_its_route_method_and_status() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let accounts = Accounts::default();
            for (method, route, status) in [
                ("GET", "/a", 200),
                ("GET", "/a", 200),
                ("GET", "/a", 404),
                ("PUT", "/a", 200),
                ("GET", "/b", 200),
            ] {
                accounts.answered(method, route, status, Duration::from_millis(3));
            }
        });
        let rendered = handle.render();
        for (labels, count) in [
            (r#"method="GET",route="/a",status="200""#, 2),
            (r#"method="GET",route="/a",status="404""#, 1),
            (r#"method="PUT",route="/a",status="200""#, 1),
            (r#"method="GET",route="/b",status="200""#, 1),
        ] {
            let line = format!("http_requests_total{{{labels}}} {count}");
            assert!(rendered.contains(&line), "{line} in {rendered}");
        }
        let durations = "http_request_duration_seconds_count{method=\"GET\",route=\"/a\"} 3";
        assert!(rendered.contains(durations), "{durations} in {rendered}");
    }
}
