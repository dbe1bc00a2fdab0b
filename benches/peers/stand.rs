//! The stand: a directory with every peer's filled configuration, the backend, a processor for the proxy and another for the
//! load, a thousand tokens, and what the system says about a process.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use doorward::token::mint;
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::peer::{Peer, on_path};
use crate::scenario::{Credential, Scenario};

const EMBED_KEY: &str = "pk_bench_0123456789abcdef";
const HALO_KEY: &str = "pk_halo_0123456789abcdef";
const IDENTITY: &str = "test_secret_0123456789abcdef0123";
const HMAC: &str = "hmac_secret_0123456789abcdef0123";
const HALO: &str = "halo_secret_0123456789abcdef0123";
const ASSERTION: &str = "assertion_key_0123456789abcdef01";
const ORIGIN: &str = "https://app.example.com";
/// Distinct callers, so that a cache of one does not win.
const CALLERS: usize = 1000;
/// Longest that a proxy may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that are opened to weigh one.
const WEIGHED: usize = 1000;

/// Where everything is.
pub(crate) struct Stand {
    directory: tempfile::TempDir,
    pub(crate) upstream_port: u16,
    /// The processor of the proxy and that of load and backend, where there are two.
    processors: Option<(String, String)>,
    now: u64,
}

/// A started proxy, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
    pub(crate) up_after: Duration,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let spent = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or_default()
        };
        Duration::from_nanos(tasks.flatten().map(spent).sum())
    }

    /// The most memory that it ever had.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Stand {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for place in ["config", "log", "body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            fs::create_dir(directory.path().join(place)).unwrap();
        }
        doorward::install_crypto();
        let now = doorward::clock::read().unwrap().secs();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let processors = (cores > 1 && on_path("taskset").is_some()).then(|| ("0".to_owned(), format!("1-{}", cores - 1)));
        let this = Self { directory, upstream_port: free_port(), processors, now };
        let secrets = [("identity", IDENTITY), ("hmac", HMAC), ("halo", HALO), ("assertion", ASSERTION)];
        for (name, text) in secrets.into_iter().chain([("session", "session_secret_0123456789abcdef0")]) {
            fs::write(this.path(&format!("config/{name}.key")), text).unwrap();
        }
        this
    }

    pub(crate) fn describe(&self) -> String {
        let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(": ").nth(1)).unwrap_or("unknown processor");
        match &self.processors {
            Some((proxy, load)) => format!("{model}; each proxy on processor {proxy}, load and backend on {load}"),
            None => format!("{model}; one processor for everything: figures are rough"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The backend.
    pub(crate) fn upstream(&self) -> Process {
        let nginx = on_path("nginx").expect("nginx with Lua is the backend: apt-get install nginx libnginx-mod-http-lua lua-cjson");
        let config = self.fill("upstream.conf", include_str!("upstream.conf"), 0);
        self.spawn(&[nginx.display().to_string(), "-c".into(), config.display().to_string()], self.upstream_port, "upstream", false)
    }

    pub(crate) fn start(&self, peer: &Peer) -> Process {
        let port = free_port();
        let config = self.fill(peer.config.0, peer.config.1, port);
        let fill = |word: &String| {
            let word = word.replace("@CONFIG@", &config.display().to_string()).replace("@PORT@", &port.to_string());
            word.replace("@UPSTREAM@", &self.upstream_port.to_string())
        };
        let started = Instant::now();
        let mut process = self.spawn(&peer.command.iter().map(fill).collect::<Vec<_>>(), port, peer.name, true);
        exchange(port, &closing(&self.request("POST", "/v1/chat", Credential::Jwt, 1)));
        process.up_after = started.elapsed();
        process
    }

    /// Asks as a good and as a forged caller; stops the whole run where the peer does not do its job.
    pub(crate) fn checked(&self, peer: &Peer, process: &Process) -> String {
        let ask = |credential| exchange(process.port, &closing(&self.request("POST", "/echo", credential, 7)));
        let good = ask(Credential::Jwt);
        assert!(good.starts_with("HTTP/1.1 200"), "{}: a good token: {good}", peer.name);
        if !peer.judges {
            return "forwards".to_owned();
        }
        assert!(good.contains("user_0007"), "{}: the subject is not forwarded: {good}", peer.name);
        let forged = ask(Credential::Forged);
        assert!(forged.starts_with("HTTP/1.1 401"), "{}: a forged token: {forged}", peer.name);
        "a good token passes, a forged one does not".to_owned()
    }

    /// One caller's request, whole.
    pub(crate) fn request(&self, method: &str, path: &str, credential: Credential, caller: usize) -> String {
        let subject = format!("user_{caller:04}");
        let claims = json!({
            "sub": subject, "email": format!("ada{caller}@example.com"), "name": "Ada Lovelace", "plan": "pro",
            "iat": self.now, "exp": self.now + 36_000
        });
        let jwt = |key: &str, claims| mint::jwt(key.as_bytes(), Algorithm::HS256, None, &claims).unwrap();
        let mut body = r#"{"message":"What is the weather like in Paris today, please?","n":1234}"#.to_owned();
        let mut key = EMBED_KEY;
        let credential = match credential {
            Credential::Jwt => format!("Authorization: Bearer {}\r\n", jwt(IDENTITY, claims)),
            Credential::Forged => format!("Authorization: Bearer {}\r\n", jwt(HALO, claims)),
            Credential::Hmac => format!("X-User-Id: {subject}\r\nX-User-Token: {}\r\n", mint::hmac(HMAC.as_bytes(), &subject)),
            Credential::Session => format!("Authorization: Bearer {}\r\n", self.session(caller)),
            Credential::Preflight => {
                "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n".into()
            }
            Credential::InBody => {
                key = HALO_KEY;
                let claims = json!({ "user_id": subject, "email": "ada@example.com", "exp": self.now + 36_000 });
                body = json!({ "message": "What is the weather like?", "user_id": subject, "user_token": jwt(HALO, claims) }).to_string();
                String::new()
            }
        };
        let key = if method == "OPTIONS" { String::new() } else { format!("X-Embed-Key: {key}\r\n") };
        let framing = match method {
            "POST" => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let body = if method == "POST" { body.as_str() } else { "" };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, \
             like Gecko) Chrome/140.0.0.0 Safari/537.36\r\nAccept: */*\r\nOrigin: {ORIGIN}\r\n{key}{credential}{framing}\r\n{body}"
        )
    }

    /// The requests of a scenario, as many as there are callers.
    pub(crate) fn requests(&self, scenario: &Scenario) -> Vec<String> {
        (0..CALLERS).map(|caller| self.request(scenario.method, scenario.path, scenario.credential, caller)).collect()
    }

    /// Sessions are minted once for all rounds: through Doorward's own endpoint.
    fn session(&self, caller: usize) -> String {
        let kept = self.path(&format!("log/session-{caller}"));
        fs::read_to_string(&kept).unwrap_or_else(|_| {
            let port: u16 = fs::read_to_string(self.path("log/doorward.port")).expect("sessions need doorward").parse().unwrap();
            let request = self.request("POST", "/v1/embed/session-tokens", Credential::Jwt, caller);
            let answer = exchange(port, &closing(&request));
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
            let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no session: {answer}"));
            let token = ["token", "sessionToken", "session_token"].iter().find_map(|name| body[*name].as_str());
            let token = token.unwrap_or_else(|| panic!("no session: {answer}")).to_owned();
            fs::write(kept, &token).unwrap();
            token
        })
    }

    /// Runs a program where the load runs.
    pub(crate) fn load(&self, program: &str) -> Command {
        match &self.processors {
            Some((_, load)) => {
                let mut command = Command::new("taskset");
                command.args(["-c", load, program]);
                command
            }
            None => Command::new(program),
        }
    }

    /// Keeps this thread where the load runs.
    pub(crate) fn pin_this_thread(&self) {
        if let Some((_, load)) = &self.processors {
            self.move_to(load);
        }
    }

    /// Lets this thread run anywhere.
    pub(crate) fn unpin_this_thread(&self) {
        if self.processors.is_some() {
            self.move_to(&format!("0-{}", thread::available_parallelism().map_or(1, usize::from)));
        }
    }

    fn move_to(&self, processors: &str) {
        let done = Command::new("taskset").args(["-p", "-c", processors, &std::process::id().to_string()]).output();
        assert!(done.is_ok_and(|done| done.status.success()), "taskset");
    }

    /// Bytes of memory that one more open connection takes, after one answer, or after the start of one that goes on.
    pub(crate) fn memory_per_connection(&self, process: &Process, path: &str) -> u64 {
        use std::io::{Read as _, Write as _};
        let before = process.status("VmRSS:");
        let mut open = Vec::with_capacity(WEIGHED);
        for caller in 0..WEIGHED {
            let mut stream = TcpStream::connect(("127.0.0.1", process.port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(self.request("POST", path, Credential::Jwt, caller % CALLERS).as_bytes()).unwrap();
            let mut bytes = [0; 4096];
            assert!(stream.read(&mut bytes).unwrap() > 0, "no answer");
            open.push(stream);
        }
        let after = process.status("VmRSS:");
        after.saturating_sub(before) * 1024 / WEIGHED as u64
    }

    fn fill(&self, name: &str, text: &str, port: u16) -> PathBuf {
        let places = [
            ("@PORT@", port.to_string()),
            ("@UPSTREAM@", self.upstream_port.to_string()),
            ("@DIR@", self.directory.path().display().to_string()),
            ("@EMBED_KEY@", EMBED_KEY.to_owned()),
            ("@HALO_KEY@", HALO_KEY.to_owned()),
            ("@IDENTITY_SECRET@", IDENTITY.to_owned()),
            ("@IDENTITY_BASE64URL@", URL_SAFE_NO_PAD.encode(IDENTITY)),
            ("@ASSERTION_KEY@", ASSERTION.to_owned()),
            ("@ASSERTION_BASE64@", STANDARD.encode(ASSERTION)),
        ];
        let filled = places.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value));
        let path = self.path(&format!("config/{name}"));
        fs::write(&path, filled).unwrap();
        path
    }

    fn spawn(&self, words: &[String], port: u16, name: &str, proxy: bool) -> Process {
        let processor = self.processors.as_ref().map(|(one, other)| if proxy { one } else { other });
        let log = |kind: &str| Stdio::from(fs::File::create(self.path(&format!("log/{name}.{kind}"))).unwrap());
        let mut command = processor.map_or_else(
            || Command::new(&words[0]),
            |processor| {
                let mut command = Command::new("taskset");
                command.args(["-c", processor, &words[0]]);
                command
            },
        );
        command.args(&words[1..]).stdin(Stdio::null()).stdout(log("out")).stderr(log("err"));
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect(address).is_err() {
            let ended = child.try_wait().unwrap();
            let said = || fs::read_to_string(self.path(&format!("log/{name}.err"))).unwrap_or_default();
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "{name} did not start: {}", said());
            thread::sleep(Duration::from_millis(1));
        }
        fs::write(self.path(&format!("log/{name}.port")), port.to_string()).unwrap();
        Process { child, port, up_after: started.elapsed() }
    }
}

/// The same request, after which the connection is closed.
fn closing(request: &str) -> String {
    request.replacen("\r\nAccept", "\r\nConnection: close\r\nAccept", 1)
}

/// Sends one request that closes its connection, and reads everything.
fn exchange(port: u16, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a program that the closed loop needs is there.
pub(crate) fn needed(program: &str) -> PathBuf {
    on_path(program).unwrap_or_else(|| panic!("{program} is missing: apt-get install {program}"))
}

/// A file's path as a word of a command.
pub(crate) fn word(path: &Path) -> String {
    path.display().to_string()
}
