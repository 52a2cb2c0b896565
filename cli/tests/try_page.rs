//! The page `/docs/try` in a real browser: a chat whose messages arrive by themselves.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use chat_testing::browser::{Browser, Window};
use chat_testing::cutting_proxy::{CuttingProxy, Network};
use chat_testing::port;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use harness::api::{chat_path, create_app, create_chat, create_message, message_path};
use harness::client::Client;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions, program};

/// The key Enter in WebDriver.
const ENTER: &str = "\u{E007}";

/// Opens an app on the page, and waits until its newest chat is followed.
async fn open_app(browser: &Browser, url: &str, token: &str) -> Window {
    let window = browser.open_window().await;
    window.go_to(&format!("{url}/docs/try")).await;
    window.find("#app-token").await.type_text(token).await;
    window.find("#open button").await.click().await;
    window.find("#state.live").await;
    window
}

/// The numbers and texts of the messages on the page, in their order.
async fn messages(window: &Window) -> Vec<(u64, String)> {
    let script = "return [...document.querySelectorAll('#messages li')].map((item) =>
        [Number(item.id.slice('message-'.length)), item.querySelector('.body').textContent])";
    let shown = window.execute(script, &json!([])).await;
    serde_json::from_value(shown).expect("numbers and texts")
}

/// A gateway whose server is down. It answers all connections at a port with status 502.
struct GatewayWithoutServer(tokio::task::JoinHandle<()>);

