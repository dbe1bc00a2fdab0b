//! Faults: what goes wrong around the gateway, and what it does then. Each module injects some, has a short run that is a test
//! here, and a long one that `make soak` prints as rows of a table (tests/soak). A caller who did nothing wrong is asked for an
//! answer meanwhile: what it gets must be its own, and right.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub mod clock;
pub mod floods;
pub mod kill;
pub mod load;
pub mod mixed;
pub mod resources;
pub mod site;
pub mod slow;
pub mod stop;
pub mod terminate;
mod traffic;
pub mod upgrade;
pub mod upstream;

use crate::gateway::{KEY, ORIGIN, in_seconds, jwt};
use crate::http::{self, Answer, Connection};
use crate::upstream::Seen;

/// What a fault did, as a line of the summary.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What went wrong.
    pub fault: &'static str,
    /// Under which load.
    pub load: String,
    /// Requests of those who did nothing wrong.
    pub requests: u64,
    /// Answers that were not the expected ones, or somebody else's.
    pub wrong: u64,
    /// Requests that got no answer, or part of one.
    pub lost: u64,
    /// From the end of the fault to the first good answer.
    pub recovery: Option<Duration>,
    /// What else is worth knowing.
    pub note: String,
}

impl Row {
    /// Fails a test where anything was wrong or lost.
    #[track_caller]
    pub fn clean(&self) {
        let Self { fault, load, requests, wrong, lost, note, .. } = self;
        assert!(*requests > 0 && *wrong == 0 && *lost == 0, "{fault}: {wrong} wrong and {lost} lost of {requests} ({load}; {note})");
    }
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| fault | load | requests | wrong decisions | lost requests | recovery time | note |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let recovery = row.recovery.map_or_else(|| "–".to_owned(), |took| format!("{:.2} s", took.as_secs_f64()));
        let Row { fault, load, requests, wrong, lost, note, .. } = row;
        let _ = writeln!(text, "| {fault} | {load} | {requests} | {wrong} | {lost} | {recovery} | {note} |");
    }
    text
}

/// What went wrong in a run, in words.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn add(&self, note: String) {
        self.0.lock().unwrap().push(note);
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// What a bystander met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    pub requests: u64,
    pub lost: u64,
    pub slowest: Duration,
}

impl Met {
    pub fn and(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, lost: self.lost + other.lost, slowest: self.slowest.max(other.slowest) }
    }
}

/// Somebody who asks all the time, and looks whether the answers are about what was asked.
pub struct Bystander {
    thread: thread::JoinHandle<Met>,
    stop: Arc<AtomicBool>,
}

impl Bystander {
    /// The `nth` of them, with an address of its own. What is wrong is noted.
    pub fn start(gateway: SocketAddr, nth: u8, notes: Notes) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let name = format!("user_{nth}");
        let thread = thread::spawn(move || {
            let open = || Connection::open_from(Ipv4Addr::new(127, 0, 0, 200 + nth), gateway);
            let (mut connection, token, mut met) = (open(), token(&name), Met::default());
            while !stopped.load(Ordering::Relaxed) {
                let (target, started) = (format!("/ok/{name}/{}", met.requests), Instant::now());
                met.requests += 1;
                match connection.send(&request("GET", &target, &token, b"")).ok().and_then(|()| connection.answer("GET")) {
                    Some(answer) if is_own(&answer, &name, &target) => {}
                    Some(answer) => notes.add(format!("{target}: {} {} {}", answer.status, answer.reason(), answer.text())),
                    None => {
                        met.lost += 1;
                        connection = open();
                    }
                }
                met.slowest = met.slowest.max(started.elapsed());
                if met.requests.is_multiple_of(500) {
                    connection = open(); // keepalive_requests
                }
            }
            met
        });
        Self { thread, stop }
    }

    /// Stops it.
    pub fn end(self) -> Met {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a bystander")
    }
}

/// Resident memory of a process, in bytes.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// A line of `/proc/PID/status` that is in kB, in bytes.
pub fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).expect("a number") * 1024
}

/// Open file descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process").count()
}

/// Processor time that a process has used, user and system.
pub fn processor(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    // The name in parentheses may have spaces; utime and stime are the 12th and 13th behind it, in hundredths of a second.
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An answer with its end.
    Whole(Answer),
    /// The connection ended before the answer did.
    CutOff(u16),
    /// The connection ended without an answer.
    Nothing,
}

impl Outcome {
    /// Reads one.
    pub fn of(connection: &mut Connection, method: &str) -> Self {
        let (status, headers) = loop {
            match connection.head() {
                None => return Self::Nothing,
                Some((100 | 102..=199, _)) => {}
                Some(head) => break head,
            }
        };
        connection.rest_of(method, status, headers).map_or(Self::CutOff(status), Self::Whole)
    }

    /// In a word: `200`, `502 upstream_protocol`, `200 cut off` or `nothing`.
    pub fn told(&self) -> String {
        match self {
            Self::Whole(answer) if answer.reason().is_empty() => answer.status.to_string(),
            Self::Whole(answer) => format!("{} {}", answer.status, answer.reason()),
            Self::CutOff(status) => format!("{status} cut off"),
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

/// What [`crate::gateway::halo`]'s tenant asks of a caller: embed key and origin.
pub const CALLER: [(&str, &str); 2] = [("X-Embed-Key", KEY), ("Origin", ORIGIN)];

/// A token of that tenant, good for an hour.
pub fn token(subject: &str) -> String {
    jwt(&serde_json::json!({ "user_id": subject, "exp": in_seconds(3600) }))
}

/// A verified caller's request.
pub fn request(method: &str, target: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    http::request(method, target, &[CALLER[0], CALLER[1], ("Authorization", &bearer)], body)
}

/// An agent's answer that says what it was told, so that a caller can see whether it is about its own request.
pub fn echo(seen: &Seen) -> Vec<u8> {
    let said = |name: &str| seen.all(name).join(",");
    let body = serde_json::json!({
        "request_id": said("x-identity-request-id"),
        "level": said("x-identity-level"),
        "tenant": said("x-identity-tenant"),
        "subject": said("x-identity-subject"),
        "claimed": said("x-identity-claimed-subject"),
        "target": seen.target,
        "length": seen.body.len(),
    });
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Whether an answer is that echo of this caller's request.
pub fn is_own(answer: &Answer, subject: &str, target: &str) -> bool {
    let Ok(told) = serde_json::from_slice::<serde_json::Value>(&answer.body) else { return false };
    let id = answer.all("x-request-id");
    answer.status == 200 && id.len() == 1 && told["request_id"] == id[0] && told["subject"] == subject && told["target"] == target
}
