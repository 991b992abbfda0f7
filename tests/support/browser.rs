//! A headless Chromium with one page, driven over its debugging pipe. Whatever the page complains of, or tries to fetch,
//! is remembered.
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for an answer, or for something to become true.
const PATIENCE: Duration = Duration::from_secs(30);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "--window-size=1600,1000",
];

pub struct Browser {
    process: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    /// Exceptions, errors on the console, and addresses fetched that are no files.
    pub complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts Chromium with an empty profile and one empty page.
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        // The pipe is file descriptors 3 and 4 of the browser: a shell moves ours there.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >&2", "sh", "chromium"]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell");
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            loop {
                let mut bytes = vec![];
                if output.read_until(0, &mut bytes).unwrap_or(0) == 0 {
                    return;
                }
                bytes.pop();
                let message = serde_json::from_slice(&bytes).expect("Chromium speaks JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Browser { process, input, messages, session: None, asked: 0, complaints: vec![], _profile: profile };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.ask("Target.createTarget", json!({"url": "about:blank"}));
        let session = self.ask("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        self.session = session["sessionId"].as_str().map(String::from);
        for domain in ["Runtime", "Log", "Network", "Page"] {
            self.ask(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Sends a command and waits for its result.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        let sent = self.input.write_all(&text).and_then(|()| self.input.flush());
        sent.expect("Chromium does not run: install it (`apt-get install chromium`), so that `chromium` is on PATH");
        loop {
            let answer = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("no answer to {method}: is Chromium installed (`apt-get install chromium`), and on PATH?")
            });
            if answer["id"] == self.asked {
                assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Log.entryAdded") => true,
            Some("Runtime.consoleAPICalled") => parameters["type"] == "error",
            Some("Network.requestWillBeSent") => {
                !parameters["request"]["url"].as_str().is_some_and(|url| url.starts_with("file:"))
            }
            _ => false,
        };
        if complaint {
            self.complaints.push(event.to_string());
        }
    }

    /// Opens an address and waits until its scripts have run.
    pub fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({"url": url}));
        self.wait_for("document.readyState === 'complete' && document.querySelector('#details h2') !== null");
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let found = self.ask("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(found.get("exceptionDetails").is_none(), "{expression}: {}", found["exceptionDetails"]);
        found["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, condition: &str) {
        let begin = Instant::now();
        while self.evaluate(condition) != true {
            assert!(begin.elapsed() < PATIENCE, "never true: {condition}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Shows what a fragment of the page's address stands for.
    pub fn go(&mut self, fragment: &str) {
        self.evaluate(&format!("location.hash = {}; 0", json!(fragment)));
        // Listeners of `hashchange` have run when a later one of ours has.
        self.evaluate("window.settled = false; setTimeout(() => (window.settled = true)); 0");
        self.wait_for("window.settled");
    }

    /// The texts of all elements that a selector finds.
    pub fn texts(&mut self, selector: &str) -> Vec<String> {
        let expression = format!("[...document.querySelectorAll({})].map((it) => it.textContent)", json!(selector));
        let found = self.evaluate(&expression);
        found.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
    }

    /// Presses the mouse in the middle of the first element that a selector finds.
    pub fn click(&mut self, selector: &str) {
        self.click_at(selector, 0.5, 0.5);
    }

    /// Presses the mouse at a part of an element's width and height.
    pub fn click_at(&mut self, selector: &str, across: f64, down: f64) {
        let expression = format!(
            "(() => {{ const it = document.querySelector({}); it.scrollIntoView({{block: 'nearest'}}); \
             const box = it.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; }})()",
            json!(selector)
        );
        let found = self.evaluate(&expression);
        let number = |index: usize| found[index].as_f64().unwrap();
        let (x, y) = (number(0) + number(2) * across, number(1) + number(3) * down);
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1});
            self.ask("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key, by its name in the page's events.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.ask("Input.dispatchKeyEvent", json!({"type": kind, "key": key}));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
