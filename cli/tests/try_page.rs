//! The page `/docs/try` in a real browser: a chat whose messages arrive by themselves.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use chat_testing::browser::{Browser, Window};
use chat_testing::cutting_proxy::{CuttingProxy, Network};
use chat_testing::port;
use serde_json::{Value, json};

use harness::api::{chat_path, create_app, create_chat, create_message, message_path};
use harness::client::Client;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions};

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

    // Everything with the page alone, from nothing.
    let one = browser.open_window().await;
    one.go_to(&format!("{}/docs/try", server.url())).await;
    one.find("#create button").await.click().await;
    one.find("#state.live").await;
    let token = one.execute("return sessionStorage.getItem('app_token')", &json!([])).await;
    let token = token.as_str().expect("the app's token").to_owned();

    let two = open_app(&browser, server.url(), &token).await;
    one.find("#sender").await.type_text("Nadia").await;
    one.find("#text").await.type_text("Is the fox quick?\u{E007}").await;
    for window in [&one, &two] {
        window.wait_for_text("Is the fox quick?").await;
        window.wait_for_text("Nadia").await;
    }

    // From elsewhere: a text that would be a script if it were HTML, an edit, a deletion, another chat.
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
async fn a_connection_that_is_cut_comes_back_without_loss() {
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
