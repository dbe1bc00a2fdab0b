//! The real binary, started with a configuration in a directory of its own and stopped when dropped.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, Answer, PATIENCE};

pub const SECRET: &str = "test_secret_0123456789abcdef0123";
pub const ASSERTION_KEY: &str = "assertion_key_0123456789abcdef01";
pub const KEY: &str = "ab_live_0123456789abcdef";
pub const ORIGIN: &str = "https://app.example.com";

/// Waits until `ready` says so.
#[track_caller]
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Lines that a process wrote, as they come.
pub type Lines = Arc<Mutex<Vec<String>>>;

/// A running gateway.
pub struct Gateway {
    child: Child,
    pub directory: tempfile::TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    log: Lines,
    audit: Lines,
}

/// A configuration with one Halo tenant, `acme`; `{}` lines are added to the tenant's table.
pub fn halo(upstream: SocketAddr, tenant: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
threads = 2
drain_delay = "0s"

[upstream]
address = "{upstream}"

[assertion]
schemes = ["http-message-signatures"]
audience = "agent"
keys = [{{ id = "a1", file = "assertion.key" }}]

[[tenant]]
id = "acme"
preset = "halo"
embed_keys = ["{KEY}"]
origins = ["{ORIGIN}"]
secrets = [{{ id = "s1", file = "identity.key" }}]
{tenant}
"#
    )
}

/// The binary under test: cargo's, or the one that `DOORWARD_BINARY` names (`make soak` takes the release build).
pub fn binary() -> std::ffi::OsString {
    std::env::var_os("DOORWARD_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_doorward").into())
}

impl Gateway {
    /// Starts the binary and waits until it serves.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with more files beside the configuration.
    pub fn start_with(config: &str, files: &[(&str, &str)]) -> Self {
        Self::start_by("", config, files)
    }

    /// The same, after shell commands that change what the process inherits.
    pub fn start_by(shell: &str, config: &str, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("write");
        write("doorward.toml", config);
        write("identity.key", SECRET);
        write("assertion.key", ASSERTION_KEY);
        files.iter().for_each(|(name, text)| write(name, text));
        let mut child = Command::new("sh")
            .args(["-c", &format!("{shell}\nexec \"$0\" \"$@\"")])
            .arg(binary())
            .args(["run", "-c"])
            .arg(directory.path().join("doorward.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let (log, audit) = (keep(child.stderr.take().unwrap()), keep(child.stdout.take().unwrap()));
        let address = |name: &str| {
            let lines = log.lock().unwrap();
            let serving = lines.iter().find(|l| l.contains("serving"))?;
            serving.split(&format!("{name}=")).nth(1)?.split_whitespace().next()?.parse().ok()
        };
        let deadline = Instant::now() + PATIENCE;
        let (listen, admin) = loop {
            if let (Some(listen), Some(admin)) = (address("listen"), address("admin")) {
                break (listen, admin);
            }
            let ended = child.try_wait().expect("wait");
            assert!(ended.is_none() && Instant::now() < deadline, "did not start: {ended:?}\n{}", log.lock().unwrap().join("\n"));
            thread::park_timeout(Duration::from_millis(5));
        };
        Self { child, directory, address: listen, admin, log, audit }
    }

    /// Where clients connect, in the configuration's order: `listen` first.
    pub fn places(&self) -> Vec<String> {
        let of = |line: &str| Some(line.split("listening address=").nth(1)?.split_whitespace().next()?.to_owned());
        self.log.lock().unwrap().iter().filter_map(|line| of(line)).collect()
    }

    /// The last TCP address where clients connect.
    pub fn last_place(&self) -> SocketAddr {
        self.places().iter().filter_map(|place| place.parse().ok()).next_back().expect("a TCP listener")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sends a request.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        http::send(self.address, http::request(method, target, headers, body.as_ref()))
    }

    /// Asks the admin listener.
    #[track_caller]
    pub fn admin(&self, target: &str) -> Answer {
        self.ask_admin("GET", target, &[])
    }

    /// Asks the admin listener by its own name, with more headers.
    #[track_caller]
    pub fn ask_admin(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        http::send(self.admin, format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{lines}\r\n", self.admin))
    }

    /// The value of a metric line that starts with this.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.admin("/metrics").text();
        let found = text.lines().find(|l| l.starts_with(line) && l[line.len()..].starts_with(' '));
        found.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
    }

    /// Waits until a metric has this value: a request is counted after it was answered.
    #[track_caller]
    pub fn counted(&self, line: &str, value: f64) {
        until(line, || (self.metric(line) == value).then_some(()));
    }

    /// Everything logged to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Everything written to standard output so far.
    pub fn audit_text(&self) -> String {
        self.audit.lock().unwrap().join("\n")
    }

    /// Takes the audit records so far.
    pub fn take_audit(&self) -> Vec<String> {
        std::mem::take(&mut self.audit.lock().unwrap())
    }

    /// The audit record of a request.
    #[track_caller]
    pub fn audit(&self, request_id: &str) -> serde_json::Value {
        until("the audit record", || {
            let lines = self.audit.lock().unwrap();
            lines.iter().find(|l| l.contains(request_id)).map(|l| serde_json::from_str(l).expect("a JSON line"))
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().expect("kill");
        assert!(sent.success());
    }

    /// The exit code, once it ended.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        until("the process to end", || self.child.try_wait().expect("wait")).code().unwrap_or(-1)
    }

    /// Writes a file beside the configuration, in place.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("write");
    }

    /// Waits until a configuration of at least this generation is in force.
    #[track_caller]
    pub fn generation(&self, at_least: u64) {
        until("the new generation", || (self.metric("doorward_config_generation") >= at_least as f64).then_some(()));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps what a process writes.
pub fn keep(pipe: impl std::io::Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let kept = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    lines
}

/// Halo's token for a user: HS256, claims as given.
pub fn jwt(claims: &serde_json::Value) -> String {
    jwt_with(SECRET, claims)
}

/// The same with another secret.
pub fn jwt_with(secret: &str, claims: &serde_json::Value) -> String {
    doorward::install_crypto();
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("encode")
}

/// Seconds from now, as time claims want them.
pub fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(doorward::clock::read().expect("clock").secs()).unwrap() + seconds
}

/// Runs the binary to its end.
pub fn doorward(args: &[&str], directory: &Path) -> std::process::Output {
    Command::new(binary()).args(args).current_dir(directory).stdin(Stdio::null()).output().expect("run")
}
