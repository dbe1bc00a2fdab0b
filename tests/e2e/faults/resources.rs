//! Little of everything: 256 file descriptors, 64 MiB of memory, a log that nobody takes. What is too much is refused, and who
//! was there before is served.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{CALLER, Row, descriptors, echo, is_own, processor, request, status, table, token};
use crate::gateway::{Gateway, halo, until};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

fn agent() -> Upstream {
    Upstream::start(|seen, stream| stream.write_all(&echo(seen)))
}

/// Asks on a connection that is there; whether the answer is its own.
fn asks(connection: &mut Connection, subject: &str, target: &str) -> Option<bool> {
    connection.send(&request("GET", target, &token(subject), b"")).ok()?;
    Some(is_own(&connection.answer("GET")?, subject, target))
}

/// From now to the first good answer on a new connection.
fn recovery(gateway: SocketAddr) -> Duration {
    let started = Instant::now();
    until("a good answer", || {
        let mut connection = Connection::open(gateway);
        asks(&mut connection, "after", "/after").is_some_and(|own| own).then_some(())
    });
    started.elapsed()
}

/// A process that may have 256 descriptors, and `floods` waves of twice as many connections; somebody who was there before asks
/// all the time.
pub fn few_descriptors(floods: usize) -> Row {
    let upstream = agent();
    let gateway = Gateway::start_by("ulimit -n 256", &halo(upstream.address(), ""), &[]);
    let mut row = Row { fault: "256 file descriptors", load: format!("{floods} floods of 512 connections, 1 caller"), ..Row::default() };
    let mut there = Connection::open_from(Ipv4Addr::new(127, 0, 0, 9), gateway.address);
    let (mut most, mut open) = (0, 0);
    for flood in 0..floods {
        let mut connections = Vec::new();
        for n in 0..512 {
            connections.push(Connection::open_from(Ipv4Addr::new(127, 0, 0, 10 + (n % 2) as u8), gateway.address));
            if n % 16 == 0 {
                row.requests += 1;
                match asks(&mut there, "ann", &format!("/{flood}/{n}")) {
                    Some(true) => {}
                    Some(false) => row.wrong += 1,
                    None => row.lost += 1,
                }
            }
            most = most.max(descriptors(gateway.pid()));
        }
        open = open.max(gateway.metric("doorward_connections") as usize);
        drop(connections);
    }
    row.recovery = Some(recovery(gateway.address));
    let refused = gateway.metric("doorward_connections_refused_total{limit=\"max_connections\"}");
    row.note = format!("at most {most} descriptors and {open} connections, {refused} refused");
    assert!(most < 256 && open > 50 && refused > 300.0 * floods as f64, "{row:?}");
    row
}

#[test]
fn with_256_descriptors_those_who_are_there_are_served() {
    let row = few_descriptors(1);
    eprintln!("{}", table(std::slice::from_ref(&row)));
    row.clean();
}

