//! Tests that an action leaves the same events whether it is executed by command line, over HTTP or in the console.

use std::path::Path;
use std::sync::Mutex;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Metadata, Revision, Timestamp, operator_action};
use chat_kurrentdb::{KurrentDbEventStore, KurrentDbUrl};
use chat_ports::event_store::{EventStore, NewEvent, ReadStart, StreamAppend, StreamRead};
use chat_postgres::{PostgresEventStore, PostgresUrl};
use chat_sqlite::SqliteEventStore;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::Contract;
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::program;
use crate::jobs::signing_key;
use crate::operators::add_operator;

/// An interface through which an operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    CommandLine,
    /// The command line, with `--server` for the commands that have this option.
    CommandLineAtServer,
    Http,
    Console,
}

/// An action, described for each interface.
struct Action {
    /// The arguments of the command line.
    command: Vec<String>,
    /// Whether the command has `--server`.
    has_server: bool,
    /// The path over HTTP, below `/admin/v1`.
    path: &'static str,
    /// The body over HTTP, without `execute` and `reason`.
    options: Value,
    /// The name of the action in the path of the console's form.
    kind: &'static str,
    /// The fields of the console's form, without `execute` and `reason`.
    fields: Vec<(&'static str, String)>,
}

impl Action {
    fn new(
        command: &str,
        path: &'static str,
        options: Value,
        kind: &'static str,
        fields: &[(&'static str, &str)],
    ) -> Self {
        Self {
            command: command.split(' ').map(str::to_owned).collect(),
            has_server: !command.starts_with("audit"),
            path,
            options,
            kind,
            fields: fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }
}

/// A deployment with an event that is a dead letter of both projections, and the operator `alice`.
struct Scenario {
    contract: Contract,
    /// The token of the app.
    token: String,
    /// The token of the operator.
    alice: String,
    /// The URLs of the log and of the read model. `None` if both are in the folder of the deployment.
    urls: Option<(String, String)>,
    /// The position of the event that is a dead letter.
    dead_letter: u64,
}

impl Scenario {
    async fn start(operators: &Path, alice: &str, key: &str) -> Self {
        let urls = Mutex::new(None);
        let contract = Contract::start_with(|options| {
            let url = |flag| options.value(flag).map(str::to_owned);
            *urls.lock().expect("a lock") = url("--event-store-url").zip(url("--database-url"));
            let operators = operators.to_str().expect("text");
            options.with("--operators", operators).with("--audit-key", key).with("--keep-previous", "1")
        })
        .await;
        let token = contract.app_with_chat().await;
        contract.message(&token, "Hi").await;
        let urls = urls.into_inner().expect("a lock");
        let log = open_log(&contract, urls.as_ref()).await;
        let dead_letter = append_unknown_event(&*log, &format!("chat-{token}-1")).await;
        let scenario = Self { contract, token, alice: alice.to_owned(), urls, dead_letter };
        eventually("the event is a dead letter", async || {
            let found = scenario.get(&format!("/admin/v1/dead-letters/{dead_letter}")).await;
            (found["data"]["letters"].as_array().map(Vec::len) == Some(2)).then_some(())
        })
        .await;
        scenario
    }

    async fn get(&self, path: &str) -> Value {
        let call = self.contract.client().get(path);
        call.header("authorization", &format!("Bearer {}", self.alice)).send().await.json()
    }

    /// Executes an action through an interface, and returns whether it succeeded.
    async fn act(&self, interface: Interface, action: &Action) -> bool {
        match interface {
            Interface::CommandLineAtServer if action.has_server => {
                let url = self.contract.client().url_of("");
                self.run(&action.command, &["--server", &url]).await
            }
            Interface::CommandLine | Interface::CommandLineAtServer => self.run(&action.command, &[]).await,
            Interface::Http => {
                let mut body = action.options.clone();
                body["execute"] = true.into();
                body["reason"] = "of a test".into();
                let call = self.contract.client().post(format!("/admin/v1{}", action.path), &body);
                let reply = call.header("authorization", &format!("Bearer {}", self.alice)).send().await;
                let location = reply.expect(202).header("location").to_owned();
                self.succeeds(&location).await
            }
            Interface::Console => {
                let console = Console::sign_in(&self.contract.client().query_urls()[0], &self.alice).await;
                let mut fields = action.fields.clone();
                fields.extend([("execute", "true".to_owned()), ("reason", "of a test".to_owned())]);
                let location = console.post(&format!("/console/actions/{}", action.kind), &fields).await;
                self.succeeds(&location.replace("/console", "/admin/v1")).await
            }
        }
    }

    /// Waits for the end of a job. Returns `false` if the job failed.
    async fn succeeds(&self, job_path: &str) -> bool {
        eventually("the job has ended", async || {
            let job = self.get(job_path).await;
            job["data"]["ended_at"].is_string().then(|| job["data"]["state"] != "failed")
        })
        .await
    }

    /// Runs a command, and returns whether it succeeded. Without an option `--server`, the command gets the options
    /// that locate the data.
    async fn run(&self, arguments: &[String], server_option: &[&str]) -> bool {
        let mut command = program();
        command
            .args(arguments)
            .args(server_option)
            .env("CHAT_API_TOKEN", &self.alice)
            .env("CHAT_OPERATOR", "alice");
        if server_option.is_empty() {
            command.arg("--data-dir").arg(self.contract.folder());
            if let Some((log, read_model)) = &self.urls {
                command.args(["--event-store-url", log, "--database-url", read_model]);
            }
        }
        let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs"));
        let output = output.await.expect("the end of the command");
        // A usage error fails the test at once, because each repetition of the command would fail in the same way.
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!message.contains("Usage:"), "{arguments:?}: {message}");
        // Exit code 1 counts as a success: a retry that can't apply the event ends with a finding.
        matches!(output.status.code(), Some(0 | 1))
    }

    /// Returns the stored events of operator actions, and those of jobs, without the parts that may differ
    /// between deployments: the interface, the app's token, ids, times, positions, and the number and root hash of the
    /// events in a checkpoint.
    async fn events(&self) -> (Vec<Value>, Vec<Value>) {
        let log = open_log(&self.contract, self.urls.as_ref()).await;
        let read = StreamRead::all(operator_action::STREAM, ReadStart::Forwards(Revision::FIRST), 1_000);
        let events = log.read_stream(read).await.expect("the stream");
        let events = events.iter().map(|event| {
            let mut data: Value = serde_json::from_slice(&event.data).expect("JSON");
            let mut metadata: Value = serde_json::from_slice(&event.metadata).expect("JSON");
            let version = event.schema_version.0;
            remove(&mut data, &["position", "events", "root"]);
            remove(&mut data["options"], &["position"]);
            remove(&mut metadata, &["correlation_id", "causation_id"]);
            let user_agent = metadata["actor"]["user_agent"].take();
            assert!(user_agent.is_string(), "{metadata}");
            let event =
                json!({ "type": event.event_type, "version": version, "data": data, "metadata": metadata });
            let text = event.to_string().replace(&self.token, "TOKEN");
            serde_json::from_str(&text).expect("JSON")
        });
        let (jobs, actions) = events
            .partition(|event: &Value| event["type"].as_str().is_some_and(|name| name.starts_with("Job")));
        (actions, jobs)
    }
}

fn remove(value: &mut Value, fields: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        for field in fields {
            object.remove(*field);
        }
    }
}

/// Opens the log: on the server of the deployment, or in its folder.
async fn open_log(contract: &Contract, urls: Option<&(String, String)>) -> Box<dyn EventStore> {
    match urls {
        Some((log, _)) if log.starts_with("postgres") => {
            let url = PostgresUrl::parse(log).expect("a URL");
            Box::new(PostgresEventStore::open(&url).await.expect("the log"))
        }
        Some((log, _)) => {
            let url = KurrentDbUrl::parse(log).expect("a URL");
            Box::new(KurrentDbEventStore::open(&url).await.expect("the log"))
        }
        None => Box::new(SqliteEventStore::open(&contract.folder().join("events.db")).expect("the log")),
    }
}

/// Appends an event of a type that no program knows, and returns its position.
async fn append_unknown_event(log: &dyn EventStore, stream: &str) -> u64 {
    let last = log.read_stream(StreamRead::last_event(stream)).await.expect("a stream").pop();
    let event = NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type: "MessagePinned",
        schema_version: SchemaVersion::FIRST,
        recorded_at: Timestamp::from_millis(1_790_000_000_000),
        data: "{}".to_owned(),
        metadata: serde_json::to_string(&Metadata::default()).expect("JSON").into(),
    };
    let expected_revision = ExpectedRevision::from_last_revision(last.map(|event| event.revision));
    let append = StreamAppend { stream: stream.into(), expected_revision, events: vec![event] };
    log.append(vec![append]).await.remove(0).expect("an append").position.get()
}

/// An operator who is signed in to the console of a process.
struct Console {
    client: Client,
    cookie: String,
    form_token: String,
}

impl Console {
    async fn sign_in(url: &str, token: &str) -> Self {
        let client = Client::new(url);
        let form = client.request(http::Method::POST, "/console/sign-in").body(format!("token={token}"));
        let signed_in = form.send().await.expect(303);
        let cookie = signed_in.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        let page = client.get("/console/apps").header("cookie", &cookie).send().await.expect(200);
        let page = String::from_utf8(page.body.to_vec()).expect("text");
        let form_token =
            page.split("name=\"form_token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let form_token = form_token.expect("a form token").to_owned();
        Self { client, cookie, form_token }
    }

    /// Sends a form, and returns the target of the redirect.
    async fn post(&self, path: &str, fields: &[(&'static str, String)]) -> String {
        let fields = fields.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
        let form: Vec<String> = fields.chain([format!("form_token={}", self.form_token)]).collect();
        let form = form.join("&");
        let call = self.client.request(http::Method::POST, path).body(form);
        let reply = call.header("cookie", &self.cookie).send().await.expect(303);
        reply.header("location").to_owned()
    }
}

/// Executes every action through one interface, and returns the events of actions, and those of jobs.
async fn execute_every_action(
    interface: Interface,
    operators: &Path,
    alice: &str,
    key: &str,
) -> (Vec<Value>, Vec<Value>) {
    let scenario = Scenario::start(operators, alice, key).await;
    let (position, dead_letter) = (scenario.dead_letter, format!("read_model/{}", scenario.dead_letter));
    let both = [("projection", "read_model"), ("projection", "search_index")];
    let of_dead_letter = [("dead_letter", dead_letter.as_str())];
    let options = json!({ "projections": ["read_model"], "position": position });
    // `Action::new` splits the command at blanks. The blanks of the reason are put in below.
    let execute = "--execute --reason of_a_test";
    let checkpoint = scenario.contract.folder().join("checkpoint");
    let dead_letters =
        |verb: &str| format!("dead-letters {verb} {position} --projection read-model {execute}");
    let actions = [
        Action::new(
            &format!("projections rebuild --all {execute}"),
            "/projections/rebuilds",
            json!({}),
            "projections.rebuild",
            &both,
        ),
        Action::new(
            &format!("projections rollback {execute}"),
            "/projections/rollbacks",
            json!({}),
            "projections.rollback",
            &both,
        ),
        Action::new(
            &format!("projections promote {execute}"),
            "/projections/promotions",
            json!({}),
            "projections.promote",
            &both,
        ),
        Action::new(
            &format!("projections drop read-model --generation 1 {execute}"),
            "/projections/drops",
            json!({ "projections": ["read_model"], "generation": 1 }),
            "projections.drop",
            &[("generation", "read_model/1")],
        ),
        Action::new(
            &dead_letters("retry"),
            "/dead-letters/retries",
            options.clone(),
            "dead_letters.retry",
            &of_dead_letter,
        ),
        Action::new(
            &dead_letters("discard"),
            "/dead-letters/discards",
            options.clone(),
            "dead_letters.discard",
            &of_dead_letter,
        ),
        Action::new(
            &dead_letters("acknowledge"),
            "/dead-letters/acknowledgements",
            options,
            "dead_letters.acknowledge",
            &of_dead_letter,
        ),
        Action::new(
            &format!("audit checkpoint --key {key} --out {} --reason of_a_test", checkpoint.display()),
            "/audit/checkpoints",
            json!({}),
            "audit.checkpoint",
            &[],
        ),
        Action::new("audit verify", "/audit/verifications", json!({}), "audit.verify", &[]),
    ];
    for action in actions {
        let action = Action {
            command: action.command.iter().map(|word| word.replace("of_a_test", "of a test")).collect(),
            ..action
        };
        // A projector works on a superseded generation for the time of --keep-previous, and meanwhile a drop fails.
        eventually(&format!("{} by {interface:?}", action.kind), async || {
            scenario.act(interface, &action).await.then_some(())
        })
        .await;
    }
    scenario.events().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_leaves_the_same_event_through_each_interface() {
    let folder = folder();
    let operators = folder.path().join("operators");
    let alice = add_operator(&operators, "alice", "read,act");
    let (key, _) = signing_key(folder.path());
    let act = |interface| execute_every_action(interface, &operators, &alice, &key);
    let ((by_command_line, no_jobs), (at_server, server_jobs)) =
        tokio::join!(act(Interface::CommandLine), act(Interface::CommandLineAtServer));
    let ((by_http, http_jobs), (by_console, console_jobs)) =
        tokio::join!(act(Interface::Http), act(Interface::Console));
    let types: Vec<&str> = by_command_line.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(
        types,
        [
            "RebuildStarted",
            "ProjectionsPromoted",
            "ProjectionsRolledBack",
            "ProjectionsPromoted",
            "ProjectionsDropped",
            "DeadLettersRetried",
            "DeadLetterDiscarded",
            "DiscardAcknowledged",
            "SigningKeyUsed",
        ]
    );
    assert_eq!(at_server, by_command_line);
    assert_eq!(by_http, by_command_line);
    assert_eq!(by_console, by_command_line);

    // The requests of the jobs are the same, too.
    assert_eq!(no_jobs, Vec::<Value>::new());
    let requests = |jobs: &[Value]| -> Vec<Value> {
        let requests = jobs.iter().filter(|job| job["type"] == "JobRequested").cloned();
        let mut requests: Vec<Value> = requests.collect();
        // A drop is requested again while a projector works on the generation.
        requests.dedup();
        requests
    };
    assert_eq!(requests(&http_jobs), requests(&console_jobs));
    // The command line signs and verifies without a server, so `server_jobs` has no jobs for that.
    let without_audit: Vec<Value> = requests(&http_jobs)
        .into_iter()
        .filter(|job| !job["data"]["kind"].as_str().is_some_and(|kind| kind.starts_with("audit.")))
        .collect();
    assert_eq!(requests(&server_jobs), without_audit);
}
