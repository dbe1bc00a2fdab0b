//! Slow clients, by a program that makes nothing else (Debian: slowhttptest): heads, bodies and reading that never end, from one
//! address, while somebody from another address is served (`threats` 30).

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Bystander, Notes, Row, echo, table};
use crate::gateway::{Gateway, KEY, halo, until};
use crate::upstream::Upstream;

/// The program's word for it, ours, and what it asks for.
const MODES: [(&str, &str, &str); 3] =
    [("-H", "slowhttptest: slow heads", "/a"), ("-B", "slowhttptest: slow bodies", "/b"), ("-X", "slowhttptest: slow reading", "/large")];

/// One mode for so many seconds with so many connections.
fn attack((flag, fault, path): (&str, &'static str, &str), seconds: u64, connections: usize) -> Row {
    let upstream = Upstream::start(|seen, stream| {
        if seen.target.starts_with("/large") {
            let piece = [b'a'; 64 * 1024];
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n")?;
            return (0..256).try_for_each(|_| stream.write_all(&piece));
        }
        stream.write_all(&echo(seen))
    });
    // It can set neither key nor origin but in the query, and none.
    let tenant = "missing_origin = \"allow\"\nplaces = { embed_key = [\"header:X-Embed-Key\", \"query:key\"] }\n";
    let limits = "[server.limits]\nheader_timeout = \"2s\"\nbody_rate_window = \"2s\"\nsend_timeout = \"2s\"\n\n[upstream]";
    let gateway = Gateway::start(&halo(upstream.address(), tenant).replace("[upstream]", limits));
    let notes = Notes::default();
    let bystander = Bystander::start(gateway.address, 0, notes.clone());
    let ran = Command::new("slowhttptest")
        .args([flag, "-c", &connections.to_string(), "-r", &connections.to_string(), "-l", &seconds.to_string(), "-i", "1", "-p", "3"])
        .args(["-s", "100000", "-u", &format!("http://{}{path}?key={KEY}", gateway.address)])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .expect("slowhttptest (Debian: slowhttptest); make test installs it");
    let over = Instant::now();
    // Its own connections are gone with it; those that it left to us are closed.
    until("the slow ones to be gone", || (gateway.metric("doorward_connections") <= 1.0).then_some(()));
    let recovery = Some(over.elapsed());
    let met = bystander.end();
    let wrong = notes.take();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(said.contains("Test ended"), "{said}");
    let of = |metric: &str| gateway.metric(metric);
    let cut = of("doorward_connections_cut_total{late=\"header\"}") + of("doorward_connections_cut_total{late=\"body\"}");
    let refused = of("doorward_connections_refused_total{limit=\"max_connections_per_client\"}");
    let mut note = format!("slowest answer {:.2} s; {cut} cut for lateness, {refused} refused", met.slowest.as_secs_f64());
    wrong.iter().for_each(|wrong| note.push_str(wrong));
    if flag != "-X" {
        assert!(cut > 0.0, "{note}\n{said}");
    }
    let load = format!("{connections} connections for {seconds} s, 1 caller");
    Row { fault, load, requests: met.requests, wrong: wrong.len() as u64, lost: met.lost, recovery, note }
}

/// All three modes.
pub fn run(seconds: u64, connections: usize) -> Vec<Row> {
    let modes = MODES.map(|mode| thread::spawn(move || attack(mode, seconds, connections)));
    modes.map(|mode| mode.join().expect("a mode")).into()
}

#[test]
fn slow_clients_hold_up_nobody_else() {
    let rows = run(4, 300);
    eprintln!("{}", table(&rows));
    rows.iter().for_each(Row::clean);
    assert!(rows.iter().all(|row| row.recovery.is_some_and(|took| took < Duration::from_secs(20))));
}
