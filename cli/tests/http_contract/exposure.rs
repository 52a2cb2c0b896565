//! Tests of which requests are refused for their host name, the site whose page sent them, or their admin token; of
//! what caches may store and other users of the machine may read; and of the examples in the OpenAPI document.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::contract::{Contract, NO_APP, assert_problem};
use crate::harness::api::{API, app_path, chat_path, message_path};
use crate::harness::client::Reply;

const ADMIN_TOKEN: &str = "correct-horse-battery-staple";

/// The paths of the `GET` routes in the document. Their parameters are [`NO_APP`] and 1.
fn paths_of_get_routes(contract: &Contract) -> Vec<String> {
    let operations = contract.document().operations();
    let templates = operations.into_iter().filter(|(method, _)| method == "GET").map(|(_, path)| path);
    let fill_in = |segment: &str| match segment {
        "{app_token}" => NO_APP.to_owned(),
        segment if segment.starts_with('{') => "1".to_owned(),
        segment => segment.to_owned(),
    };
    templates.map(|path| path.split('/').map(fill_in).collect::<Vec<_>>().join("/")).collect()
}

/// Sends the text of one request unchanged, and returns the whole response.
async fn send_raw(contract: &Contract, request: &str) -> String {
    let url = contract.client().url_of("/livez");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://").trim_end_matches("/livez"))
        .await
        .expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("a response");
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_rebinding_reads_nothing_from_a_server_without_an_admin_token() {
    let contract = Contract::start().await;
    for path in paths_of_get_routes(&contract) {
        let reply = contract.send(contract.client().get(path).header("host", "evil.example:8000")).await;
        assert_problem(&reply, 403, "origin_refused");
    }
    let create = contract.client().post(format!("{API}/apps"), &json!({ "name": "x" }));
    let reply = contract.send(create.header("host", "evil.example")).await;
    assert_problem(&reply, 403, "origin_refused");
    for own in ["localhost", "localhost:1", "127.0.0.1:8000", "[::1]:8000", "chat.localhost"] {
        contract.send(contract.client().get(format!("{API}/apps")).header("host", own)).await.expect(200);
    }
    // Probes send the address of the process as `Host`. The paths for probes accept any IP address,
    // but no foreign name.
    contract.client().get("/readyz").header("host", "10.1.2.3:8000").send_until(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_are_refused_by_a_server_without_an_admin_token() {
    let contract = Contract::start().await;
    let foreign = [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")];
    for (name, value) in foreign {
        let list = contract.client().get(format!("{API}/apps")).header(name, value);
        assert_problem(&contract.send(list).await, 403, "origin_refused");
        let create = contract.client().post(format!("{API}/apps"), &json!({ "name": "x" }));
        assert_problem(&contract.send(create.header(name, value)).await, 403, "origin_refused");
    }
    let own = contract.client().get("/docs").header("sec-fetch-site", "same-origin");
    contract.send(own).await.expect(200);
    let apps = contract.client().get(format!("{API}/apps")).send().await.expect(200).json();
    assert_eq!(apps, json!([]));
}

async fn request_of_another_site(contract: &Contract) -> Reply {
    let request = contract.client().get(app_path(NO_APP));
    contract.send(request.header("host", "other.example").header("origin", "null")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_name_is_answered_with_an_admin_token_and_only_allowed_ones_without() {
    let cases = [
        ("--admin-token", ADMIN_TOKEN, 404, "app_not_found"),
        ("--allowed-hosts", "chat.example", 403, "origin_refused"),
    ];
    for (flag, value, status, code) in cases {
        let contract = Contract::start_with(|options| options.with(flag, value)).await;
        let create = contract.client().post(format!("{API}/apps"), &json!({ "name": "x" }));
        let create = create.header("host", "chat.example").header("origin", "https://chat.example");
        contract.send(create).await.expect(201);
        assert_problem(&request_of_another_site(&contract).await, status, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_1_request_needs_exactly_one_valid_host() {
    for admin_token in [None, Some(ADMIN_TOKEN)] {
        let contract = Contract::start_with(|options| match admin_token {
            Some(token) => options.with("--admin-token", token),
            None => options,
        })
        .await;
        for head in [
            "GET /livez HTTP/1.1\r\n",
            "GET /livez HTTP/1.1\r\nHost:\r\n",
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
            "GET /livez HTTP/1.1\r\nHost: local host\r\n",
            "GET /livez HTTP/1.1\r\nHost: user@localhost\r\n",
            "GET http://localhost/livez HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        ] {
            let response = send_raw(&contract, &format!("{head}Connection: close\r\n\r\n")).await;
            assert!(response.starts_with("HTTP/1.1 400 "), "{head}: {response}");
            assert!(response.contains("\"code\":\"host_invalid\""), "{head}: {response}");
        }
        for head in [
            "GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
            "GET /livez HTTP/1.0\r\n",
        ] {
            let response = send_raw(&contract, &format!("{head}\r\n")).await;
            assert!(response.contains(" 200 OK"), "{head}: {response}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_content_type_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "Hi").await;
    for (method, path, body) in [
        (Method::POST, format!("{API}/apps"), json!({ "name": "x" })),
        (Method::PUT, app_path(&token), json!({ "name": "x" })),
        (Method::POST, format!("{}/chats", app_path(&token)), json!({})),
        (Method::POST, format!("{}/messages", chat_path(&token, 1)), json!({ "body": "x" })),
        (Method::PUT, message_path(&token, 1, 1), json!({ "body": "x" })),
        (Method::POST, format!("{}/messages/search", chat_path(&token, 1)), json!({ "query": "x" })),
        (Method::POST, format!("{}/messages/search", app_path(&token)), json!({ "query": "x" })),
    ] {
        let reply = contract.send(contract.client().request(method, path).body(body.to_string())).await;
        assert_problem(&reply, 415, "unsupported_media_type");
    }
    let create = contract.client().request(Method::POST, format!("{}/chats", app_path(&token)));
    contract.send(create).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_apps_needs_the_admin_token_if_so_configured() {
    let contract = Contract::start_with(|options| {
        options.with("--admin-token", ADMIN_TOKEN).with("--app-creation", "admin")
    })
    .await;
    let create = || contract.client().post(format!("{API}/apps"), &json!({ "name": "x" }));
    let missing = contract.send(create()).await;
    assert_problem(&missing, 401, "admin_token_missing");
    assert!(missing.header("www-authenticate").starts_with("Bearer"));
    assert_problem(
        &contract.send(create().header("authorization", "Bearer x")).await,
        403,
        "admin_token_wrong",
    );
    let admin = format!("Bearer {ADMIN_TOKEN}");
    let created = contract.send(create().header("authorization", &admin)).await.expect(201);
    let token = created.json()["data"]["app_token"].as_str().expect("a token").to_owned();
    // Inside the app, the token of the app is enough.
    contract.post(format!("{}/chats", app_path(&token)), &json!({})).await.expect(201);
    contract.message(&token, "Hi").await;
    // The actor of the event is the admin.
    let events = contract.client().get(format!("/admin/v1/audit/events?app={token}&order=oldest"));
    let events = contract.send(events.header("authorization", &admin)).await.expect(200).json();
    assert_eq!(events["data"]["events"][0]["metadata"]["actor"]["kind"], "admin", "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_store_no_answer_of_the_apis() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    assert_eq!(created.header("cache-control"), "no-store");
    let app = contract.get_after(&created, app_path(&token)).await.expect(200);
    let unchanged = contract.client().get(app_path(&token)).header("if-none-match", app.header("etag"));
    let unchanged = contract.send(unchanged).await.expect(304);
    let renamed = contract.put(app_path(&token), &json!({ "name": "x" })).await.expect(200);
    for reply in [app, unchanged, renamed] {
        assert_eq!(reply.header("cache-control"), "no-store", "{} {}", reply.method, reply.path);
    }
    for path in paths_of_get_routes(&contract) {
        // The response of this route does not end, so its header is checked below.
        if path == "/admin/v1/audit/tail" {
            continue;
        }
        let reply = contract.send(contract.client().get(path)).await;
        let is_document = reply.path.starts_with("/docs") || reply.path == "/openapi.json";
        let is_public = is_document && reply.status == 200;
        let expected = if is_public { "public, max-age=300" } else { "no-store" };
        assert_eq!(reply.header("cache-control"), expected, "{}", reply.path);
    }
    let tail = "GET /admin/v1/audit/tail HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let url = contract.client().url_of("/livez");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://").trim_end_matches("/livez"))
        .await
        .expect("a connection");
    stream.write_all(tail.as_bytes()).await.expect("a request");
    let mut head = String::new();
    while !head.contains("\r\n\r\n") {
        let mut part = [0; 1_024];
        let read = stream.read(&mut part).await.expect("a response");
        assert_ne!(read, 0, "{head}");
        head.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    assert!(head.to_ascii_lowercase().contains("cache-control: no-store"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn optional_parameters_have_no_example_because_the_api_reference_would_send_it() {
    let contract = Contract::start().await;
    let document = contract.document().json();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in parameters {
                // `/schema/default` is allowed: sending a default is the same as sending no value.
                let prefilled = ["/example", "/examples", "/schema/example"];
                let is_prefilled = prefilled.iter().any(|pointer| parameter.pointer(pointer).is_some());
                let name = &parameter["name"];
                assert!(!is_prefilled || parameter["required"] == true, "{method} {path}: {name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_of_the_document_agree_with_each_other() {
    let contract = Contract::start().await;
    let mut examples = Vec::new();
    collect_examples(contract.document().json(), &mut examples);
    let examples_of = |name: &str| -> BTreeSet<String> {
        let named = examples.iter().filter(|(property, _)| property == name);
        named.map(|(_, example)| example.to_string()).collect()
    };
    for name in [
        "app_token",
        "chat_number",
        "message_number",
        "chat_count",
        "message_count",
        "total",
        "body",
        "created_at",
        "updated_at",
        "at",
        "query",
    ] {
        assert_eq!(examples_of(name).len(), 1, "{name}: {:?}", examples_of(name));
    }
    for name in ["chat_number", "message_number", "chat_count", "message_count", "total"] {
        assert_eq!(examples_of(name), BTreeSet::from(["1".to_owned()]), "{name}");
    }
    assert_eq!(examples_of("created_at"), examples_of("updated_at"));
    let (body, query) = (
        examples_of("body").pop_first().expect("a body"),
        examples_of("query").pop_first().expect("a query"),
    );
    assert!(body.contains(query.trim_matches('"')), "{query} does not find {body}");
}

/// Collects the examples of properties and parameters with their names.
fn collect_examples(value: &Value, found: &mut Vec<(String, Value)>) {
    if let Some(members) = value.as_object() {
        if let (Some(name), Some(example)) = (value["name"].as_str(), value.get("example")) {
            found.push((name.to_owned(), example.clone()));
        }
        if let Some(example) = value.get("example").and_then(Value::as_object) {
            found.extend(example.iter().map(|(name, example)| (name.clone(), example.clone())));
        }
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            // Problems are left out: their examples describe errors, so they differ from those of apps.
            let is_problem = properties.contains_key("request_id");
            let examples =
                properties.iter().filter_map(|(name, schema)| Some((name, schema.get("example")?)));
            let examples =
                examples.filter(|_| !is_problem).map(|(name, example)| (name.clone(), example.clone()));
            found.extend(examples);
        }
        for member in members.values() {
            collect_examples(member, found);
        }
    } else if let Some(elements) = value.as_array() {
        for element in elements {
            collect_examples(element, found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_data_folder_is_private() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let path = data.to_str().expect("UTF-8").to_owned();
    let contract = Contract::start_with(|options| {
        options
            .with("--event-store-url", &format!("sqlite://{path}/log/events.db"))
            .with("--search-index-dir", &format!("{path}/search/index"))
    })
    .await;
    let token = contract.app_with_chat().await;
    let create =
        contract.client().post(format!("{}/messages", chat_path(&token, 1)), &json!({ "body": "Hi" }));
    let created = contract.send(create.header("idempotency-key", "a-key")).await.expect(201);
    contract.get_after(&created, chat_path(&token, 1)).await.expect(200);
    let mut file_count = 0;
    for folder in [data.as_path(), contract.folder()] {
        assert_private(folder, &mut file_count);
    }
    assert!(file_count >= 8, "there are only {file_count} files");
}

/// Asserts that only the owner may access a path and everything below it. Adds the number of files to `file_count`.
fn assert_private(path: &Path, file_count: &mut usize) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    let mode = metadata.mode() & 0o777;
    if metadata.is_dir() {
        assert_eq!(mode, 0o700, "{}", path.display());
        for entry in std::fs::read_dir(path).expect("a folder") {
            assert_private(&entry.expect("an entry").path(), file_count);
        }
    } else {
        assert_eq!(mode, 0o600, "{}", path.display());
        *file_count += 1;
    }
}