/// They come faster than they can be looked at.
#[test]
fn a_flood_of_connections_waits_outside() {
    let upstream = agent();
    let limits = "[server.limits]\nmax_connections = 20\nmax_connections_per_client = 20\n\n[upstream]";
    let gateway = Gateway::start(&halo(upstream.address(), "").replace("[upstream]", limits));
    let (stop, mut most) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        for _ in 0..4 {
            let (stop, address) = (&stop, gateway.address);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut connection = Connection::open(address);
                    let _ = connection.send(&request("GET", "/a", "forged", b""));
                }
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            most = most.max(descriptors(gateway.pid()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(most < 120, "{most} descriptors");
    assert!(gateway.metric("doorward_connections_refused_total{limit=\"max_connections\"}") > 0.0);
    recovery(gateway.address);
}

/// Requests on one HTTP/2 connection need descriptors too; here on many connections at once.
#[test]
fn requests_at_once_stay_within_the_descriptors() {
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::start(move |seen, stream| {
        until("the gate", || (opened.load(Ordering::SeqCst) || seen.target != "/wait").then_some(()));
        stream.write_all(&echo(seen))
    });
    let gateway = Gateway::start_by("ulimit -n 130", &halo(upstream.address(), ""), &[]);
    let allowed = gateway.log().split("allowed=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok()).unwrap();
    let mut waiting: Vec<_> = (0..allowed).map(|_| Connection::open(gateway.address)).collect();
    for connection in &mut waiting {
        connection.send(&request("GET", "/wait", &token("ann"), b"")).unwrap();
    }
    until("all of them to be upstream", || (upstream.seen().len() == allowed).then_some(()));
    assert!(descriptors(gateway.pid()) < 130);
    assert!(Connection::open(gateway.address).more().is_none(), "one too many is closed on arrival");
    gate.store(true, Ordering::SeqCst);
    assert!(waiting.iter_mut().all(|connection| is_own(&connection.answer("GET").unwrap(), "ann", "/wait")));
    drop(waiting);
    recovery(gateway.address);
}

#[test]
fn descriptors_that_are_gone_all_the_same_stop_nothing_for_long() {
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::start(move |seen, stream| {
        until("the gate", || (opened.load(Ordering::SeqCst) || seen.target != "/wait").then_some(()));
        stream.write_all(&echo(seen))
    });
    // With one thread, a connection that was kept is always found again.
    let config = halo(upstream.address(), "").replace("threads = 2", "threads = 1");
    let gateway = Gateway::start_by("ulimit -n 256", &config.replace("[assertion]", "idle_timeout = \"1m\"\n[assertion]"), &[]);
    let (mut there, mut another) = (Connection::open(gateway.address), Connection::open(gateway.address));
    assert_eq!(asks(&mut another, "bob", "/before"), Some(true));
    assert_eq!(asks(&mut there, "ann", "/before"), Some(true));
    // The admin listener has no cap of its own: it is this machine's.
    let taken: Vec<_> = (0..300).map(|_| Connection::open(gateway.admin)).collect();
    until("no descriptor to be left", || (descriptors(gateway.pid()) == 256).then_some(()));
    let outside = Connection::open(gateway.address); // waits in the system's queue
    assert_eq!(asks(&mut there, "ann", "/meanwhile"), Some(true), "its connection and the backend's are open already");
    let (used, lines, started) = (processor(gateway.pid()), gateway.log().lines().count(), Instant::now());
    thread::park_timeout(Duration::from_secs(2));
    let (used, took) = (processor(gateway.pid()).saturating_sub(used), started.elapsed());
    assert!(used < took / 4, "it took {used:?} of {took:?} to wait");
    let lines = gateway.log().lines().count() - lines;
    assert!(lines <= 4 * (took.as_secs() as usize + 1), "{lines} lines in {took:?}");
    // The one connection to the backend is busy, and no other can be opened.
    there.send(&request("GET", "/wait", &token("ann"), b"")).unwrap();
    until("it to be there", || upstream.seen().iter().any(|seen| seen.target == "/wait").then_some(()));
    another.send(&request("GET", "/more", &token("bob"), b"")).unwrap();
    let answer = another.answer("GET").unwrap();
    assert_eq!((answer.status, answer.reason()), (503, "gateway_overloaded"), "it is not the backend's fault");
    gate.store(true, Ordering::SeqCst);
    assert!(is_own(&there.answer("GET").unwrap(), "ann", "/wait"));
    drop((taken, outside));
    recovery(gateway.address);
    assert_eq!(asks(&mut there, "ann", "/after"), Some(true));
}

/// A group of processes that has this much memory, where the machine lets us make one.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(bytes: u64) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("doorward-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Version 2, version 2 beside 1, version 1.
        for (root, limit, swap) in [
            ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
            ("/sys/fs/cgroup/unified", "memory.max", "memory.swap.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        ] {
            let (root, path) = (Path::new(root), Path::new(root).join(&name));
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory"); // version 2 only
            if std::fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self(path);
            if group.0.join(limit).exists() && std::fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                let no_swap = if limit == "memory.max" { 0 } else { bytes };
                let _ = std::fs::write(group.0.join(swap), no_swap.to_string()); // not where there is no swap
                return Some(group);
            }
        }
        None
    }

    /// A shell command that joins it.
    fn join(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }

    /// Most that was used, and how often the limit was reached.
    fn peak(&self) -> Option<u64> {
        let of = |name: &str| std::fs::read_to_string(self.0.join(name)).ok()?.trim().parse().ok();
        of("memory.peak").or_else(|| of("memory.max_usage_in_bytes"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The process in it was killed a moment ago.
        until("the group to be empty", || (std::fs::remove_dir(&self.0).is_ok() || !self.0.exists()).then_some(()));
    }
}

/// Memory that is a process' own, not a file's, in bytes.
fn anonymous(pid: u32) -> u64 {
    status(pid, "RssAnon:")
}

/// Has the allocator take memory from the system when it is used, not in large pieces before.
const FRUGAL: &str = "export MIMALLOC_ARENA_EAGER_COMMIT=0";
/// The limits that the manual says fit into 64 MiB, with that.
const SMALL: &str = "[server.limits]\nmax_connections = 128\nmax_in_flight = 24\n";

/// 64 MiB, filled with connections, held bodies and answers that nobody reads for as long as this; somebody asks all the time.
pub fn little_memory(length: Duration) -> Row {
    let upstream = Upstream::start(|seen, stream| {
        if seen.target.starts_with("/large") {
            let piece = [b'a'; 64 * 1024];
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")?;
            return (0..1024).try_for_each(|_| stream.write_all(&piece));
        }
        stream.write_all(&echo(seen))
    });
    let config = halo(upstream.address(), "").replace("[upstream]", &format!("body_hold = \"128KiB\"\n{SMALL}\n[upstream]"));
    let group = MemoryGroup::new(64 << 20);
    let join = group.as_ref().map(MemoryGroup::join).unwrap_or_default();
    let gateway = Gateway::start_by(&format!("{join}\n{FRUGAL}"), &config, &[]);
    let (stop, address) = (AtomicBool::new(false), gateway.address);
    let mut row = Row { fault: "64 MiB of memory", ..Row::default() };
    let (mut most, mut shed, mut refused, started) = (0, 0, 0, Instant::now());
    let attackers = AtomicU64::new(0);
    thread::scope(|scope| {
        // Bodies that are held and denied, held and never finished, answers that nobody reads, and connections that say nothing.
        let source = |n: u8| Ipv4Addr::new(127, 0, 0, 100 + n);
        for n in 0..4_u8 {
            let (stop, attackers) = (&stop, &attackers);
            scope.spawn(move || {
                let body = format!("{{\"user_id\":\"x\",\"message\":\"{}\"}}", "a".repeat(100_000));
                while !stop.load(Ordering::Relaxed) {
                    let mut open = Vec::new();
                    for kind in 0..28 {
                        let mut connection = Connection::open_from(source(n), address);
                        let _ = match kind % 4 {
                            0 => connection.send(&request("POST", "/api/sdk/chat", "forged", body.as_bytes())),
                            1 => {
                                let whole = request("POST", "/api/sdk/chat", "forged", body.as_bytes());
                                connection.send(&whole[..whole.len() - 1])
                            }
                            2 => connection.send(&request("GET", "/large", &token("mallory"), b"")),
                            _ => Ok(()),
                        };
                        attackers.fetch_add(1, Ordering::Relaxed);
                        open.push(connection);
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                }
            });
        }
        let open = || (Connection::open_from(Ipv4Addr::new(127, 0, 0, 9), address), true);
        let (mut there, mut is_new) = open();
        while started.elapsed() < length || row.requests < 20 {
            let target = format!("/ok/{}", row.requests);
            let told = there.send(&request("GET", &target, &token("ann"), b"")).ok().and_then(|()| there.answer("GET"));
            row.requests += 1;
            match told {
                Some(answer) if is_own(&answer, "ann", &target) => is_new = false,
                Some(answer) if answer.reason() == "gateway_overloaded" => {
                    shed += 1;
                    (there, is_new) = open();
                }
                Some(_) => row.wrong += 1,
                None => {
                    // One too many is closed on arrival.
                    let count = if is_new { &mut refused } else { &mut row.lost };
                    *count += 1;
                    (there, is_new) = open();
                }
            }
            most = most.max(anonymous(gateway.pid()));
            thread::park_timeout(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    row.recovery = Some(recovery(gateway.address));
    let attackers = attackers.into_inner();
    row.load = format!("{attackers} connections with bodies, unread answers or nothing, {} s, 1 caller", length.as_secs());
    // What the group counts has cached pages of files in it, which go when others need the room.
    let peak = group
        .as_ref()
        .and_then(MemoryGroup::peak)
        .map_or("no group of processes could be made here".to_owned(), |peak| format!("not killed at {} MiB with caches", peak >> 20));
    row.note = format!("{} MiB of its own, {peak}; {shed} shed, {refused} refused", most >> 20);
    assert!(most < 56 << 20, "{row:?}");
    row
}

#[test]
fn sixty_four_mebibytes_are_enough_for_the_limits_that_the_manual_names() {
    let row = little_memory(Duration::from_secs(3));
    eprintln!("{}", table(std::slice::from_ref(&row)));
    row.clean();
}

/// Standard output as a named pipe, opened at both ends by the process itself: nobody reads it, and nobody closes it.
fn stuck(pipe: &Path) -> String {
    format!("mkfifo {0}; exec 9<>{0}; exec >{0}", pipe.display())
}

/// The same, and the only reader goes away.
fn broken(pipe: &Path) -> String {
    stuck(pipe) + "; exec 9<&-"
}

const LOST: &str = "doorward_log_lines_lost_total{stream=\"audit\"}";

/// Requests while every audit record meets this fate: each is answered and decided as ever, each lost record is counted.
fn without_audit(fault: &'static str, shell: &str, requests: u64) -> Row {
    let upstream = agent();
    let mut gateway = Gateway::start_by(shell, &halo(upstream.address(), ""), &[]);
    let mut row = Row { fault, load: "1 caller".to_owned(), ..Row::default() };
    let mut connection = Connection::open(gateway.address);
    while row.requests < requests {
        let target = format!("/ok/{}", row.requests);
        row.requests += 2;
        match asks(&mut connection, "ann", &target) {
            Some(true) => {}
            Some(false) => row.wrong += 1,
            None => row.lost += 1,
        }
        connection.send(&request("GET", &target, "forged", b"")).unwrap();
        match connection.answer("GET") {
            Some(answer) if answer.reason() == "token_malformed" => {}
            Some(_) => row.wrong += 1,
            None => row.lost += 1,
        }
        if row.requests.is_multiple_of(900) {
            connection = Connection::open(gateway.address);
        }
    }
    until("the lost records to be counted", || (gateway.metric(LOST) == row.requests as f64).then_some(()));
    row.note = format!("{} records lost and counted", gateway.metric(LOST));
    let told = |gateway: &Gateway| gateway.log().matches("lines cannot be written and are lost").count();
    until("the log to tell", || (told(&gateway) == 1).then_some(()));
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0, "and the process ends as ever");
    row
}

/// Requests while nobody reads the audit: thousands wait in vain, then records are dropped.
fn unread_audit(requests: usize) -> Row {
    let upstream = agent();
    let directory = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_by(&stuck(&directory.path().join("pipe")), &halo(upstream.address(), ""), &[]);
    let mut row = Row { fault: "audit pipe that nobody reads", load: "2 callers, pipelined".to_owned(), ..Row::default() };
    let anonymous = http::request("GET", "/a", &[CALLER[1]], b"");
    let address = gateway.address;
    let denied = || {
        let mut wrong = [0_u64; 2];
        for _ in 0..requests / 1000 {
            let mut connection = Connection::open(address);
            connection.send(&anonymous.repeat(500)).unwrap();
            for _ in 0..500 {
                match connection.answer("GET") {
                    Some(answer) if answer.reason() == "embed_key_missing" => {}
                    Some(_) => wrong[0] += 1,
                    None => wrong[1] += 1,
                }
            }
        }
        wrong
    };
    let both = thread::scope(|scope| [scope.spawn(denied), scope.spawn(denied)].map(|half| half.join().unwrap()));
    row.requests = (requests / 1000 * 1000) as u64;
    (row.wrong, row.lost) = (both[0][0] + both[1][0], both[0][1] + both[1][1]);
    until("records to be dropped", || (gateway.metric(LOST) > 0.0).then_some(()));
    let lost = gateway.metric(LOST);
    assert!(lost < (requests - 4096) as f64, "{lost} lost of {requests}");
    let started = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
    row.note = format!("{lost} records dropped and counted; ended {:.1} s after SIGTERM", started.elapsed().as_secs_f64());
    row
}

/// Each way in which a log cannot be written.
pub fn no_log(requests: u64) -> Vec<Row> {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    vec![
        without_audit("full disk under the audit", "exec >/dev/full", requests),
        without_audit("audit pipe whose reader is gone", &broken(&pipe), requests),
        unread_audit(6000),
    ]
}

#[test]
fn nothing_waits_for_a_log_that_cannot_be_written() {
    let rows = no_log(60);
    eprintln!("{}", table(&rows));
    rows.iter().for_each(Row::clean);
}

#[test]
fn a_disk_that_was_full_gets_whole_records_again() {
    let unshare = [&["-m"][..], &["-rm"]]
        .into_iter()
        .find(|flags| Command::new("unshare").args(*flags).arg("true").stderr(Stdio::null()).status().is_ok_and(|s| s.success()));
    let Some(unshare) = unshare else {
        // What a partial write leaves is also a unit test of src/cli/log.rs.
        return eprintln!("no disk could be made here: unshare is not allowed");
    };
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().display();
    let inside =
        format!("mount -t tmpfs -o size=64k none {path} && head -c 50000 /dev/zero >{path}/filler && exec \"$0\" \"$@\" >{path}/audit");
    let shell = format!("exec unshare {} sh -c '{inside}' \"$0\" \"$@\"", unshare[0]);
    let upstream = agent();
    let gateway = Gateway::start_by(&shell, &halo(upstream.address(), ""), &[]);
    let mut connection = Connection::open(gateway.address);
    let mut ask = |n: usize| assert_eq!(asks(&mut connection, "ann", &format!("/{n}")), Some(true));
    let mut asked = 0;
    until("the disk to be full", || {
        ask(asked);
        asked += 1;
        (gateway.metric(LOST) > 3.0).then_some(())
    });
    let seen = PathBuf::from(format!("/proc/{}/root{path}", gateway.pid()));
    std::fs::remove_file(seen.join("filler")).unwrap();
    let lost = gateway.metric(LOST) as usize;
    (0..3).for_each(|n| ask(asked + n));
    let text = || std::fs::read_to_string(seen.join("audit")).unwrap();
    until("the records to be written again", || text().contains(&format!("\"/{}\"", asked + 2)).then_some(()));
    let (whole, torn): (Vec<_>, Vec<_>) =
        text().lines().map(str::to_owned).partition(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    assert!(torn.len() <= 1 && whole.len() == asked + 3 - lost, "{} whole, {lost} lost of {}: {torn:?}", whole.len(), asked + 3);
}
