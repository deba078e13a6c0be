//! rclone's remote control: requests in JSON to an rclone that runs already, or to one that is started here and ends with us.

use std::ffi::OsString;
use std::process::{ChildStdin, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::model::JournalId;
use crate::target::process::{self, Process};
use crate::target::web::{Patience, client, innermost};

/// How rclone is reached.
#[derive(Clone, Debug)]
pub struct RcloneAccess {
    /// The program, if none runs; looked up in `PATH` if it is a bare name.
    pub program: OsString,
    /// The URL of the remote control of one that runs; `None`: one is started.
    pub endpoint: Option<String>,
    /// How long it may say nothing about a request, besides the time that its bytes may take: it tries again by itself.
    pub silence: Duration,
}

impl Default for RcloneAccess {
    fn default() -> Self {
        RcloneAccess { program: "rclone".into(), endpoint: None, silence: Duration::from_secs(300) }
    }
}

/// Starts rclone, and ends it when our side of its standard input is closed: also when we are killed. What it is told comes as
/// arguments, none of which is read by the shell.
const KEEPER: &str = "exec 3<&0; \"$0\" \"$@\" </dev/null 3<&- & rclone=$!; \
    (cat <&3 >/dev/null; kill \"$rclone\" 2>/dev/null) & exec 3<&-; wait \"$rclone\"";
/// How long rclone may take to begin.
const START_MAX: Duration = Duration::from_secs(20);
/// How often it is looked whether it has begun.
const START_LOOK: Duration = Duration::from_millis(10);
/// What it says then.
const SERVING: &str = "Serving remote control on ";
/// Bytes a second that it moves at the least.
const RATE_MIN: u64 = 50_000;
/// The longest answer: a directory of some hundred thousand names.
const ANSWER_MAX: usize = 256 << 20;

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// rclone cannot be talked with.
    Lost(String),
    /// rclone says so.
    Said { status: u16, error: String },
}

/// rclone at work.
pub(super) struct Daemon {
    http: reqwest::Client,
    url: String,
    authorization: Option<HeaderValue>,
    silence: Duration,
    started: Mutex<Option<Started>>,
    is_lost: AtomicBool,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
}

/// An rclone of ours.
struct Started {
    process: Process,
    _open: ChildStdin,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(Started { process, _open }) = self.started.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            drop(_open);
            process.end();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Daemon {
    /// One that runs, or one that is started. `login`: its user and password, with a `:` between.
    pub(super) fn begin(access: &RcloneAccess, login: Option<&SecretString>) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rclone")
            .enable_all()
            .build()
            .map_err(|error| format!("its threads cannot be started: {error}"))?;
        let (url, login, started) = match &access.endpoint {
            Some(url) => (url.clone(), login.map(|login| login.expose_secret().to_owned()), None),
            None => {
                let (url, login, started) = start(&access.program)?;
                (url, Some(login), Some(started))
            }
        };
        let authorization = login.and_then(|login| {
            let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login))).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Daemon {
            http: client(&Patience::default())?,
            url: url.trim_end_matches('/').to_owned(),
            authorization,
            silence: access.silence,
            started: Mutex::new(started),
            is_lost: AtomicBool::new(false),
            runtime: Some(runtime),
        })
    }

    /// Whether it has ended, or does not answer.
    pub(super) fn is_lost(&self) -> bool {
        if self.is_lost.load(Ordering::Relaxed) {
            return true;
        }
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.as_mut().is_some_and(|started| started.process.ended().is_some())
    }

    /// Asks for something that moves so many bytes.
    pub(super) fn call(&self, what: &str, arguments: &Value, bytes: u64) -> Result<Value, Fault> {
        let runtime = self.runtime.as_ref().expect("it is taken only by drop");
        let (status, body) = runtime.block_on(self.send(what, arguments, bytes)).map_err(|error| self.lost(&error))?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == 200 && answer.is_object() {
            return Ok(answer);
        }
        if matches!(status, 401 | 403) {
            let why = "its remote control wants a user and a password: name a `secret_file` with USER:PASSWORD";
            return Err(Fault::Lost(why.to_owned()));
        }
        let error = answer.get("error").and_then(Value::as_str);
        let error = error.ok_or_else(|| Fault::Lost(format!("what answers at {} is no rclone", self.url)))?;
        let error = error.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
        Err(Fault::Said { status, error })
    }

    async fn send(&self, what: &str, arguments: &Value, bytes: u64) -> Result<(u16, Vec<u8>), reqwest::Error> {
        let mut request = self.http.request(Method::POST, format!("{}/{what}", self.url)).build()?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        *request.body_mut() = Some(arguments.to_string().into());
        *request.timeout_mut() = Some(self.silence + Duration::from_secs(bytes / RATE_MIN));
        let mut response = self.http.execute(request).await?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_MAX {
                body.clear();
                break;
            }
        }
        Ok((status, body))
    }

    /// Nothing came: why, its own last words tell best. One of ours that says nothing is ended.
    fn lost(&self, error: &reqwest::Error) -> Fault {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_lost.store(true, Ordering::Relaxed);
        let why = innermost(error);
        let Some(Started { process, .. }) = &mut *started else {
            return Fault::Lost(format!("rclone cannot be reached at {}: {why}", self.url));
        };
        let said = process.complaints().pop().map(|line| format!(": {line}")).unwrap_or_default();
        if process.ended().is_some() {
            return Fault::Lost(format!("rclone ended{said}"));
        }
        process.kill();
        Fault::Lost(format!("rclone does not answer ({why}), and was ended{said}"))
    }
}

/// Starts rclone: its URL, and how to log in.
fn start(program: &OsString) -> Result<(String, String, Started), String> {
    let password = format!("{}{}", JournalId::random(), JournalId::random());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", KEEPER]).arg(program).args(["rcd", "--rc-addr", "127.0.0.1:0", "--use-json-log=false"]);
    command.env("RCLONE_RC_USER", "keepwatch").env("RCLONE_RC_PASS", &password).env("TZ", "UTC");
    let (process, open, _) =
        process::start(command, "rclone").map_err(|error| format!("/bin/sh does not run: {error}"))?;
    let mut started = Started { process, _open: open };
    let until = Instant::now() + START_MAX;
    loop {
        let said = started.process.complaints();
        let url = said.iter().find_map(|line| Some(line.split_once(SERVING)?.1.trim().to_owned()));
        if let Some(url) = url {
            return Ok((url, format!("keepwatch:{password}"), started));
        }
        let has_ended = started.process.ended().is_some();
        if has_ended || Instant::now() > until {
            let Started { process, _open } = started;
            drop(_open);
            let said = process.end().complaints.pop().unwrap_or_default();
            let program = program.to_string_lossy();
            return Err(format!(
                "`{program} rcd` does not run: {said}; install rclone, or name one that runs as `endpoint`"
            ));
        }
        std::thread::sleep(START_LOOK);
    }
}
