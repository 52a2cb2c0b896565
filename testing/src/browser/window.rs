//! A window of the browser, with those commands of WebDriver (<https://www.w3.org/TR/webdriver2/>) and of Chromium's
//! driver that tests use.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// The longest time that a method waits for what it expects of a page.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The JSON member that holds an element's id, as WebDriver names it.
const ELEMENT_ID: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A window. Its methods panic if the driver answers with an error, so tests need not handle any.
#[derive(Clone, Debug)]
pub struct Window {
    client: Client<HttpConnector, Full<Bytes>>,
    session_url: String,
}

/// A tab of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tab(String);

/// An element of a page.
#[derive(Clone, Debug)]
pub struct Element {
    window: Window,
    id: String,
}

impl Window {
    pub(super) async fn open(port: u16, chromium: &Path, arguments: &[&str]) -> Self {
        let options = json!({ "args": arguments, "binary": chromium });
        let logs = json!({ "browser": "ALL" });
        let capabilities = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": logs });
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut window = Self { client, session_url: format!("http://127.0.0.1:{port}/session") };
        let body = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let created = window.send(Method::POST, "", &body).await.unwrap_or_else(|error| panic!("{error}"));
        window.session_url =
            format!("{}/{}", window.session_url, created["sessionId"].as_str().unwrap_or_default());
        window
    }

    /// Loads a page, and waits until it is loaded.
    pub async fn go_to(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// Goes back to the page before.
    pub async fn go_back(&self) {
        self.post("/back", &json!({})).await;
    }

    /// Presses keys one after the other, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<_>>() });
        self.post("/actions", &json!({ "actions": [keyboard] })).await;
    }

    /// Sets the width of the page, in CSS pixels, and its height to 800.
    pub async fn resize(&self, width: u32) {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.run_command("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// From now on, downloads are saved in a folder without asking.
    pub async fn save_files_in(&self, folder: &Path) {
        let behavior = json!({ "behavior": "allow", "downloadPath": folder });
        self.run_command("Browser.setDownloadBehavior", behavior).await;
    }

    /// Opens another tab with the same cookies, and returns its handle. Commands still go to the current tab.
    pub async fn open_tab(&self) -> Tab {
        let opened = self.post("/window/new", &json!({ "type": "tab" })).await;
        Tab(opened["handle"].as_str().unwrap_or_default().to_owned())
    }

    /// The handle of the tab that commands go to.
    pub async fn tab(&self) -> Tab {
        Tab(self.get("/window").await.as_str().unwrap_or_default().to_owned())
    }

    /// Sends later commands to another tab.
    pub async fn switch_to(&self, tab: &Tab) {
        self.post("/window", &json!({ "handle": tab.0 })).await;
    }

    /// Closes the window with all its tabs.
    ///
    /// # Panics
    ///
    /// Panics if the driver answers with an error.
    pub async fn close(self) {
        self.send(Method::DELETE, "", &Value::Null).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs a command of Chromium's own protocol.
    async fn run_command(&self, command: &str, parameters: Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await;
    }

    /// Sets the colour scheme that the reader prefers, as pages see it: `light` or `dark`.
    pub async fn prefer_colors(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.run_command("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    /// Sets the time zone that pages see, such as `Asia/Kolkata`.
    pub async fn set_time_zone(&self, zone: &str) {
        self.run_command("Emulation.setTimezoneOverride", json!({ "timezoneId": zone })).await;
    }

    /// Waits until the HTML of the page contains a text. The rest of the page may still be loading then. Works without
    /// scripts.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long, with the HTML of the page.
    pub async fn wait_for_source(&self, text: &str) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let source = self.source().await;
            if source.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "the page does not contain {text:?}:\n{source}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The HTML of the page as far as it is loaded. Without scripts, [`Window::go_to`] may return before the page is
    /// loaded to its end.
    async fn source(&self) -> String {
        self.get("/source").await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits for the first element, visible or not, that a CSS selector finds. Works without scripts.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long, with the HTML of the page.
    pub async fn find_without_scripts(&self, selector: &str) -> Element {
        let deadline = Instant::now() + TIMEOUT;
        let query = json!({ "using": "css selector", "value": selector });
        loop {
            match self.send(Method::POST, "/element", &query).await {
                Ok(found) => {
                    let id = found[ELEMENT_ID].as_str().unwrap_or_default().to_owned();
                    return Element { window: self.clone(), id };
                }
                Err(error) if Instant::now() > deadline => panic!("{error}\n{}", self.source().await),
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// The address of the page.
    pub async fn url(&self) -> String {
        self.get("/url").await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits for the first visible element that a CSS selector finds.
    pub async fn find(&self, selector: &str) -> Element {
        let script = "return [...document.querySelectorAll(arguments[0])].find((element) => element.checkVisibility())";
        let found = self.wait_for(&format!("a visible {selector}"), script, &json!([selector])).await;
        let id = found[ELEMENT_ID].as_str().unwrap_or_default().to_owned();
        Element { window: self.clone(), id }
    }

    /// Waits until the visible text of the page's body contains a text.
    pub async fn wait_for_text(&self, text: &str) {
        let script = "return document.body.innerText.includes(arguments[0])";
        self.wait_for(&format!("the text {text:?}"), script, &json!([text])).await;
    }

    /// Waits until a script returns something other than false, null or an empty string, and returns that. An error of
    /// the script means "not yet": a script finds no body while one page replaces another.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long, with what was expected, the script's last result, and the HTML of the page.
    pub async fn wait_for(&self, expected: &str, script: &str, arguments: &Value) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        let body = json!({ "script": script, "args": arguments });
        loop {
            let answer = self.send(Method::POST, "/execute/sync", &body).await;
            match &answer {
                Ok(value) if !matches!(value, Value::Null | Value::Bool(false)) && value != "" => {
                    return value.clone();
                }
                _ if Instant::now() < deadline => tokio::time::sleep(POLL_INTERVAL).await,
                _ => panic!(
                    "{} does not have {expected} ({answer:?}):\n{}",
                    self.url().await,
                    self.source().await
                ),
            }
        }
    }

    /// Runs a script in the page, and returns what it returns.
    pub async fn execute(&self, script: &str, arguments: &Value) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": arguments })).await
    }

    /// The messages in the browser's console since the last call: those of the page's scripts, and errors of loading.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, &Value::Null).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.send(Method::POST, path, body).await.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// Sends a command. Returns the value of the answer, or the driver's error.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let content = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.session_url))
            .header("Content-Type", "application/json")
            .body(Full::new(content))
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| error.to_string())?;
        let is_success = response.status().is_success();
        let content = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let mut answer: Value = serde_json::from_slice(&content).map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        if is_success { Ok(value) } else { Err(value["message"].as_str().unwrap_or_default().to_owned()) }
    }
}

impl Element {
    /// Waits until the page with the element is left, or the element is removed. Works without scripts.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long.
    pub async fn wait_until_gone(&self) {
        let deadline = Instant::now() + TIMEOUT;
        let path = format!("/element/{}/name", self.id);
        while self.window.send(Method::GET, &path, &Value::Null).await.is_ok() {
            assert!(
                Instant::now() < deadline,
                "the element is still in the page:\n{}",
                self.window.source().await
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Clicks the element.
    pub async fn click(&self) {
        self.post("/click", &json!({})).await;
    }

    /// Types a text into the element. For a file input, the text is the file's path.
    pub async fn type_text(&self, text: &str) {
        self.post("/value", &json!({ "text": text })).await;
    }

    async fn post(&self, command: &str, body: &Value) {
        self.window.post(&format!("/element/{}{command}", self.id), body).await;
    }
}