impl GatewayWithoutServer {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port of the server");
        let answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        Self(tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                // A browser that has gone needs no answer.
                let _ = connection.read(&mut [0; 4_096]).await;
                let _ = connection.write_all(answer).await;
            }
        }))
    }

    async fn stop(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

/// Runs an operator command.
fn run(arguments: &[&str]) {
    let output = program().args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An app with one chat.
async fn app_with_chat(client: &Client) -> (String, u64) {
    let token = create_app(client, "tried").await;
    let chat = create_chat(client, &token).await;
    (token, chat)
}

#[tokio::test]
async fn messages_appear_without_a_reload() {
    let folder = folder();
    let server = ProcessOptions::new("serve", folder.path()).start().await;
    let (client, browser) = (server.client(), Browser::start().expect("a browser"));

    // The page alone creates an app, a chat and messages.
    let one = browser.open_window().await;
    one.go_to(&format!("{}/docs/try", server.url())).await;
    one.find("#create button").await.click().await;
    one.find("#state.live").await;
    let token = one.execute("return sessionStorage.getItem('app_token')", &json!([])).await;
    let token = token.as_str().expect("the app's token").to_owned();

    let two = open_app(&browser, server.url(), &token).await;
    one.find("#sender").await.type_text("Nadia").await;
    one.find("#text").await.type_text(&format!("Is the fox quick?{ENTER}")).await;
    for window in [&one, &two] {
        window.wait_for_text("Is the fox quick?").await;
        window.wait_for_text("Nadia").await;
    }

    // Another client sends a text that would run a script if the page took it for HTML. It also edits a message,
    // deletes another one, and creates a second chat.
    let hostile = "<img src=x onerror=\"document.title='changed'\"><b>bold</b>";
    create_message(&client, &token, 1, hostile).await;
    create_message(&client, &token, 1, "to be deleted").await;
    two.wait_for_text("to be deleted").await;
    client.put(message_path(&token, 1, 1), &json!({ "body": "It is." })).send().await.expect(200);
    client.delete(message_path(&token, 1, 3)).send().await.expect(204);
    create_chat(&client, &token).await;
    for window in [&one, &two] {
        window.wait_for_text("This message was deleted.").await;
        window.find("#chat-2").await;
        let expected = ["It is.", hostile, "This message was deleted."];
        let texts: Vec<String> = messages(window).await.into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, expected);
        assert_eq!(window.execute("return document.title", &json!([])).await, "Try it – Chat API");
        let script = "return performance.getEntriesByType('resource').map((entry) => entry.name)
            .filter((name) => !name.startsWith(location.origin))";
        assert_eq!(window.execute(script, &json!([])).await, json!([]), "requests to other servers");
        assert_eq!(window.console().await, Vec::<String>::new());
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_is_opened_again_and_no_message_is_lost() {
    let folder = folder();
    let port = port::find_free_for_restarts().expect("a free port");
    let options =
        ProcessOptions::new("serve", folder.path()).with("--listen-addr", &format!("127.0.0.1:{port}"));
    let mut server: Process = options.start().await;
    let proxy = CuttingProxy::start(port).await.expect("a proxy");
    let browser = Browser::start().expect("a browser");
    let (token, chat) = app_with_chat(&server.client()).await;
    let window = open_app(&browser, &format!("http://127.0.0.1:{}", proxy.port()), &token).await;

    let mut posted = Vec::new();
    for round in ["cut", "cut again", "killed"] {
        proxy.set(Network::Refusing);
        window
            .wait_for(
                "another state than live",
                "return document.querySelector('#state:not(.live)') !== null",
                &json!([]),
            )
            .await;
        for text in [format!("first, {round}"), format!("second, {round}")] {
            let reply = create_message(&server.client(), &token, chat, &text).await;
            posted.push((harness::api::number(&reply.json(), "message_number"), text));
        }
        if round == "killed" {
            server.kill();
            server = options.start().await;
        }
        proxy.set(Network::Open);
        window.wait_for_text(&posted.last().expect("a message").1).await;
        window.find("#state.live").await;
        assert_eq!(messages(&window).await, posted);
    }
    let page: Value =
        server.client().get(format!("{}/messages", chat_path(&token, chat))).send().await.expect(200).json();
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(posted.len()));
    server.shut_down().await;
}

#[tokio::test]
async fn nothing_is_sent_or_shown_twice_by_a_double_click() {
    let folder = folder();
    let server = ProcessOptions::new("serve", folder.path()).start().await;
    let (client, browser) = (server.client(), Browser::start().expect("a browser"));
    let (token, chat) = app_with_chat(&client).await;
    let window = open_app(&browser, server.url(), &token).await;
    let double_click = "for (const _ of [1, 2]) document.querySelector(arguments[0]).click()";
    window.execute(double_click, &json!(["#chat-1"])).await;
    window.find("#state.live").await;
    create_message(&client, &token, chat, "one").await;
    window.wait_for_text("one").await;

    window.find("#text").await.type_text("two").await;
    window.execute(double_click, &json!(["#submit"])).await;
    window.wait_for_text("two").await;
    create_message(&client, &token, chat, "three").await;
    window.wait_for_text("three").await;
    let shown = messages(&window).await;
    assert_eq!(shown, [(1, "one".to_owned()), (2, "two".to_owned()), (3, "three".to_owned())]);
    server.shut_down().await;
}

#[tokio::test]
async fn a_chat_that_is_still_being_created_is_not_opened_after_leaving() {
    let folder = folder();
    let server = ProcessOptions::new("serve", folder.path()).start().await;
    let (client, browser) = (server.client(), Browser::start().expect("a browser"));
    let (token, _) = app_with_chat(&client).await;
    let window = open_app(&browser, server.url(), &token).await;
    let both = "for (const button of ['new-chat', 'leave']) document.getElementById(button).click()";
    window.execute(both, &json!([])).await;
    // The button is enabled again when its action has ended.
    let ended = "return !document.querySelector('#new-chat').disabled";
    window.wait_for("the end of the creation", ended, &json!([])).await;
    // After leaving, the page has no app, so a request for the chat would have `undefined` in its path.
    let was_opened =
        "return performance.getEntriesByType('resource').some((entry) => entry.name.includes('undefined'))
        || document.querySelector('#chat').textContent !== 'Chat 1'";
    assert_eq!(window.execute(was_opened, &json!([])).await, json!(false), "the chat was opened");
    assert_eq!(window.console().await, Vec::<String>::new());
    server.shut_down().await;
}

#[tokio::test]
async fn the_page_recovers_from_errors_of_a_gateway_and_from_a_restore() {
    let folder = folder();
    let port = port::find_free_for_restarts().expect("a free port");
    let [data, restored, backup] = ["data", "restored", "backup"].map(|name| folder.path().join(name));
    let options = |data: &std::path::Path| {
        ProcessOptions::new("serve", data).with("--listen-addr", &format!("127.0.0.1:{port}"))
    };
    let server = options(&data).start().await;
    let browser = Browser::start().expect("a browser");
    let (token, chat) = app_with_chat(&server.client()).await;
    create_message(&server.client(), &token, chat, "before").await;
    let window = open_app(&browser, server.url(), &token).await;
    // The page shows an error for two seconds at a time. So a script in the page records the error when it appears.
    let look_out = "const error = document.querySelector('#error');
        const look = () => { window.hasShown502 ||= !error.hidden && error.textContent.includes('502'); };
        new MutationObserver(look).observe(error, { childList: true });";
    window.execute(look_out, &json!([])).await;
    server.kill();
    let gateway = GatewayWithoutServer::start(port).await;
    window.wait_for("the error of the gateway", "return window.hasShown502", &json!([])).await;
    gateway.stop().await;
    let server = options(&data).start().await;
    window.find("#state.live").await;

    // The backup does not have the message that the page sends after it.
    let [data, restored_folder, backup] =
        [&data, &restored, &backup].map(|folder| folder.to_str().expect("a path of UTF-8"));
    run(&["backup", "--data-dir", data, "--out", backup]);
    window.find("#text").await.type_text(&format!("after the backup{ENTER}")).await;
    window.wait_for_text("after the backup").await;
    server.kill();
    run(&["restore", "--from", backup, "--data-dir", restored_folder, "--execute", "--reason", "a test"]);
    let server = options(&restored).start().await;
    let without_it = "return !document.body.innerText.includes('after the backup')";
    window.wait_for("the restored state", without_it, &json!([])).await;
    window.find("#state.live").await;
    create_message(&server.client(), &token, chat, "after the restore").await;
    window.wait_for_text("after the restore").await;
    let texts: Vec<String> = messages(&window).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["before", "after the restore"]);
    server.shut_down().await;
}
