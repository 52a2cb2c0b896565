//! Tests of `/metrics`: the metrics that exist from the first scrape, and their values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::api::{API, chat_path, create_app, create_chat, create_message};
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions, program};

/// The values of all series by their names with labels, and the types and help texts of all metrics.
struct Scrape {
    series: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
    help: BTreeMap<String, String>,
}

impl Scrape {
    async fn fetch(process: &Process) -> Self {
        let body = process.client().get("/metrics").send().await.expect(200).body;
        let text = String::from_utf8_lossy(&body);
        let mut scrape = Self { series: BTreeMap::new(), kinds: BTreeMap::new(), help: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                scrape.help.insert(name.to_owned(), help.to_owned());
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                scrape.kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a value");
                scrape.series.insert(name.to_owned(), value.parse().expect("a number"));
            }
        }
        scrape
    }

    fn value(&self, series: &str) -> f64 {
        let found = self.series.get(series);
        *found.unwrap_or_else(|| panic!("{series} is not in {:?}", self.series.keys()))
    }

    fn is_zero(&self, series: &str) -> bool {
        self.value(series).abs() < f64::EPSILON
    }

    fn names(&self) -> BTreeSet<&str> {
        self.kinds.keys().map(String::as_str).collect()
    }
}

/// The metrics in the table of the documentation.
fn documented_metrics() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/monitoring.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, section) = page.split_once("\n## Metrics\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("a next section");
    let names = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names =
        names.flat_map(|cell| cell.split(", ")).filter_map(|name| name.strip_prefix('`')?.strip_suffix('`'));
    names.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_documented_metrics_exist_from_the_first_scrape_with_a_help_text() {
    let folder = folder();
    let server = ProcessOptions::new("serve", folder.path()).start().await;
    let first = Scrape::fetch(&server).await;
    let names: BTreeSet<String> = first.names().into_iter().map(str::to_owned).collect();
    assert_eq!(names, documented_metrics(), "the metrics differ from the documented ones");
    for name in &names {
        assert!(name.starts_with("chat_") || name.starts_with("process_"), "{name}");
        assert!(
            first.help.get(name).is_some_and(|help| help.ends_with('.')),
            "{name}: {:?}",
            first.help.get(name)
        );
        assert_ne!(
            first.kinds[name], "summary",
            "{name} is a summary: quantiles of several processes can't be combined"
        );
    }
    assert!(first.is_zero("chat_commands_total{command=\"CreateMessage\",outcome=\"unknown\"}"));
    let refused = "chat_http_requests_total{method=\"POST\",route=\"/api/v1/apps\",status=\"503\"}";
    assert!(first.is_zero(refused));

    let client = server.client();
    let token = create_app(&client, "an app").await;
    let chat = create_chat(&client, &token).await;
    create_message(&client, &token, chat, "a text").await;
    client.post(format!("{API}/apps"), &json!({ "name": "" })).send().await.expect(422);
    client.get(format!("{}/messages/9", chat_path(&token, chat))).send().await.expect(404);
    let second = Scrape::fetch(&server).await;
    let new: Vec<&String> =
        second.series.keys().filter(|series| !first.series.contains_key(*series)).collect();
    assert_eq!(new, Vec::<&String>::new(), "the first scrape lacked series");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_has_its_own_metrics_and_those_of_its_process() {
    let folder = folder();
    let commands = ProcessOptions::new("command-api", folder.path()).start().await;
    let projector = ProcessOptions::new("projector", folder.path()).start().await;
    let queries = ProcessOptions::new("query-api", folder.path()).start().await;
    let mut all = BTreeSet::new();
    for (process, own, of_others) in [
        (&commands, "chat_commands_total", "chat_projection_position"),
        (&projector, "chat_projection_position", "chat_query_waits_total"),
        (&queries, "chat_query_waits_total", "chat_commands_total"),
    ] {
        let scrape = Scrape::fetch(process).await;
        let names = scrape.names();
        for name in [own, "process_open_fds", "process_resident_memory_bytes", "chat_build_info"] {
            assert!(names.contains(name), "the process with {own} has no {name}");
        }
        assert!(!names.contains(of_others), "the process with {own} has {of_others} too");
        assert!(scrape.value("process_cpu_seconds_total") > 0.0);
        all.extend(names.into_iter().map(str::to_owned));
    }
    assert_eq!(all, documented_metrics());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_say_how_large_the_data_is_and_when_it_was_backed_up() {
    let folder = folder();
    let server = ProcessOptions::new("serve", folder.path()).start().await;
    let token = create_app(&server.client(), "an app").await;
    create_chat(&server.client(), &token).await;
    assert!(Scrape::fetch(&server).await.is_zero("chat_backup_timestamp_seconds"));
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64();
    let mut backup = program();
    backup.arg("backup").arg("--data-dir").arg(folder.path()).arg("--out").arg(folder.path().join("backup"));
    assert!(backup.output().expect("the program runs").status.success());

    let scrape = eventually("the time of the backup", async || {
        let scrape = Scrape::fetch(&server).await;
        (scrape.value("chat_backup_timestamp_seconds") > 0.0).then_some(scrape)
    })
    .await;
    assert!(scrape.value("chat_backup_timestamp_seconds") >= began.floor());
    for content in ["event_log", "read_model", "search_index", "idempotency_keys"] {
        assert!(scrape.value(&format!("chat_storage_bytes{{content=\"{content}\"}}")) > 0.0, "{content}");
    }
    let disk = |metric: &str| scrape.value(&format!("{metric}{{folder=\"{}\"}}", folder.path().display()));
    assert!(disk("chat_disk_available_bytes") > 0.0);
    assert!(disk("chat_disk_size_bytes") >= disk("chat_disk_available_bytes"));
    assert!(scrape.value("chat_event_log_commit_seconds_count") >= 2.0);
    assert!(scrape.value("chat_event_log_append_seconds_count") >= 2.0);
}

/// The progress of the read model in `/readyz`.
async fn read_model_progress(process: &Process) -> Value {
    let ready = process.client().get("/readyz").send().await.json();
    let parts = ready["parts"].as_array().expect("parts");
    parts.iter().find(|part| part["name"] == "read_model").expect("the read model")["projection"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_standby_is_the_same_in_readiness_and_metrics() {
    let folder = folder();
    let options = |role| ProcessOptions::new(role, folder.path());
    let commands = options("command-api").start().await;
    let client = commands.client();
    let token = create_app(&client, "an app").await;
    let chat = create_chat(&client, &token).await;
    create_message(&client, &token, chat, "one").await;
    let active = options("projector").start().await;
    active.wait_until_folded(3).await;
    let standby = options("projector").start().await;
    assert_eq!(read_model_progress(&standby).await["state"], "standing_by");
    let wait_until_both_report = async |expected_position: u64, expected_lag: u64| {
        let condition = format!("at {expected_position}, {expected_lag} events behind");
        eventually(&condition, async || {
            let (ready, scrape) = (read_model_progress(&standby).await, Scrape::fetch(&standby).await);
            let metric =
                |name: &str| scrape.value(&format!("chat_projection_{name}{{projection=\"read_model\"}}"));
            let [position, lag, seconds] = ["position", "lag_events", "lag_seconds"].map(metric);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let metrics_have_position_and_lag =
                (position, lag) == (expected_position as f64, expected_lag as f64);
            (ready["position"] == expected_position
                && ready["lag_events"] == expected_lag
                && (ready["lag_ms"].as_u64() > Some(0)) == (expected_lag > 0)
                && (seconds > 0.0) == (expected_lag > 0)
                && metrics_have_position_and_lag)
                .then_some(())
        })
        .await;
    };
    wait_until_both_report(3, 0).await;
    active.pause();
    create_message(&client, &token, chat, "two").await;
    create_message(&client, &token, chat, "three").await;
    wait_until_both_report(3, 2).await;
    active.resume();
    wait_until_both_report(5, 0).await;
}
