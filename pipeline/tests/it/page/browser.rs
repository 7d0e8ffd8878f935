//! A real Chromium without a window, driven through chromedriver: as much of WebDriver as the tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, http_client};

/// Tells of everything that the policy of a page forbade: on the page itself, before its own script runs.
const LISTEN: &str = "document.addEventListener('securitypolicyviolation', event => {
    const seen = JSON.parse(sessionStorage.getItem('violations') || '[]');
    seen.push(event.violatedDirective + ' ' + event.blockedURI);
    sessionStorage.setItem('violations', JSON.stringify(seen));
});";

/// A browser; it ends when it is dropped.
pub(super) struct Browser {
    driver: Child,
    http: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one of this size.
    pub(super) async fn start(width: u32, height: u32) -> Self {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: `./test` does it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines.next().expect("chromedriver tells its port").unwrap();
            let port = line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.').to_owned());
            if let Some(port) = port {
                break port.parse().unwrap();
            }
        };
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let options = json!({
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--lang=en", "--hide-scrollbars",
                format!("--window-size={width},{height}"),
                format!("--user-data-dir={}", profile.path().display()),
            ],
        });
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": 120_000, "pageLoad": 120_000 },
        } } });
        let http = http_client().timeout(PATIENCE).build().unwrap();
        let mut browser = Self { driver, http, session: format!("http://127.0.0.1:{port}/session"), _profile: profile };
        let begun = browser.send("", Some(capabilities)).await;
        browser.session = format!("{}/{}", browser.session, begun["sessionId"].as_str().expect("a session begins"));
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": LISTEN })).await;
        browser
    }

    async fn send(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.session);
        let request = match &body {
            Some(body) => self.http.post(&url).json(body),
            None => self.http.get(&url),
        };
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert!(answer["value"]["error"].is_null(), "{path} {body:?}: {}", answer["value"]["message"]);
        answer["value"].clone()
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.send("/goog/cdp/execute", Some(json!({ "cmd": command, "params": parameters }))).await
    }

    /// Goes to an address.
    pub(super) async fn open(&self, url: &str) {
        self.send("/url", Some(json!({ "url": url }))).await;
    }

    /// Where it is.
    pub(super) async fn address(&self) -> String {
        self.send("/url", None).await.as_str().unwrap().to_owned()
    }

    /// Runs a script on the page; its answer.
    pub(super) async fn run(&self, script: &str) -> Value {
        self.send("/execute/sync", Some(json!({ "script": script, "args": [] }))).await
    }

    /// Runs a script that calls its last argument when it is done.
    pub(super) async fn run_to_end(&self, script: &str) -> Value {
        self.send("/execute/async", Some(json!({ "script": script, "args": [] }))).await
    }

    /// The text that a person sees.
    pub(super) async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap().to_owned()
    }

    /// Waits until a script answers true.
    pub(super) async fn until(&self, what: &str, script: &str) {
        let begun = Instant::now();
        while self.run(script).await != Value::Bool(true) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}\n{}", self.text().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a person reads a text on the page.
    pub(super) async fn says(&self, text: &str) {
        self.until(text, &format!("return document.body.innerText.includes({})", Value::from(text))).await;
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.send("/element", Some(json!({ "using": "css selector", "value": selector }))).await;
        let (_, id) = found.as_object().unwrap().iter().next().unwrap();
        id.as_str().unwrap().to_owned()
    }

    /// Clicks, as a person does: what is not seen cannot be clicked.
    pub(super) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.send(&format!("/element/{element}/click"), Some(json!({}))).await;
    }

    /// Types into a field.
    pub(super) async fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.send(&format!("/element/{element}/value"), Some(json!({ "text": text }))).await;
    }

    /// Light or dark, as the system of a person has it.
    pub(super) async fn colours(&self, scheme: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// A screen of this size.
    pub(super) async fn screen(&self, width: u32, height: u32) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
    }

    /// A picture of the whole page, however long, as PNG in base64.
    pub(super) async fn picture(&self, is_whole: bool) -> String {
        let picture = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": is_whole })).await;
        picture["data"].as_str().unwrap().to_owned()
    }

    /// What the policy forbade, and what the console holds against the page, since the session began.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let violations = self.run("return JSON.parse(sessionStorage.getItem('violations') || '[]')").await;
        let log = self.send("/se/log", Some(json!({ "type": "browser" }))).await;
        let said = |entry: &Value| entry.as_str().or(entry["message"].as_str()).unwrap_or_default().to_owned();
        let all = [violations, log].map(|list| list.as_array().cloned().unwrap_or_default()).concat();
        // A refusal that a test asks for is named by the console, too.
        let is_asked_for = |text: &String| text.contains("the server responded with a status of 40");
        all.iter().map(said).filter(|text| !is_asked_for(text)).collect()
    }

    /// Shows a token.
    pub(super) async fn sign_in(&self, base: &str, token: &str) {
        self.open(&format!("{base}/login")).await;
        self.type_into("input[name=token]", token).await;
        self.click("main button[type=submit]").await;
        let is_over = "return location.pathname !== '/login' || document.querySelector('[role=alert]') !== null";
        self.until("the token is looked at", is_over).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session; without that it would outlive chromedriver.
        let (host, path) = self.session.trim_start_matches("http://").split_once('/').unwrap();
        if let Ok(mut stream) = std::net::TcpStream::connect(host) {
            let request = format!("DELETE /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            drop(stream.set_read_timeout(Some(Duration::from_secs(30))));
            drop(stream.write_all(request.as_bytes()));
            drop(stream.read_exact(&mut [0; 12]));
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
