//! Debian's Chromium, driven over WebDriver: what an operator sees, types and clicks.
//!
//! WebDriver is JSON over HTTP, of which this speaks the few words that the stories need. Driver and browser
//! live in a directory of their own; the driver ends with the value, and the browser with the driver.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::Process;
use super::{eventually, free_port, temp_dir};

/// Keys that no character stands for.
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";
pub const ESCAPE: &str = "\u{E00C}";
pub const DOWN: &str = "\u{E015}";

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    client: reqwest::Client,
    session: String,
    // The browser is the driver's child, and the driver ends before the directory goes.
    _driver: Process,
    _dir: TempDir,
}

/// Starts one.
pub async fn browser() -> Browser {
    let dir = temp_dir("browser");
    let port = free_port();
    let mut command = Command::new("chromedriver");
    command.arg(format!("--port={port}")).env("TMPDIR", dir.path()).env("HOME", dir.path());
    let driver = Process::start("chromedriver", &command, &dir.path().join("driver.out"), None, Signal::TERM);
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
    let server = format!("http://127.0.0.1:{port}");
    eventually("chromedriver listens", || async { client.get(format!("{server}/status")).send().await.ok() }).await;
    let profile = dir.path().join("profile");
    let mut flags: Vec<String> = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1440,900",
    ]
    .map(str::to_owned)
    .into();
    flags.push(format!("--user-data-dir={}", profile.display()));
    // A driver that is ended leaves its browser running: the kernel ends the one with the other.
    let tethered = dir.path().join("chromium");
    std::fs::write(&tethered, "#!/bin/sh\nexec setpriv --pdeathsig KILL -- chromium \"$@\"\n").expect("a script");
    std::fs::set_permissions(&tethered, std::fs::Permissions::from_mode(0o755)).expect("to be run");
    let wanted = json!({ "capabilities": { "alwaysMatch": {
        "goog:chromeOptions": { "binary": tethered, "args": flags },
        "goog:loggingPrefs": { "browser": "ALL" },
    } } });
    let answered = client.post(format!("{server}/session")).json(&wanted).send().await.expect("chromedriver");
    let answered: Value = answered.json().await.expect("JSON");
    let id = answered["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {answered}"));
    Browser { client, session: format!("{server}/session/{id}"), _driver: driver, _dir: dir }
}

impl Browser {
    async fn command(&self, path: &str, body: &Value) -> Value {
        let response = self.client.post(format!("{}{path}", self.session)).json(body).send().await.expect("the driver");
        let (status, told) = (response.status(), response.json::<Value>().await.expect("JSON"));
        assert!(status.is_success(), "{path} {body}: {}", told["value"]["message"]);
        told["value"].clone()
    }

    /// Opens an address as if typed: a page that is there already is loaded anew.
    pub async fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": "about:blank" })).await;
        self.command("/url", &json!({ "url": url })).await;
    }

    /// What a piece of JavaScript returns; it may use `arguments`.
    pub async fn script(&self, script: &str, arguments: Value) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": arguments })).await
    }

    /// Waits until an expression gives something true, and gives that.
    pub async fn until(&self, expression: &str) -> Value {
        let script = format!("return ({expression})");
        eventually(&format!("in the browser: {expression}"), || async {
            let value = self.script(&script, json!([])).await;
            let nothing = matches!(&value, Value::Null | Value::Bool(false)) || value == json!("") || value == json!(0);
            (!nothing).then_some(value)
        })
        .await
    }

    /// The text of the first element that fits.
    pub async fn text(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.script(script, json!([selector])).await.as_str().expect("text").to_owned()
    }

    /// Waits until the text of an element contains this.
    pub async fn until_text(&self, selector: &str, text: &str) {
        eventually(&format!("{selector} says {text:?}"), || async {
            self.text(selector).await.contains(text).then_some(())
        })
        .await;
    }

    /// Clicks the middle of the first element that fits, as a mouse does.
    pub async fn click(&self, selector: &str) {
        let found = self.command("/element", &json!({ "using": "css selector", "value": selector })).await;
        let id = found.as_object().and_then(|found| found.values().next()?.as_str()).expect("an element");
        self.command(&format!("/element/{id}/click"), &json!({})).await;
    }

    /// Types into whatever has the focus.
    pub async fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.command("/actions", &actions).await;
    }

    /// A command of Chrome's own protocol: themes and screens of others.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        self.command("/goog/cdp/execute", &json!({ "cmd": command, "params": params })).await
    }

    /// What the page complained of since the last look, but for answers that are no success: those are told.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.command("/se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE" && entry["source"] != "network");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Writes a picture of what is seen.
    pub async fn picture(&self, path: &Path) {
        let shot = self.devtools("Page.captureScreenshot", json!({ "format": "png" })).await;
        let data = shot["data"].as_str().expect("a picture");
        std::fs::write(path, base64(data)).expect("the picture is written");
    }

    /// Closes the browser and waits for its end, so that nothing is written to its directory any more.
    pub async fn close(self) {
        let _ = self.client.delete(&self.session).send().await;
    }
}

/// Decodes Base64 of the standard alphabet.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| (0_u32..).zip(ALPHABET).find(|(_, digit)| **digit == byte));
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::with_capacity(text.len() / 4 * 3));
    for (digit, _) in digits {
        (bits, held) = (bits << 6 | digit, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.extend_from_slice(&(bits >> held).to_be_bytes()[3..]);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
